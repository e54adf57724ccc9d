"""The page's files, read once at the start: HTML, CSS and ES modules as they are, without a build step."""

import hashlib
from importlib import resources
from typing import Final

from aiohttp import web

from saga.console.http_answers import BadQuestionError

TYPES: Final = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Page:
    """The files under `page/`."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[bytes, str, str]] = {}  # name to content, type, tag
        for file in resources.files("saga.console").joinpath("page").iterdir():
            kind = TYPES.get("." + file.name.rpartition(".")[2])
            if kind is not None:
                content = file.read_bytes()
                self._files[file.name] = (content, kind, f'"{hashlib.sha256(content).hexdigest()[:16]}"')

    async def index(self, request: web.Request) -> web.Response:
        """The page itself."""
        return self._answer(request, "index.html")

    async def file(self, request: web.Request) -> web.Response:
        """One of its files."""
        return self._answer(request, request.match_info["name"])

    def _answer(self, request: web.Request, name: str) -> web.Response:
        if name not in self._files:
            raise BadQuestionError(404, f"The page has no {name[:80]!r}.")
        content, kind, tag = self._files[name]
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        return web.Response(body=content, content_type=kind, charset="utf-8", headers={"ETag": tag})
