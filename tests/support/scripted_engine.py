"""An engine that answers any path with bytes written down before, and may break off after them."""

from aiohttp import web


class ScriptedEngine:
    """Each request takes the next of `answers`; the last stays. A tuple (status, body) is no stream."""

    def __init__(self) -> None:
        self.answers: list[bytes | tuple[int, bytes]] = []
        self.breaks = 0  # connections still to be broken after their answer
        self.requests: list[tuple[str, bytes]] = []
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listens on a free port."""
        app = web.Application(client_max_size=2**26)
        app.router.add_post("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Ends."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, await request.read()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, tuple):
            return web.Response(status=answer[0], body=answer[1], content_type="application/json")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(answer)
        if self.breaks:
            self.breaks -= 1
            assert request.transport is not None
            request.transport.close()
        return response
