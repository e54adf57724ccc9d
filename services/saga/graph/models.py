"""What is learnt of one agent class (or tenant, or all): tools, gaps, growth, and how many steps sessions have. Pure.

A model is plain data that goes to JetStream KV as it is. The same events teach three of them, from the narrow to the
wide; how they are weighed is the forecast's choice. Everything in it is bounded and forgets: counts halve beyond a
limit, a new tool takes the place of the one that is called least.
"""

from typing import Final

import msgspec

from saga.graph.situation import FIRST_STEPS, MAX_STEP_KIND, NO_TOOL, step_kind
from saga.graph.sketch import Sketch

MAX_TOOLS: Final = 32
MAX_EDGES: Final = 16  # out of one tool; the rarest goes
MAX_CELLS: Final = 96  # contexts of all tools together
MAX_CHILDREN: Final = 4  # classes of sub-agents that one tool starts
MAX_COUNT: Final = 4_096  # returns and ends of one tool, steps of all; beyond, counts halve
OTHER: Final = "~other"
START: Final = "~start"  # its edges lead to the tools that first steps call
_MEAN_WEIGHT: Final = 1_000.0  # means forget beyond this many samples


class Mean(msgspec.Struct, gc=False, array_like=True):
    """A mean that follows change."""

    weight: float = 0.0
    value: float = 0.0

    def add(self, value: float) -> None:
        """One more sample."""
        weight = self.weight
        if weight < _MEAN_WEIGHT:
            weight += 1.0
            self.weight = weight
        self.value += (value - self.value) / weight


class Cell(msgspec.Struct, gc=False, array_like=True):
    """What follows a step that called one tool in one context."""

    gaps: Sketch = msgspec.field(default_factory=Sketch)
    returned: int = 0
    ended: int = 0


class Edge(msgspec.Struct, gc=False, array_like=True):
    """From one tool to the next. Gaps are kept at the narrowest level only."""

    count: int = 0
    gaps: Sketch | None = None


class ToolModel(msgspec.Struct, gc=False, array_like=True):
    """What follows a step that called this tool (or none: the empty name)."""

    number: int = 0  # by which edges lead here
    gaps: Sketch = msgspec.field(default_factory=Sketch)
    returned: int = 0
    ended: int = 0
    returned_at: list[int] = []  # by kind of step count
    ended_at: list[int] = []
    growth_tokens: Mean = msgspec.field(default_factory=Mean)
    next: dict[int, Edge] = {}  # by number; one that no tool has any more: other tools
    cells: dict[int, Cell] = {}  # by context
    children: dict[str, int] = {}  # classes of the sub-agents that were started after it

    @property
    def count(self) -> int:
        """Steps, of which old ones count less."""
        return self.returned + self.ended

    def went_on(self, steps: int, *, ended: bool) -> None:
        """Another outcome."""
        counts = self.ended_at if ended else self.returned_at
        count(counts, step_kind(steps))
        if ended:
            self.ended += 1
        else:
            self.returned += 1
        if self.returned + self.ended > MAX_COUNT:
            self._age()

    def _age(self) -> None:
        self.returned >>= 1
        self.ended >>= 1
        self.returned_at = [n >> 1 for n in self.returned_at]
        self.ended_at = [n >> 1 for n in self.ended_at]
        self.children = {name: half for name, n in self.children.items() if (half := n >> 1)}
        self.next = {number: edge for number, edge in self.next.items() if edge.count > 1}
        for edge in self.next.values():
            edge.count >>= 1
        for cell in self.cells.values():
            cell.returned >>= 1
            cell.ended >>= 1

    def edge(self, number: int) -> Edge:
        """The edge to the tool of that number."""
        known = self.next.get(number)
        if known is None:
            if len(self.next) >= MAX_EDGES:
                del self.next[min(self.next, key=lambda n: self.next[n].count)]
            known = self.next[number] = Edge()
        return known


class Model(msgspec.Struct, gc=False, tag="model-2", tag_field="version"):
    """All that is learnt at one level."""

    name: str
    tools: dict[str, ToolModel] = {}
    gaps: Sketch = msgspec.field(default_factory=Sketch)
    continued: list[int] = []  # sessions that went on, by kind of step count
    ended: list[int] = []  # that ended
    outcomes: int = 0  # returns and ends counted, ever
    held: int = 0  # of them, in the two lists
    growth_tokens: Mean = msgspec.field(default_factory=Mean)
    modelled_s: Mean = msgspec.field(default_factory=Mean)  # engine-seconds of a step; not the time that it took
    cells: int = 0  # contexts of all tools
    numbers: int = 0  # of tools given out
    learnt_until_at: float = 0.0  # wall time of the newest step learnt: a replay teaches nothing twice

    def tool(self, name: str) -> ToolModel:
        """The model of what follows a tool, made when there is none, in the place of the least called one."""
        known = self.tools.get(name)
        if known is None:
            if len(self.tools) >= MAX_TOOLS + 1:  # one more for START
                least = min((tool for tool in self.tools if tool not in _STAY), key=lambda tool: self.tools[tool].count)
                self.cells -= len(self.tools.pop(least).cells)
            self.numbers += 1
            known = self.tools[name] = ToolModel(self.numbers)
        return known

    def cell(self, follows: ToolModel, context: int) -> Cell | None:
        """What is known in that context; None when there is no room for it."""
        cell = follows.cells.get(context)
        if cell is None and self.cells < MAX_CELLS:
            self.cells += 1
            cell = follows.cells[context] = Cell()
        return cell

    def saw_outcome(
        self, follows: ToolModel, steps: int, context: int, bucket: int, session: int = 0, *, ended: bool
    ) -> None:
        """After its `steps`-th step a session came back, or ended. Negative bucket: after an unknown gap, or never."""
        self.outcomes += 1
        self.held += 1
        count(self.ended if ended else self.continued, step_kind(steps))
        if self.held > MAX_COUNT:
            self._age()
        follows.went_on(steps, ended=ended)
        cell = self.cell(follows, context)
        if bucket >= 0:
            self.gaps.add_bucket(bucket, session)
            follows.gaps.add_bucket(bucket, session)
        if cell is not None:
            if ended:
                cell.ended += 1
            else:
                cell.returned += 1
            if bucket >= 0:
                cell.gaps.add_bucket(bucket, session)

    def took_end_back(self, tool: str, steps: int, context: int) -> None:
        """A session that had been counted as ended with its `steps`-th step goes on."""
        follows, kind = self.tools.get(tool), step_kind(steps)
        if kind < len(self.ended) and self.ended[kind]:  # counts may have halved, a model may have been loaded
            self.ended[kind] -= 1
            self.held -= 1
        if follows is not None and follows.ended:
            follows.ended -= 1
            if kind < len(follows.ended_at) and follows.ended_at[kind]:
                follows.ended_at[kind] -= 1
            cell = follows.cells.get(context)
            if cell is not None and cell.ended:
                cell.ended -= 1

    def _age(self) -> None:
        self.ended = [n >> 1 for n in self.ended]
        self.continued = [n >> 1 for n in self.continued]
        self.held = sum(self.ended) + sum(self.continued)

    @property
    def mean_steps(self) -> float:
        """Of sessions that ended, lately; 0: none did. Within a fifth, as counts are kept in half octaves."""
        middles = [(first + after - 1) / 2 for first, after in zip(FIRST_STEPS, (*FIRST_STEPS[1:], 1025), strict=True)]
        return sum(n * steps for n, steps in zip(self.ended, middles, strict=False)) / max(1, sum(self.ended))


_STAY: Final = frozenset({START, OTHER, NO_TOOL})  # tools that make no place for others


def count(counts: list[int], kind: int) -> None:
    """One more of that kind."""
    if kind >= len(counts):
        counts.extend([0] * (min(kind, MAX_STEP_KIND) + 1 - len(counts)))
    counts[kind] += 1
