"""What goes into EngineCore and what comes out: events and effects, all plain data but for a request's `Output`.

Times are seconds of engine time on one clock: real time x speed in the service, virtual time in the simulator.
"""

from typing import Protocol

from msgspec import Struct

from saga.kernel.effects import Tick, WakeAt


class Output(Protocol):
    """What a request will say. The core only counts tokens; text is made lazily by whoever needs it."""

    def plan(self, produced_tokens: int) -> tuple[int, str]:
        """(tokens known to come, why it ends there or "" when it goes on). Tokens > produced or reason given."""
        ...

    def page_hashes(self, tokens: int) -> bytes:
        """Page hashes (8 bytes each) of the full pages in the first `tokens` tokens of prompt and output."""
        ...


class FixedOutput(Struct, frozen=True):
    """An output of known length whose page hashes were made beforehand: what the simulator uses."""

    output_tokens: int
    hashes: bytes
    reason: str = "length"

    def plan(self, produced_tokens: int) -> tuple[int, str]:
        """All of it, at once."""
        del produced_tokens
        return self.output_tokens, self.reason

    def page_hashes(self, tokens: int) -> bytes:
        """All of them: the core takes the pages it needs."""
        del tokens
        return self.hashes


class Arrive(Struct, frozen=True):
    """A request arrives. `prompt_tokens + max_new_tokens` must fit context and KV, else it is Rejected.

    With no new tokens at all it only has its prompt loaded or prefilled, ahead of one that will go on from it.
    """

    rid: str
    prompt_tokens: int
    max_new_tokens: int
    output: Output
    priority: int = 0
    session_id: str = ""


class Abort(Struct, frozen=True):
    """End all requests whose rid starts with `rid`, as SGLang does, or with `exact` only that one. "" ends all."""

    rid: str
    exact: bool = False


class OpenSession(Struct, frozen=True):
    """Begin a session tag anew, also one that was closed."""

    session_id: str


class CloseSession(Struct, frozen=True):
    """Give up a session tag: its KV is evictable like any other. Unknown ones are ignored."""

    session_id: str


class SetRetention(Struct, frozen=True):
    """How much keeping an open session's KV is worth: higher goes later, among equal counts of session references.

    0 unless said; forgotten when the session closes. Ignored for a session that is not open.
    """

    session_id: str
    value: float


class Flush(Struct, frozen=True):
    """Drop the whole cache; only while nothing runs or waits."""


Event = Arrive | Tick | Abort | OpenSession | CloseSession | SetRetention | Flush


class Progress(Struct, frozen=True):
    """A request has produced `output_tokens` tokens in all."""

    rid: str
    output_tokens: int


class Finished(Struct, frozen=True):
    """A request has ended: stop, length, tool_calls or abort."""

    rid: str
    reason: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    retractions: int
    arrived_s: float
    started_s: float
    first_token_s: float
    finished_s: float


class Rejected(Struct, frozen=True):
    """A request that can never run, or whose rid is in use; it was not taken in."""

    rid: str
    reason: str


class Stored(Struct, frozen=True):
    """Pages are cached now: `hashes` (8 bytes each) chained after `parent` (8 bytes, or b"" for the first page).

    They are the pages of request `rid` from page `first_page` on.
    """

    rid: str
    parent: bytes
    hashes: bytes
    first_page: int
    session_id: str


class Removed(Struct, frozen=True):
    """Pages (8 bytes each) were evicted."""

    hashes: bytes


class Cleared(Struct, frozen=True):
    """The whole cache was dropped."""


Effect = WakeAt | Progress | Finished | Rejected | Stored | Removed | Cleared
