"""Whether what a session's tag pins is still alive, seen from where its next prompt leaves the last one. Pure.

A prompt that goes on where the last one ended leaves nothing behind. One that leaves it earlier (compaction, an edit, a
retry, a fresh start) leaves pages that no later prompt is likely to begin with, and the engine keeps them as long as
their tag is open. Then the step gets a fresh tag: when it ends, its own path is tagged anew, shared prefix included,
and the worker closes the old tag. `dispatch` asks at each grant.

For a session that goes on in one line a fresh tag is never wrong, whatever is taken for dead. What it can hurt is one
whose lines alternate under one session id: parallel calls, attempts that are tried in turn, helpers of a client. So a
line that is returned to, or left while a step of it runs, counts as alternating until it has gone on steadily.
"""

from collections.abc import Container, Iterator
from typing import Final

import msgspec

from saga.contract.ids import SessionTag, StepId
from saga.kernel.effects import Decision

HASH_BYTES: Final = 8
DEAD_SHARE: Final = 0.125  # dead pages that a tag may pin, to the living: fewer are not worth another tag
STEADY_STEPS: Final = 16  # after which what was left behind is not expected back
MAX_LINES: Final = 4  # of one session


class Line(msgspec.Struct, gc=False):
    """The prompts of one agent class under one session id, one after the other."""

    chain: bytes = b""  # page hashes of the last one; empty when unknown
    dead_pages: int = 0  # left behind since the session has its tag
    left: bytes = b""  # the chain left behind last, while it may come back
    let_go: bool = False  # a fresh tag was given since then: what only that chain had was let go
    steady_steps: int = 0  # since then
    alternates: bool = False
    step_id: StepId = StepId("")
    used: int = 0  # number of that step in the session

    @property
    def pages(self) -> int:
        return len(self.chain) // HASH_BYTES


class Tagged:
    """A session's tag, and the lines of prompts whose KV it pins. Changed by `follow` alone."""

    __slots__ = ("_lines", "_steps", "returned_pages", "tag")

    def __init__(self, tag: SessionTag) -> None:
        self.tag = tag
        self.returned_pages = 0  # of the last step's prompt: of a chain that was left, and let go
        self._lines: dict[str, Line] = {}
        self._steps = 0

    def follow(self, step_id: StepId, agent_class: str, chain: bytes | None, live: Container[StepId]) -> Decision[int]:
        """A step of the session starts. Pages that its tag pins for nothing, if enough for a fresh one; else 0.

        `chain`: page hashes of its prompt; None: not at hand, then nothing is decided. `live`: steps that are not over.
        """
        line = self._lines.get(agent_class)
        if line is not None and line.step_id == step_id:
            return Decision(0, "again")
        self.returned_pages = 0
        alone = all(other.step_id not in live or other.step_id == step_id for other in self._lines.values())
        self._steps += 1
        if line is None:
            line = self._lines[agent_class] = Line(steady_steps=STEADY_STEPS)
            reason = "first" if len(self._lines) == 1 else "other_agent"
        elif chain is None or not line.chain:
            reason = "unknown"
        else:
            reason = self._leave(line, chain, live)
        line.chain, line.step_id, line.used = chain or b"", step_id, self._steps
        line.dead_pages += sum(self._forgotten())
        if line.alternates or not alone or not line.dead_pages:
            return Decision(0, reason)
        living = sum(other.pages for other in self._lines.values())
        if line.dead_pages < DEAD_SHARE * living:
            return Decision(0, reason)
        dead = sum(other.dead_pages for other in self._lines.values())
        for other in self._lines.values():
            other.dead_pages = 0
            other.let_go = bool(other.left)
        return Decision(dead, reason)

    def _leave(self, line: Line, chain: bytes, live: Container[StepId]) -> str:
        """How the line goes on from its last prompt to this one; counts what it leaves behind."""
        shared = shared_pages(line.chain, chain)
        left_pages = line.pages - shared
        line.dead_pages += left_pages
        parallel = left_pages > 0 and line.step_id in live
        if not parallel and left_pages < DEAD_SHARE * (len(chain) // HASH_BYTES):
            # An answer rendered otherwise than it was said, a tool result cut short: the line goes on all the same.
            line.steady_steps += 1
            if line.steady_steps == STEADY_STEPS:
                line.left, line.alternates = b"", False
            return "tail" if left_pages else "extended"
        back_pages = shared_pages(line.left, chain)
        returned = back_pages > shared
        if returned and line.let_go:
            self.returned_pages = back_pages
        line.left, line.steady_steps, line.let_go = line.chain, 0, False
        if parallel or returned:
            line.alternates = True
            return "parallel" if parallel else "returned"
        if not shared:
            return "restarted"
        return "compacted" if len(chain) < len(line.chain) else "branched"

    def _forgotten(self) -> Iterator[int]:
        """Pages of lines that went silent; a session has few."""
        while len(self._lines) > 1:
            oldest = min(self._lines, key=lambda name: self._lines[name].used)
            line = self._lines[oldest]
            if len(self._lines) <= MAX_LINES and self._steps - line.used < STEADY_STEPS:
                return
            del self._lines[oldest]
            yield line.pages + line.dead_pages


def shared_pages(first: bytes, second: bytes) -> int:
    """Pages that both chains begin with. Hashes are chained, so it is enough to look at the last one of each prefix."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length // HASH_BYTES
    same, differs = 0, length // HASH_BYTES  # prefixes of so many pages agree, and do not
    while differs - same > 1:
        middle = (same + differs) // 2
        at = slice((middle - 1) * HASH_BYTES, middle * HASH_BYTES)
        if first[at] == second[at]:
            same = middle
        else:
            differs = middle
    return same
