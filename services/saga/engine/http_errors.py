"""Errors in OpenAI's shape, {"error": {"message", "type", "param", "code"}}, or in Anthropic's under its paths."""

from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from saga.runtime import log

MESSAGES: Final = "/v1/messages"
_JSON: Final = "application/json"
_ANTHROPIC_TYPES: Final = {404: "not_found_error", 413: "request_too_large", 500: "api_error"}


class BadRequestError(Exception):
    """The request is wrong; `param` names the field, the message says what to change."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


def error_response(
    status: int, message: str, kind: str = "invalid_request_error", param: str | None = None, code: str | None = None
) -> web.Response:
    """An error as a response."""
    return web.Response(status=status, body=error_body(message, kind, param, code), content_type=_JSON)


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> bytes:
    """An error as JSON."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def anthropic_body(message: str, kind: str) -> bytes:
    """The same as Anthropic's clients expect it."""
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})


def stream_error(path: str, error: BadRequestError) -> bytes:
    """A request that was refused after its stream had begun, as the stream's last event."""
    if path.startswith(MESSAGES):
        return b"event: error\ndata: " + anthropic_body(str(error), "invalid_request_error") + b"\n\n"
    return b"data: " + error_body(str(error), "invalid_request_error", error.param) + b"\n\n"


@web.middleware
async def api_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong before an answer has begun leaves in the API's own shape."""
    try:
        return await handler(request)
    except BadRequestError as error:
        return _answer(request, 400, str(error), param=error.param, code=error.code)
    except web.HTTPRequestEntityTooLarge as error:
        return _answer(request, 413, f"{error.text}; send a shorter body", code="request_too_large")
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return _answer(request, 405, f"{request.path} does not know {request.method}, only {allowed}")
    except web.HTTPNotFound:
        return _answer(request, 404, f"no such endpoint: {request.method} {request.path}", code="not_found")
    except web.HTTPException:
        raise
    except ConnectionError:
        raise  # the client has gone; there is nobody to answer
    except Exception as error:  # noqa: BLE001 - a defect of ours: logged here, never shown as a traceback
        log.get_logger().exception("engine.defect", path=request.path)
        return _answer(request, 500, f"internal error: {type(error).__name__}", kind="server_error")


def _answer(
    request: web.Request,
    status: int,
    message: str,
    kind: str = "invalid_request_error",
    param: str | None = None,
    code: str | None = None,
) -> web.Response:
    if request.path.startswith(MESSAGES):
        body = anthropic_body(message, _ANTHROPIC_TYPES.get(status, "invalid_request_error"))
        return web.Response(status=status, body=body, content_type=_JSON)
    return error_response(status, message, kind, param, code)
