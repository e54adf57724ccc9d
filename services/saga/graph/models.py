"""What is learnt of one agent class (or tenant, or all): tools, gaps, growth, and how many steps sessions have. Pure.

A model is plain data that goes to JetStream KV as it is. The same events teach three of them, from the narrow to the
wide; how they are weighed is the forecast's choice.
"""

from typing import Final

import msgspec

from saga.graph.sketch import Sketch

MAX_TOOLS: Final = 32  # names beyond these count as OTHER
MAX_STEPS: Final = 256  # sessions longer than this share the last entry
OTHER: Final = "~other"
_MEAN_WEIGHT: Final = 1_000.0  # means forget beyond this many samples


class Mean(msgspec.Struct, gc=False):
    """A mean that follows change."""

    weight: float = 0.0
    value: float = 0.0

    def add(self, value: float) -> None:
        """One more sample."""
        self.weight = min(self.weight + 1.0, _MEAN_WEIGHT)
        self.value += (value - self.value) / self.weight


class ToolModel(msgspec.Struct, gc=False):
    """What follows a step that called this tool (or none: the empty name)."""

    gaps: Sketch = msgspec.field(default_factory=Sketch)
    returned: int = 0
    ended: int = 0
    next_tools: dict[str, int] = {}


class Model(msgspec.Struct, gc=False):
    """All that is learnt at one level."""

    name: str
    tools: dict[str, ToolModel] = {}
    gaps: Sketch = msgspec.field(default_factory=Sketch)
    continued: list[int] = []  # [n]: sessions that went on after their n-th step
    ended: list[int] = []  # [n]: sessions that ended with it
    outcomes: int = 0  # returns and ends counted
    growth_tokens: Mean = msgspec.field(default_factory=Mean)
    engine_s: Mean = msgspec.field(default_factory=Mean)
    learnt_until_at: float = 0.0  # wall time of the newest step learnt: a replay teaches nothing twice

    def tool(self, name: str) -> ToolModel:
        """The model of what follows a tool, made when there is none and room for it."""
        known = self.tools.get(name)
        if known is not None:
            return known
        if len(self.tools) >= MAX_TOOLS:
            name = OTHER
        return self.tools.setdefault(name, ToolModel())

    def saw_step(self, engine_s: float) -> None:
        """A step took this long at the engine."""
        self.engine_s.add(engine_s)

    def saw_return(self, tool: str, steps: int, gap_s: float) -> None:
        """A session went on after its `steps`-th step, which had called `tool`. Negative gap: unknown."""
        follows = self.tool(tool)
        follows.returned += 1
        self.outcomes += 1
        _count(self.continued, steps)
        if gap_s >= 0:
            follows.gaps.add(gap_s)
            self.gaps.add(gap_s)

    def saw_next(self, tool: str, next_tool: str, growth_tokens: int) -> None:
        """The step after one that had called `tool` called `next_tool`; the prompt grew by so many tokens."""
        counts = self.tool(tool).next_tools
        known = next_tool if next_tool in counts or len(counts) < MAX_TOOLS else OTHER
        counts[known] = counts.get(known, 0) + 1
        if growth_tokens >= 0:
            self.growth_tokens.add(float(growth_tokens))

    def saw_end(self, tool: str, steps: int) -> None:
        """A session ended with its `steps`-th step."""
        self.tool(tool).ended += 1
        self.outcomes += 1
        _count(self.ended, steps)

    def took_end_back(self, tool: str, steps: int) -> None:
        """A session that had been counted as ended with its `steps`-th step, which had called `tool`, goes on."""
        follows, index = self.tool(tool), min(steps, MAX_STEPS - 1)
        if follows.ended and index < len(self.ended) and self.ended[index]:  # a model may have been loaded meanwhile
            follows.ended -= 1
            self.ended[index] -= 1


def _count(counts: list[int], steps: int) -> None:
    index = min(steps, MAX_STEPS - 1)
    counts.extend([0] * (index + 1 - len(counts)))
    counts[index] += 1


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Model)


def encode_model(model: Model) -> bytes:
    """For storage."""
    return _encoder.encode(model)


def decode_model(value: bytes) -> Model | None:
    """From storage; None for what another version wrote."""
    try:
        return _decoder.decode(value)
    except msgspec.MsgspecError:
        return None
