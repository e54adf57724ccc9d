"""What of an engine's stream passes on to the client: whole events, unparsed but for the few that need care. Pure."""

from saga.gateway import resume, sse
from saga.gateway.openai import Asked
from saga.gateway.screening import screened
from saga.gateway.transcript import Transcript


class Relay:
    """One attempt's stream."""

    __slots__ = ("_asked", "_held", "_sent", "_sent_tokens", "_splice", "done", "lost")

    def __init__(self, asked: Asked, sent: Transcript, *, resumed: bool, sent_tokens: int) -> None:
        """`sent`: what the client has got so far, `sent_tokens` of it text by engines that died before."""
        self._asked = asked
        self._sent = sent
        self._sent_tokens = sent_tokens
        self._splice = resume.Splice(sent) if resumed and sent.id else None
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
        if sse.needs_care(data):
            data, self.lost = screened(data, self._asked, self._sent, self._sent_tokens)
        if data:
            self.done = data.endswith(sse.DONE)
            self._sent.add(data)
        return data
