"""What of an engine's stream passes on to the client: whole events, unparsed but for the few that need care. Pure."""

from saga.contract.unreadable import UNREADABLE
from saga.gateway import sse
from saga.gateway.dialects.dialect import Asked, Dialect, Splice
from saga.gateway.transcript import Transcript


class Relay:
    """One attempt's stream."""

    __slots__ = (
        "_asked",
        "_dialect",
        "_ended",
        "_held",
        "_needs_care",
        "_sent",
        "_sent_tokens",
        "_splice",
        "done",
        "lost",
    )

    def __init__(
        self, dialect: Dialect, asked: Asked, sent: Transcript, *, splice: Splice | None, sent_tokens: int
    ) -> None:
        """`sent`: what the client has got so far, `sent_tokens` of it text by engines that died before."""
        self._dialect = dialect
        self._needs_care = dialect.needs_care
        self._ended = dialect.ended
        self._asked = asked
        self._sent = sent
        self._sent_tokens = sent_tokens
        self._splice = splice
        self._held = b""  # beginning of an event: half an event of a dying engine goes nowhere
        self.done = False  # the end mark has passed
        self.lost = ""  # why the engine is of no use any more

    def take(self, piece: bytes) -> bytes:
        """What the client gets now. Sets `done` and `lost`. Raises ApiError for an error any engine would give."""
        data = piece
        if self._held or not data.endswith(sse.END):
            data, self._held = sse.split_whole(self._held + data)
        if self._splice is not None:
            data = self._splice.apply(data)
        if self._needs_care(data):
            try:
                data, self.lost = self._dialect.screened(data, self._asked, self._sent, self._sent_tokens)
            except UNREADABLE as error:  # in an event that would have to be understood
                data, self.lost = b"", f"it sent what is no event of this API: {error}"
        if data:
            self.done = self._ended(data)
            self._sent.add(data)
        return data
