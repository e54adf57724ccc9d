"""Server-sent events: everything once, then what changes. One loop makes the frames; this hands them out."""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from aiohttp import web

from saga.console.frames import BadEventIdError
from saga.console.http_answers import BadQuestionError

if TYPE_CHECKING:
    from saga.console.http_server import Desk

TAKES_WITHIN_S: Final = 20.0  # a page that takes nothing for so long is let go
RETRY_MS: Final = 1_000


class Events:
    """All pages that look."""

    def __init__(self, desk: "Desk", max_viewers: int) -> None:
        self._desk = desk
        self._max_viewers = max_viewers
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Ends all streams."""
        self._closing.set()

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One page, for as long as it looks."""
        if self._desk.viewers >= self._max_viewers:
            raise BadQuestionError(
                503,
                f"{self._max_viewers} pages look already (SAGA_CONSOLE_MAX_VIEWERS): close one, or start a console.",
            )
        last = self._last_seen(request)
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        )
        with self._desk.viewing():
            await response.prepare(request)
            closing = asyncio.ensure_future(self._closing.wait())
            telling = asyncio.ensure_future(self._tell(response, last))
            try:
                await asyncio.wait({telling, closing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (telling, closing):
                    task.cancel()
                with contextlib.suppress(asyncio.CancelledError, ConnectionError, TimeoutError):
                    await telling
        return response

    async def _tell(self, response: web.StreamResponse, last: int | None) -> None:
        """What the page has missed, or everything; then each frame. Who is too slow for the frames kept starts anew."""
        await response.write(b"retry: %d\n\n" % RETRY_MS)
        frames = self._desk.frames
        while True:
            missed = None if last is None else frames.after(last)
            events = [self._desk.whole_event()] if missed is None else missed
            last = frames.number
            async with asyncio.timeout(TAKES_WITHIN_S):
                for event in events:
                    await response.write(event)
            await self._desk.next_frame(last)

    def _last_seen(self, request: web.Request) -> int | None:
        """The number of the last event that the page has seen; None: it has seen none that counts."""
        event_id = request.headers.get("Last-Event-ID", "")
        if not event_id:
            return None
        try:
            return self._desk.frames.number_of(event_id)
        except BadEventIdError as error:
            raise BadQuestionError(400, str(error)) from None
