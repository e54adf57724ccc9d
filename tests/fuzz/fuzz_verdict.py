"""What an answer may look like, whatever was asked. `complaints` names all that is wrong with one; nothing is best."""

import re
from typing import Any, Final

import msgspec
from fuzz_engine import ENGINE_BROKE
from fuzz_requests import Sent
from fuzz_transport import Answer

_NAMES_A_LIMIT: Final = frozenset(
    {
        "body_too_large",
        "headers_too_large",
        "context_length_exceeded",
        "too_large",
        "request_too_large",
        "body_too_slow",
    }
)
_ENDS: Final = {
    "/v1/messages": (b"event: message_stop\n", b"event: error\n"),
    "/v1/responses": (b"event: response.completed\n", b"event: response.incomplete\n", b"event: error\n"),
}
_DIGIT: Final = re.compile(r"\d")
_SHOWN: Final = 300


def complaints(sent: Sent, answer: Answer) -> list[str]:
    """Of one answer that came whole."""
    if answer.malformed:
        return [f"the answer is no HTTP: {answer.malformed}"]
    if b"Traceback" in answer.body or b'File "/' in answer.body:
        return ["a traceback"]
    if answer.status >= 400:
        return _of_error(sent, answer)
    if answer.status not in {200, 201}:
        return [f"status {answer.status}"]
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        return _of_stream(sent, answer)
    return []


def _of_error(sent: Sent, answer: Answer) -> list[str]:
    if sent.method == "HEAD":
        return []
    wrong = []
    if not answer.headers.get("content-type", "").startswith("application/json"):
        wrong.append(f"{answer.status} is no JSON: {answer.body[:_SHOWN]!r}")
    try:
        told = msgspec.json.decode(answer.body, type=dict[str, Any])
        error = told["error"]
        message, kind = error["message"], error["type"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return [*wrong, f"{answer.status} has not the API's shape: {answer.body[:_SHOWN]!r}"]
    if not (isinstance(message, str) and message and isinstance(kind, str) and kind):
        wrong.append(f"{answer.status} says nothing: {answer.body[:_SHOWN]!r}")
    if sent.path == "/v1/messages" and not sent.broken and told.get("type") != "error":
        wrong.append(f"{answer.status} has not Anthropic's shape: {answer.body[:_SHOWN]!r}")
    code = error.get("code")
    if answer.status == 500 and ENGINE_BROKE not in str(message):
        wrong.append(f"500: {answer.body[:_SHOWN]!r}")
    if code in _NAMES_A_LIMIT and not _DIGIT.search(message):
        wrong.append(f"{code} names no limit: {message!r}")
    if len(answer.body) > 4_000:
        wrong.append(f"an error of {len(answer.body)} bytes: {answer.body[:_SHOWN]!r}")
    return wrong


def _of_stream(sent: Sent, answer: Answer) -> list[str]:
    events = [event for event in answer.body.split(b"\n\n") if event and not event.startswith(b":")]
    if not answer.body.endswith(b"\n\n"):
        return [f"a stream ends in the middle of an event: {answer.body[-_SHOWN:]!r}"]
    path = sent.path.partition("?")[0].partition("#")[0]
    if path in _ENDS:
        ended = any(event.startswith(_ENDS[path]) for event in events[-3:])  # an engine may add nonsense
    else:
        ended = events[-1:] == [b"data: [DONE]"]
    return [] if ended else [f"a stream has no end: {answer.body[-_SHOWN:]!r}"]
