"""Refusals of the console's HTTP."""

import msgspec
from aiohttp import web


class BadQuestionError(Exception):
    """A request that cannot be answered. The text says why, and what can be asked."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


def refusal(error: BadQuestionError) -> web.Response:
    """As JSON."""
    body = msgspec.json.encode({"error": error.text})
    return web.Response(status=error.status, body=body, content_type="application/json")
