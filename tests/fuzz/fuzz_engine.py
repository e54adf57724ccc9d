"""An engine in memory that speaks all APIs, now and then badly: it dies, refuses, aborts, or talks nonsense.

How it behaves follows from the body alone (its request id left out), and from the second attempt on it behaves well:
so a request of a seed goes the same way each time, and none is tried for ever.
"""

import re
import zlib
from collections.abc import Callable
from random import Random
from typing import Any, Final

import msgspec

Reply = Callable[[bytes], None]
_RID: Final = re.compile(rb'"[0-9a-f]{32}-(\d\d)"')
_GENERATED: Final = re.compile(rb'"session_id":"saga-[^"]*"')
ENGINE_BROKE: Final = "the engine's own trouble"
_REFUSALS: Final = (
    (400, b'{"object":"error","message":"bad thing","type":"BadRequestError","param":"x","code":400}'),
    (400, b"not json"),
    (422, b'{"detail":[{"loc":["body"]}]}'),
    (429, b'{"error":{"message":"later","type":"rate_limit_error","code":null}}'),
    (404, b'{"error":"nothing here"}'),
    (500, b'{"error":{"message":"%b"}}' % ENGINE_BROKE.encode()),
    (500, b"[]" + ENGINE_BROKE.encode()),
    (503, b"overloaded"),
)
_NONSENSE: Final = (
    b'{"choices":"none"}',
    b'{"choices":[{"delta":7}]}',
    b"{",
    b"[]",
    b"null",
    b'"\xff"',
    b'{"id":5,"usage":{"prompt_tokens":"many"}}',
    b'{"error":"odd"}',
    b'{"error":{"message":"%b","code":500}}' % ENGINE_BROKE.encode(),
    b'{"error":{"message":"no","code":400}}',
    b'{"type":"error","error":{"type":"overloaded_error","message":"m"}}',
)


class FuzzEngine:
    """Answers over `fuzz_transport.EngineSide`."""

    def __init__(self) -> None:
        self.asked = 0
        self.aborted = 0
        self.problems: list[str] = []  # what the gateway must never send

    def serve(self, path: str, body: bytes, reply: Reply, hang_up: Callable[[], None]) -> None:
        """One request."""
        try:
            fields = msgspec.json.decode(body, type=dict[str, Any])
        except msgspec.DecodeError as error:
            fields = {}
            if b"1e999" not in body and b"1E400" not in body and b"e999" not in body and len(body) < 5_000:
                self.problems.append(f"{path}: the engine got {body[:200]!r}: {error}")
        except UnicodeDecodeError as error:
            fields = {}
            self.problems.append(f"{path}: the engine got {body[:200]!r}: {error}")
        except RecursionError:
            fields = {}
        if path == "/abort_request":
            self.aborted += 1
            reply(_answer(200, b""))
            return
        self.asked += 1
        attempt = _RID.search(body)
        random = Random(zlib.crc32(_GENERATED.sub(b"", _RID.sub(b"", body))))
        odd = random.random() < 0.15 and (attempt is None or attempt[1] == b"00")
        if path.endswith("/count_tokens"):
            reply(_answer(*random.choice(_REFUSALS)) if odd else _answer(200, b'{"input_tokens":7}'))
            return
        rid = attempt[0].decode().strip('"') if attempt else "rid"
        events = _events(path, rid, fields, random)
        streams = fields.get("stream") is True
        if not odd:
            pieces = _streamed(events) if streams else [_answer(200, _whole(path, rid))]
            for piece in _cut(pieces, random):
                reply(piece)
            return
        self._oddly(events, streams, random, reply, hang_up)

    @staticmethod
    def _oddly(
        events: list[bytes],
        streams: object,
        random: Random,
        reply: Reply,
        hang_up: Callable[[], None],
    ) -> None:
        kind = random.randrange(6)
        if kind == 0:
            reply(_answer(*random.choice(_REFUSALS)))
        elif kind == 1 or not streams:
            reply(
                random.choice(
                    (b"", b"HTTP/1.1 200 OK\r\n", b"nonsense\r\n\r\n", _answer(200, random.choice(_NONSENSE)))
                )
            )
            hang_up()
        else:
            at = random.randrange(len(events) + 1)
            if kind == 2:  # dies in the middle, perhaps of an event
                pieces = _streamed([*events[:at], b'data: {"half'])[:-1]
            elif kind == 3:
                pieces = _streamed([*events[:at], b"data: " + random.choice(_NONSENSE) + b"\n\n", *events[at:]])
            elif kind == 4:
                gone = b'{"id":"r","choices":[{"index":0,"delta":{},"finish_reason":"abort"}]}'
                pieces = _streamed([*events[:at], b"data: " + gone + b"\n\n", b"data: [DONE]\n\n"])
            else:
                named = random.choice((b"error", b"response.failed", b"ping", b"message_stop", b"response.completed"))
                pieces = _streamed(
                    [*events[:at], b"event: " + named + b"\ndata: " + random.choice(_NONSENSE) + b"\n\n"]
                )
            for piece in _cut(pieces, random):
                reply(piece)
            hang_up()


def _answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


def _streamed(events: list[bytes]) -> list[bytes]:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head, *[b"%x\r\n%b\r\n" % (len(event), event) for event in events if event], b"0\r\n\r\n"]


def _cut(pieces: list[bytes], random: Random) -> list[bytes]:
    """Sometimes as they are, sometimes all together, sometimes cut anywhere."""
    if random.random() < 0.6:
        return pieces
    data = b"".join(pieces)
    at = sorted(random.sample(range(1, len(data)), min(len(data) - 1, random.randint(0, 6))))
    return [data[start:end] for start, end in zip([0, *at], [*at, len(data)], strict=True)]


def _event(fields: dict[str, Any], name: str = "") -> bytes:
    data = b"data: " + msgspec.json.encode(fields) + b"\n\n"
    return f"event: {name}\n".encode() + data if name else data


def _events(path: str, rid: str, asked: dict[str, Any], random: Random) -> list[bytes]:
    words = [random.choice(("a", "data: x\n\n", '"error"', "é", "[DONE]", " ")) for _ in range(random.randint(0, 4))]
    if path == "/v1/messages":
        return _anthropic(rid, words, random)
    if path == "/v1/responses":
        return _responses(rid, words)
    base = {"id": rid, "object": "chunk", "created": 1, "model": "tiny"}
    chat = "chat" in path

    def choice(text: str, reason: str | None = None, **more: Any) -> bytes:
        said: dict[str, Any] = {"delta": {"content": text, **more}} if chat else {"text": text}
        return _event(base | {"choices": [{"index": 0, **said, "finish_reason": reason}]})

    events = [choice("", role="assistant")] if chat else []
    if chat and random.random() < 0.2:
        events.append(choice("", tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{"}}]))
    events += [choice(word) for word in words]
    events.append(choice("", "stop"))
    options = asked.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        events.append(_event(base | {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": len(words)}}))
    return [*events, b"data: [DONE]\n\n"]


def _anthropic(rid: str, words: list[str], random: Random) -> list[bytes]:
    kind = random.choice(("text", "thinking", "tool_use"))
    start = {"id": rid, "type": "message", "role": "assistant", "usage": {"input_tokens": 3}}
    events = [
        {"type": "message_start", "message": start},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": kind, "id": "t", "name": "f", "text": ""},
        },
        *[{"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in words],
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": len(words)}},
        {"type": "message_stop"},
    ]
    return [_event(event, str(event["type"])) for event in events]


def _responses(rid: str, words: list[str]) -> list[bytes]:
    response = {"id": rid, "object": "response", "status": "in_progress", "output": []}
    whole = response | {"status": "completed", "usage": {"input_tokens": 3, "output_tokens": len(words)}}
    events = [
        {"type": "response.created", "response": response},
        {"type": "response.in_progress", "response": response},
        {"type": "response.output_item.added", "item": {"type": "message", "content": []}},
        *[{"type": "response.output_text.delta", "delta": word} for word in words],
        {"type": "response.completed", "response": whole},
    ]
    return [_event(event, str(event["type"])) for event in events]


def _whole(path: str, rid: str) -> bytes:
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "input_tokens": 3, "output_tokens": 1}
    said: dict[str, Any] = {"id": rid, "created": 1, "model": "tiny", "usage": usage}
    if path == "/v1/messages":
        said |= {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "a"}]}
        said |= {"stop_reason": "end_turn"}
    elif path == "/v1/responses":
        said |= {
            "status": "completed",
            "output": [{"type": "message", "content": [{"type": "output_text", "text": "a"}]}],
        }
    elif "chat" in path:
        said |= {"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]}
    else:
        said |= {"choices": [{"index": 0, "text": "a", "finish_reason": "stop"}]}
    return msgspec.json.encode(said)
