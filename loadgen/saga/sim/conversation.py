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
_STREAMS = 1 << 12  # more than any agent has compactions
_SHARED = 1 << 63  # first page of the prefixes that conversations share; no conversation's own stream gets there
AGENTS = 1 << 6  # more than any conversation has


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


class WorkerLoss(Struct, frozen=True):
    """Worker number `worker` is gone for `for_s` seconds, from when a share of the run's conversations has begun."""

    after_share: float
    worker: int
    for_s: float


class Workload(Protocol):
    """Tasks to draw. Draw number i is the same for every system and however many are drawn."""

    @property
    def losses(self) -> tuple[WorkerLoss, ...]:
        """Workers that fail while it runs."""
        ...

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


class SharedPrefix:
    """Tokens that the prompts of several conversations begin with, and how much of them some prompt had."""

    __slots__ = ("number", "seen_pages", "tokens")

    def __init__(self, number: int, tokens: int) -> None:
        self.number = number
        self.tokens = tokens
        self.seen_pages = 0


class StreamPages:
    """Pages of a conversation that is its own: numbers of a stream, a new stream where a prompt leaves the last one.

    Its prompts may all begin with a prefix that others have too.
    """

    __slots__ = ("_hashes", "_page_tokens", "_prefix", "_stream", "_tokens")

    def __init__(self, page_tokens: int, number: int, prefix: SharedPrefix | None = None) -> None:
        """`number`: of the agent; its streams are its own."""
        self._page_tokens = page_tokens
        self._stream = (number + 1) * _STREAMS
        self._hashes = b""
        self._tokens = 0
        self._prefix = prefix

    def advance(self, index: int, step: SimStep) -> tuple[bytes, int]:  # noqa: ARG002 - the order of calls is enough
        """As Pages. The last token of an answer was never fed back, so it has no KV and no page ends with it."""
        known = min(step.kept_tokens, max(0, self._tokens - 1)) // self._page_tokens
        if not self._tokens and self._prefix is not None:
            known = self._share(self._prefix, step)
        elif step.kept_tokens < self._tokens:
            self._stream += 1
            self._hashes = self._hashes[: known * HASH_BYTES]
        have = len(self._hashes) // HASH_BYTES
        self._tokens = step.prompt_tokens + step.output_tokens
        want = self._tokens // self._page_tokens
        first = self._stream * _STREAM_PAGES
        self._hashes += array("Q", range(first + have, first + want)).tobytes()
        return self._hashes, known

    def _share(self, prefix: SharedPrefix, step: SimStep) -> int:
        """Begin the first prompt with the prefix; how many of its pages some prompt had."""
        pages = min(prefix.tokens, step.prompt_tokens) // self._page_tokens
        first = _SHARED + prefix.number * _STREAM_PAGES
        self._hashes = array("Q", range(first, first + pages)).tobytes()
        known = min(pages, prefix.seen_pages)
        prefix.seen_pages = max(pages, prefix.seen_pages)
        return known
