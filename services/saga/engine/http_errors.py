"""Errors in OpenAI's shape: {"error": {"message", "type", "param", "code"}}."""

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from saga.runtime import log

_JSON = "application/json"


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


@web.middleware
async def openai_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Whatever goes wrong before an answer has begun leaves in OpenAI's shape."""
    try:
        return await handler(request)
    except BadRequestError as error:
        return error_response(400, str(error), param=error.param, code=error.code)
    except web.HTTPRequestEntityTooLarge as error:
        return error_response(413, f"{error.text}; send a shorter body", code="request_too_large")
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return error_response(405, f"{request.path} does not know {request.method}, only {allowed}")
    except web.HTTPNotFound:
        return error_response(404, f"no such endpoint: {request.method} {request.path}", code="not_found")
    except web.HTTPException:
        raise
    except ConnectionError:
        raise  # the client has gone; there is nobody to answer
    except Exception as error:  # noqa: BLE001 - a defect of ours: logged here, never shown as a traceback
        log.get_logger().exception("engine.defect", path=request.path)
        return error_response(500, f"internal error: {type(error).__name__}", kind="server_error")
