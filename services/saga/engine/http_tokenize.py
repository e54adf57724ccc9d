"""POST /tokenize and /v1/tokenize: a prompt in tokens, as SGLang answers. The gateway checks its own by it."""

from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from saga.engine.http_bodies import decode
from saga.engine.http_errors import BadRequestError
from saga.engine.profile import Profile
from saga.kv.chat_forms import readable
from saga.kv.tokens import decode_ids, encode_text, render_chat


class TokenizeBody(Struct):
    """A text or a chat."""

    model: str = ""
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    continue_final_message: bool = False


class TokenizeEndpoint:
    """The handler of one engine."""

    def __init__(self, profile: Profile) -> None:
        self._context_tokens = profile.context_tokens

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Route it."""
        router.add_post("/tokenize", self.tokenize)
        router.add_post("/v1/tokenize", self.tokenize)

    async def tokenize(self, request: web.Request) -> web.Response:
        """POST /tokenize."""
        tokens = tokens_of(decode(await request.read(), TokenizeBody))
        told = {"tokens": tokens, "count": len(tokens), "max_model_len": self._context_tokens}
        return web.Response(body=msgspec.json.encode(told), content_type="application/json")


def tokens_of(body: TokenizeBody) -> list[int]:
    """Ids of the prompt. Raises BadRequestError."""
    if (body.prompt is None) == (body.messages is None):
        raise BadRequestError("give exactly one of prompt and messages", param="prompt")
    text = body.prompt
    if text is None:
        try:
            text = render_chat(readable(body.messages or []), continue_final_message=body.continue_final_message)
        except ValueError as error:
            raise BadRequestError(str(error), param="messages") from None
    return decode_ids(encode_text(text))
