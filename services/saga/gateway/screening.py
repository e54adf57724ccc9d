"""The few events of a stream that must not reach the client as they are: aborts, errors, usage nobody asked for. Pure.

Only called for events in which `sse.needs_care` has found a marker.
"""

import msgspec

from saga.gateway import sse
from saga.gateway.answers import ANSWERS, Answer
from saga.gateway.api_errors import from_engine
from saga.gateway.openai import Asked
from saga.gateway.resume import merged_usage
from saga.gateway.transcript import Transcript


class _Coded(msgspec.Struct):
    code: int | str | None = None


def screened(events: bytes, asked: Asked, sent: Transcript, sent_tokens: int) -> tuple[bytes, str]:
    """(what of these events the client gets, why the engine is lost or nothing).

    `sent_tokens`: of text, by engines that died before. Notes the usage in `sent`. Raises ApiError for an error that
    another engine would give too.
    """
    kept: list[bytes] = []
    for event in sse.each(events):
        data = sse.payload(event)
        try:
            chunk = ANSWERS.decode(data) if data else Answer()
        except msgspec.DecodeError:
            kept.append(event)
            continue
        if chunk.finish_reason == "abort":
            return b"".join(kept), "it aborted the request"
        if bytes(chunk.error):
            error = from_engine(_status_in(chunk.error), data)
            if error.status >= 500:
                return b"".join(kept), error.message
            raise error
        if chunk.usage is None or chunk.choices:
            kept.append(event)
            continue
        if sent_tokens:
            data = merged_usage(data, asked.prompt_tokens, sent_tokens)
            chunk = ANSWERS.decode(data)
        sent.usage = chunk.usage
        if asked.wants_usage:
            kept.append(sse.event_of(data) if sent_tokens else event)
    return b"".join(kept), ""


def _status_in(error: msgspec.Raw) -> int:
    """HTTP status inside a stream's error event; 500 when it has none."""
    try:
        code = msgspec.json.decode(error, type=_Coded).code
    except msgspec.DecodeError:
        return 500
    return code if isinstance(code, int) and 400 <= code < 600 else 500
