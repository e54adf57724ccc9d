"""One request of a seed and a number: a shape, broken in none or several places, its headers, its way over the wire.

The same (seed, number) is the same request, whatever came before it, so that a finding can be asked for again.
"""

import random as random_module
from random import Random
from typing import Final

import fuzz_shapes
from fuzz_json import Pairs, Raw, Tree, edge, spoiled, written
from msgspec import Struct

_KNOWN_FIELDS: Final = (
    *("stream", "max_tokens", "messages", "model", "input", "prompt", "tools", "system", "n", "metadata", "nvext"),
    *("session_id", "prompt_cache_key", "program_id", "conversation", "litellm_session_id", "previous_response_id"),
    *("background", "stream_options", "response_format", "min_tokens", "rid", "priority", "cache_salt", "input_ids"),
    *("content", "role", "text", "type", "tool_calls", "name", "summary", "output", "source", "instructions"),
)
_ID_HEADERS: Final = (
    *("X-Saga-Workflow", "X-Saga-Session", "X-Saga-Parent", "X-Saga-Node", "X-Saga-Final", "X-Saga-Deadline-S"),
    *("X-Dynamo-Session-ID", "X-Dynamo-Parent-Session-ID", "X-Dynamo-Session-Final", "X-Claude-Code-Session-Id"),
    *("X-Claude-Code-Agent-Id", "X-Claude-Code-Parent-Agent-Id", "session-id", "thread-id", "x-codex-turn-metadata"),
    *("x-codex-parent-thread-id", "x-opencode-session", "x-parent-session-id", "Helicone-Session-Id", "baggage"),
    *("Helicone-Session-Path", "x-grok-conv-id", "x-litellm-session-id", "X-SMG-Routing-Key", "traceparent"),
    *("Idempotency-Key", "X-Saga-Identity", "X-Saga-Explain", "Authorization", "x-api-key", "x-session-affinity"),
)
_ID_VALUES: Final = (
    *(b"s1", b"s2", b"s3", b"", b" ", b"0", b"null", b"/", b"a/b/c", b"%00%ff", b"x" * 128, b"x" * 129, b"x" * 5_000),
    *(
        b"\xff\xfe",
        "ü狐".encode(),
        b"a\tb",
        b"true",
        b"false",
        b"maybe",
        b"nan",
        b"inf",
        b"1e400",
        b"-1",
        b"0x1",
        b"60",
    ),
    *(b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"00-zz", b"gen_ai.conversation.id=%F0%9F;p=1,=,", b"k"),
    *(
        b'{"session_id":"s","thread_id":1}',
        b'{"a":' * 2_000,
        b"[" * 3_000,
        b"Bearer x",
        b"Basic",
        b"Bearer",
        b"Bearer  ",
    ),
)
_ODD_HEADERS: Final = (
    *((b"Content-Encoding", b"gzip"), (b"Content-Type", b"text/plain; charset=utf-16"), (b"Expect", b"100-continue")),
    *((b"Expect", b"tea"), (b"Upgrade", b"websocket"), (b"Upgrade", b"h2c"), (b"TE", b"trailers"), (b"Host", b"")),
    *((b"Content-Length", b"-1"), (b"Content-Length", b"5"), (b"Content-Length", b"99999999999999"), (b"Range", b"x")),
    *((b"Transfer-Encoding", b"gzip"), (b"Transfer-Encoding", b"chunked"), (b"Connection", b"close, upgrade")),
    *(
        (b"X\x00", b"1"),
        (b"X-Y", b"\x00"),
        (b" X", b"1"),
        (b"X:", b":"),
        (b"Cookie", b"a=\x80"),
        (b"Accept", b"text/html"),
    ),
)
_METHODS: Final = (
    "GET",
    "PUT",
    "HEAD",
    "OPTIONS",
    "DELETE",
    "PATCH",
    "CONNECT",
    "TRACE",
    "post",
    "",
    "P OST",
    "X" * 300,
)
_PATHS: Final = (
    *("/v1/models", "/v1/models", "/v1/models/tiny", "/v1/saga/workflows/wf-1", "/v1/saga/workflows/", "/healthz", "/"),
    *("/v1/saga/workflows/" + "x" * 300, "/v1/saga/workflows/%ff%00", "/v1/chat/completions/", "//v1/completions", "*"),
    *(
        "/v1/chat/completions?stream=true",
        "http://other/v1/models",
        "/v1/" + "x" * 9_000,
        "/%",
        "/\xe4",
        "/v1/messages#f",
    ),
)
_BIG_LISTS: Final = (7_999, 8_001, 10_000)


class Sent(Struct, frozen=True):
    """What goes over a connection, and how."""

    number: int
    method: str
    path: str
    head: bytes
    body: bytes  # as framed
    pieces: tuple[int, ...] = ()  # where it is cut into reads
    leaves_after: int = -1  # bytes of the request after which the client is gone; -1: stays
    leaves_within: int = -1  # bytes of the answer after which the client is gone; -1: stays
    slow: bool = False  # takes nothing of the answer for a while
    broken: bool = False  # perhaps no HTTP any more


def request(seed: int, number: int) -> Sent:
    """Request `number` of a seed."""
    random = random_module.Random(seed * 1_000_003 + number)
    path = random.choice(tuple(fuzz_shapes.SHAPES))
    tree: Tree = fuzz_shapes.SHAPES[path](random)
    for _ in range(random.choice((0, 0, 0, 1, 1, 2, 4))):
        tree = mutated(tree, random)
    data = written(tree).encode("utf-8", "surrogatepass")
    if random.random() < 0.12:
        data = spoiled(data, random)
    method = "POST"
    if random.random() < 0.04:
        path, method, data = random.choice(_PATHS), random.choice(("GET", "POST")), random.choice((b"", data))
    if random.random() < 0.02:
        method = random.choice(_METHODS)
    return _on_the_wire(number, method, path, data, random)


def mutated(tree: Tree, random: Random) -> Tree:
    """The tree with one value replaced, lost, doubled, renamed, or one more."""
    if not isinstance(tree, dict) or not tree:
        return edge(random)
    if random.random() < 0.004:
        return _many_messages(dict(tree), random)
    if random.random() < 0.5:  # somewhere below
        inner = [name for name, value in tree.items() if isinstance(value, dict | list) and value]
        if inner:
            name = random.choice(inner)
            return {**tree, name: _below(tree[name], random)}
    name = random.choice(tuple(tree))
    match random.randrange(6):
        case 0:
            return {key: value for key, value in tree.items() if key != name}
        case 1:
            return Pairs([*tree.items(), (name, random.choice((edge(random), tree[name], None)))])
        case 2:
            return {**tree, random.choice(_KNOWN_FIELDS): _value(random)}
        case 3:
            other = random.choice((name.upper(), f"{name} ", "", "\u0000", "x" * 3_000))
            return {other if key == name else key: value for key, value in tree.items()}
        case _:
            return {**tree, name: _value(random)}


def _below(value: object, random: Random) -> Tree:
    if isinstance(value, list):
        if random.random() < 0.2:
            return random.choice((value + value, value[::-1], [*value, edge(random)], [value]))
        at = random.randrange(len(value))
        return [*value[:at], mutated(value[at], random), *value[at + 1 :]]
    return mutated(value, random)


def _value(random: Random) -> Tree:
    """Of any type, at the edge or just of the wrong kind."""
    match random.randrange(8):
        case 0:
            return random.choice((None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64, 1.5, -0.5, 10**300))
        case 1:
            return random.choice(("", "x", "stop", "\u0000", "s1", "x" * 129, "x" * 70_000, "\ud800", " ", "null"))
        case 2:
            return random.choice(([], {}, [[]], [{}], [None], {"": None}, ["a", 1, None], [[["a"]]], {"type": "text"}))
        case 3:
            return [fuzz_shapes.chat_message(random) for _ in range(random.randrange(3))]
        case 4:
            return {"session_id": random.choice(("s1", 5, None, "x" * 200)), "user_id": f"u_session_{'a' * 36}"}
        case 5:
            return {"agent_context": {"session_id": "s1", "parent_session_id": random.choice(("s2", [], 7))}}
        case _:
            return edge(random)


def _many_messages(tree: dict[str, Tree], random: Random) -> Tree:
    count = random.choice(_BIG_LISTS)
    one = random.choice(('{"role":"user","content":"x"}', '{"type":"message","role":"user","content":"x"}', "{}", "1"))
    name = "input" if "input" in tree else "prompt" if "prompt" in tree else "nodes" if "nodes" in tree else "messages"
    return {**tree, name: Raw("[" + ",".join([one] * count) + "]")}


def _headers(random: Random) -> list[tuple[bytes, bytes]]:
    count = random.choice((0, 0, 1, 1, 2, 3))
    headers = [(random.choice(_ID_HEADERS).encode(), random.choice(_ID_VALUES)) for _ in range(count)]
    chance = random.random()
    if chance < 0.04:
        headers.append(random.choice(_ODD_HEADERS))
    elif chance < 0.05:  # a bomb: many, large, or too large a one
        count, size = random.choice(((50, 10), (140, 10), (40, 1_000), (6, 7_000), (1, 9_000), (1_000, 30)))
        headers += [(b"X-Bomb-%d" % number, b"b" * size) for number in range(count)]
    return headers


def _on_the_wire(number: int, method: str, path: str, data: bytes, random: Random) -> Sent:
    headers = _headers(random)
    broken = any(name in (b"Content-Length", b"Transfer-Encoding", b"Upgrade") for name, _ in headers)
    length = len(data)
    if random.random() < 0.1:  # chunked
        cut = random.randrange(length + 1)
        data = (
            b"".join([b"%x\r\n%b\r\n" % (len(part), part) for part in (data[:cut], data[cut:]) if part]) + b"0\r\n\r\n"
        )
        if random.random() < 0.2:
            data, broken = spoiled(data, random), True
        headers.append((b"Transfer-Encoding", b"chunked"))
    elif random.random() < 0.98:
        headers.append((b"Content-Length", b"%d" % length))
    else:
        headers.append((b"Content-Length", b"%d" % max(0, length + random.choice((-3, 7)))))
        broken = True
    version = "HTTP/1.1" if random.random() < 0.98 else random.choice(("HTTP/1.0", "HTTP/2.0", "HTTP/9", ""))
    line = f"{method} {path} {version}\r\nHost: gateway\r\n".encode("utf-8", "replace")
    head = line + b"".join([name + b": " + value + b"\r\n" for name, value in headers]) + b"\r\n"
    if random.random() < 0.005:
        head, broken = spoiled(head, random), True
    total = len(head) + len(data)
    pieces = tuple(sorted(random.sample(range(1, total), min(total - 1, random.randint(1, 5))))) if total > 1 else ()
    return Sent(
        number=number,
        method=method,
        path=path,
        head=head,
        body=data,
        pieces=pieces if random.random() < 0.2 else (),
        leaves_after=random.randrange(total) if total and random.random() < 0.03 else -1,
        leaves_within=random.choice((0, 1, 200, 500, 900)) if random.random() < 0.05 else -1,
        slow=random.random() < 0.02,
        broken=broken or version != "HTTP/1.1" or not method.isupper() or not method.isalpha(),
    )
