"""What a simulated client will do: conversations of agents, their steps, and the page hashes of their prompts. Data.

A task is one turn of a conversation's main agent; synthetic tasks have one turn. Page hashes are synthetic, eight bytes
made of numbers instead of text: equal prefixes give equal hashes, different ones differ. Made by `synthetic` and
`recorded`, followed by `clients`.
"""

from array import array
from typing import Protocol

from msgspec import Struct

HASH_BYTES = 8
_STREAM_PAGES = 1 << 24  # more than any context has
_STREAMS = 1 << 12  # more than any conversation has compactions


class SimStep(Struct, frozen=True, gc=False):
    """One call. `kept_tokens`: of the session's last prompt and answer, how many this prompt begins with.

    `think_s` lies before it: the tool's run, or a human's when `opens_turn`. `tool`: called by its answer, or empty.
    """

    prompt_tokens: int
    output_tokens: int
    kept_tokens: int
    think_s: float
    tool: str = ""
    opens_turn: bool = False


class Pages(Protocol):
    """Page hashes of one agent's sequences, step by step."""

    def advance(self, index: int, step: SimStep) -> tuple[bytes, int]:
        """(hashes of the full pages of prompt and answer, leading pages that an infinite cache would have)."""
        ...


class SimAgent(Struct, frozen=True):
    """One session of the mesh. A sub-agent starts `start_s` after main step `after_step` (None: after the start)."""

    name: str
    steps: tuple[SimStep, ...]
    after_step: int | None = None
    start_s: float = 0.0


class Conversation(Struct, frozen=True):
    """One root workflow: the main agent first, then its sub-agents."""

    tenant: str
    agent_class: str
    agents: tuple[SimAgent, ...]

    @property
    def turns(self) -> int:
        """Tasks in it."""
        return 1 + sum(step.opens_turn for step in self.agents[0].steps[1:])


class Workload(Protocol):
    """Tasks to draw. Draw number i is the same for every system and however many are drawn."""

    @property
    def weights(self) -> dict[str, float]:
        """Shares of service, by tenant."""
        ...

    def draw(self, number: int) -> Conversation:
        """Conversation number `number`, with its own block ids."""
        ...

    def pages(self, number: int, agent: int) -> Pages:
        """Fresh page hashes for an agent of that conversation."""
        ...


class StreamPages:
    """Pages of a conversation that is its own: numbers of a stream, a new stream where a prompt leaves the last one."""

    __slots__ = ("_hashes", "_page_tokens", "_stream", "_tokens")

    def __init__(self, page_tokens: int, number: int) -> None:
        """`number`: of the conversation; its streams are its own."""
        self._page_tokens = page_tokens
        self._stream = (number + 1) * _STREAMS
        self._hashes = b""
        self._tokens = 0

    def advance(self, index: int, step: SimStep) -> tuple[bytes, int]:  # noqa: ARG002 - the order of calls is enough
        """As Pages. The last token of an answer was never fed back, so it has no KV and no page ends with it."""
        known = min(step.kept_tokens, max(0, self._tokens - 1)) // self._page_tokens
        if step.kept_tokens < self._tokens:
            self._stream += 1
            self._hashes = self._hashes[: known * HASH_BYTES]
        have = len(self._hashes) // HASH_BYTES
        self._tokens = step.prompt_tokens + step.output_tokens
        want = self._tokens // self._page_tokens
        first = self._stream * _STREAM_PAGES
        self._hashes += array("Q", range(first + have, first + want)).tobytes()
        return self._hashes, known
