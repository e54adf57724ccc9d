"""Errors in OpenAI's shape: status, message, type, param, code. Raised anywhere between parsing and relay."""

import math
import re
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from saga.contract.unreadable import UNREADABLE

T = TypeVar("T")
_PATH = re.compile(r"^(?P<what>.*?)(?: - at `\$(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(?P<field>[^`]+)`")
STEP = "X-Saga-Step"
_SHOWN_CHARS = 128  # of what a client sent, in a message
_TYPE_OF_STATUS = {401: "authentication_error", 404: "invalid_request_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that gets no answer, told as the API tells it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        kind: str = "",
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.kind = kind or _TYPE_OF_STATUS.get(status) or ("invalid_request_error" if status < 500 else "server_error")
        self.retry_after_s = retry_after_s
        self.step = ""  # that it ended, once there is one

    def fields(self) -> dict[str, str | None]:
        """As OpenAI's API names them."""
        return {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}

    def body(self) -> bytes:
        """The JSON answer, in OpenAI's shape."""
        return msgspec.json.encode({"error": self.fields()})

    def headers(self) -> dict[str, str]:
        """Headers that belong to it."""
        told = {STEP: self.step} if self.step else {}
        return told | ({"Retry-After": str(max(1, math.ceil(self.retry_after_s)))} if self.retry_after_s > 0 else {})


def bad_json(error: msgspec.DecodeError) -> ApiError:
    """The body is no JSON, or not of the right form."""
    text = str(error)
    if not isinstance(error, msgspec.ValidationError):
        return ApiError(400, f"The body is not valid JSON: {text}. Send one JSON object.", code="invalid_json")
    found = _PATH.match(text)
    what, path = (found["what"], found["path"] or "") if found else (text, "")
    param = path.lstrip(".")
    if len(param) > _SHOWN_CHARS:  # as deep as the client likes
        param = f"{param[:_SHOWN_CHARS]}..."
    missing = _MISSING.search(what)
    if missing:
        param = f"{param}.{missing['field']}" if param else missing["field"]
        return ApiError(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")
    where = f"'{param}'" if param else "the body"
    return ApiError(
        400, f"Invalid type for {where}: {what[0].lower()}{what[1:]}.", param=param or None, code="invalid_type"
    )


def guarded(read: Callable[[], T]) -> T:
    """What `read` returns. Raises ApiError for JSON that cannot be read."""
    try:
        return read()
    except msgspec.DecodeError as error:
        raise bad_json(error) from None
    except UnicodeDecodeError:
        raise ApiError(400, "The body is not valid UTF-8. Send JSON in UTF-8.", code="invalid_json") from None
    except RecursionError:
        told = "The body is nested deeper than the limit of about 1,000 levels. Send flatter JSON."
        raise ApiError(400, told, code="invalid_json") from None


def invalid_value(param: str, message: str) -> ApiError:
    """A field has the right type and a value we cannot serve."""
    return ApiError(400, message, param=param, code="invalid_value")


def unknown_model(model: str, known: Iterable[str]) -> ApiError:
    """No pool of that name."""
    names = ", ".join(sorted(known))
    return ApiError(
        404,
        f"The model '{model[:_SHOWN_CHARS]}' does not exist. Known models: {names}.",
        param="model",
        code="model_not_found",
    )


def no_workers() -> ApiError:
    """Nothing in this cell can run a request."""
    return ApiError(503, "No worker has joined this cell yet; try again.", code="no_workers", retry_after_s=2.0)


def too_long(param: str, prompt_tokens: int, max_tokens: int, context_tokens: int) -> ApiError:
    """The prompt, or prompt and completion, exceed the context."""
    asked = f"{prompt_tokens} in the {param}" + (f", {max_tokens} in the completion" if max_tokens else "")
    shorten = f"Reduce the length of the {param}" + (" or the completion" if max_tokens else "")
    return ApiError(
        400,
        f"This model's maximum context length is {context_tokens} tokens. However, you requested "
        f"{prompt_tokens + max_tokens} tokens ({asked}). {shorten}.",
        param=param,
        code="context_length_exceeded",
    )


def body_too_large(limit_bytes: int) -> ApiError:
    """One body over the limit."""
    return ApiError(413, f"The body exceeds the limit of {limit_bytes} bytes. Send less.", code="body_too_large")


def headers_too_large(size_bytes: int, limit_bytes: int) -> ApiError:
    """All headers together."""
    told = f"The headers have {size_bytes} bytes: the limit is {limit_bytes}. Send less."
    return ApiError(431, told, code="headers_too_large")


def body_too_slow(within_s: float) -> ApiError:
    """One body that does not come to its end."""
    told = f"The body did not arrive within the limit of {within_s:g} s. Send it faster, or less."
    return ApiError(408, told, code="body_too_slow")


def unreadable_body(why: str) -> ApiError:
    """Its framing is broken."""
    return ApiError(400, f"The body could not be read: {why}. Send it whole.", code="invalid_body")


def compressed_body() -> ApiError:
    """It would have to be unpacked before its size is known."""
    return ApiError(415, "The body is compressed. Send it plain, without Content-Encoding.", code="compressed_body")


def bodies_full(limit_bytes: int) -> ApiError:
    """All waiting bodies together over the budget."""
    told = f"Requests that wait here hold {limit_bytes} bytes already, which is the limit; try again."
    return ApiError(503, told, code="overloaded", retry_after_s=1.0)


def stopping() -> ApiError:
    """This gateway is going away."""
    return ApiError(503, "This gateway is stopping; send the request again.", code="stopping", retry_after_s=1.0)


def unauthorized(*, given: bool) -> ApiError:
    """No API key, or one that nobody has."""
    if given:
        return ApiError(401, "Incorrect API key provided.", code="invalid_api_key")
    return ApiError(
        401, "No API key given: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'.", code="missing_api_key"
    )


def kv_not_apart(path: str, setting: str) -> ApiError:
    """The tenant's KV must not be shared, and the engine would share it."""
    told = f"SGLang cannot keep this tenant's KV apart on {path}. Use /v1/chat/completions or /v1/responses"
    return ApiError(403, f"{told}, or let the operator set {setting}=true.", code="kv_not_apart")


def duplicate(key: str) -> ApiError:
    """A request with this idempotency key is still running."""
    return ApiError(
        409,
        f"A request with Idempotency-Key '{key[:64]}' is still running here; wait for it, or send another key.",
        code="request_in_progress",
        retry_after_s=1.0,
    )


_REJECTED = {
    "too_many_waiting": (429, "too_many_waiting"),
    "wait_bound": (429, "wait_bound"),
    "quota": (429, "quota_exceeded"),
    "too_many_workflows": (429, "too_many_workflows"),
    "unknown_model": (404, "model_not_found"),
    "too_large": (400, "request_too_large"),
    "stopping": (503, "stopping"),
    "engine_failed": (502, "engine_failed"),
}


def rejected(reason: str, detail: str, retry_after_s: float) -> ApiError:
    """Admission refused the step, or it was given up."""
    status, code = _REJECTED.get(reason, (503, reason))
    kind = "server_error" if status >= 500 else ""
    retry_after_s = max(1.0, retry_after_s) if status in (429, 502, 503) else 0.0
    return ApiError(status, detail or reason, code=code, kind=kind, retry_after_s=retry_after_s)


def not_resumable(why: str) -> ApiError:
    """The engine died under a stream that cannot be continued."""
    return ApiError(
        502,
        f"The engine failed during this answer, which cannot be continued ({why}). Send the request again.",
        code="engine_died",
        kind="retryable_error",
        retry_after_s=1.0,
    )


class _EngineError(msgspec.Struct):
    message: str = ""
    type: str = ""
    param: str | None = None
    code: str | int | None = None
    error: "_EngineError | str | None" = None


def from_engine(status: int, body: bytes) -> ApiError:
    """An engine's own refusal in OpenAI's shape. SGLang sends the fields bare or under `error`."""
    try:
        told = msgspec.json.decode(body, type=_EngineError)
    except UNREADABLE:
        told = _EngineError(message=body[:500].decode("utf-8", "replace"))
    if isinstance(told.error, str):
        told = _EngineError(message=told.error)
    elif told.error is not None:
        told = told.error
    code = told.code if isinstance(told.code, str) else None
    message = told.message or f"The engine answered {status}."
    return ApiError(status, message, param=told.param, code=code or "engine_error")


class _Coded(msgspec.Struct):
    code: int | str | None = None


def status_in(error: msgspec.Raw) -> int:
    """HTTP status inside a stream's error event; 500 when it has none."""
    try:
        code = msgspec.json.decode(error, type=_Coded).code
    except UNREADABLE:
        return 500
    return code if isinstance(code, int) and 400 <= code < 600 else 500
