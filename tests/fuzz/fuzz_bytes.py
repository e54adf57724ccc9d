"""Bytes gone wrong: a valid input, then changed in its structure, in its bytes, or in both.

A mutation is a function of the random generator it is given. JSON and MessagePack are taken apart, changed somewhere
and put together again, so that what is broken lies deep inside and not at the first byte.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import fuzz_json
import msgspec

MAX_BYTES: Final = 1 << 20  # of one input
_NUMBERS: Final = (0, -1, 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.5, -0.0, 1e308, 5e-324)
_STRINGS: Final = ("", "\0", "\u2028", "a" * 300, "ä" * 70_000, "../x", "a/b", "*", ">", "NaN", "1", "\U0001f600")
_BROKEN_UTF8: Final = (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\x80")
_HUGE: Final = (  # MessagePack heads that promise 4 billion: of an array, a map, a string, bytes, an extension
    *(b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"),
    *(b"\xc9\xff\xff\xff\xff\x01", b"\xc1", b"\xc7\x0c\xff" + bytes(12), b"\xd6\xff\xff\xff\xff\xff"),
)
_DEPTHS: Final = (2, 20, 200, 990, 1_010, 3_000)

Mutation = Callable[[Random, bytes], bytes]


def message_pack(random: Random, seed: bytes) -> bytes:
    """MessagePack with up to three things wrong in its structure, or in its bytes."""
    if random.random() < 0.5:
        try:
            tree = msgspec.msgpack.decode(seed)
            for _ in range(random.randint(1, 3)):
                tree = _changed(random, tree, _other_value)
            return _spliced(random, msgspec.msgpack.encode(tree))
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError):
            pass  # what came of it is no MessagePack: bytes it is
    return raw(random, seed, _HUGE)


def json(random: Random, seed: bytes) -> bytes:
    """One JSON value with up to three things wrong in its structure, or in its bytes."""
    if random.random() < 0.5:
        tree = msgspec.json.decode(seed)
        for _ in range(random.randint(1, 3)):
            tree = _changed(random, tree, _other_json)
        return fuzz_json.written(tree).encode("utf-8", "surrogatepass")
    return raw(random, seed)


def json_lines(random: Random, seed: bytes) -> bytes:
    """Lines of JSON: most of them as they were, in any order, some twice or missing."""
    lines = seed.split(b"\n")
    at = random.randrange(len(lines))
    if lines[at]:
        lines[at] = json(random, lines[at])
    if random.random() < 0.2:
        random.shuffle(lines)
    if random.random() < 0.2:
        lines.insert(random.randrange(len(lines) + 1), random.choice(lines))
    return b"\n".join(lines)


def rows(random: Random, seed: bytes) -> bytes:
    """Lines of comma separated values with other values, quotes and ends of line."""
    lines = [line.split(b",") for line in seed.split(b"\n")]
    for _ in range(random.randint(1, 4)):
        fields = random.choice(lines)
        fields[random.randrange(len(fields))] = _field(random)
    joined = b"\n".join(b",".join(fields) for fields in lines)
    return raw(random, joined) if random.random() < 0.3 else joined


def raw(random: Random, seed: bytes, pieces: Sequence[bytes] = ()) -> bytes:
    """Bits flipped, bytes cut out, doubled, put in or overwritten."""
    data = bytearray(seed)
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        at = random.randrange(len(data) + 1)
        kind = random.randrange(7)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + random.choice((1, 4, 64))]
        elif kind == 3:
            data[at:at] = data[at : at + random.choice((1, 16, 256))]
        elif kind == 4:
            data[at:at] = random.choice((*_BROKEN_UTF8, *pieces))
        elif kind == 5:
            piece = random.choice((*_BROKEN_UTF8, *pieces, b"\xff" * 4, bytes(4)))
            data[at : at + len(piece)] = piece
        else:
            data[at : at + 1] = random.randbytes(random.choice((1, 4, 32)))
    if pieces and random.random() < 0.02:  # deep, where a value was
        at = random.randrange(len(data) + 1)
        data[at:at] = random.choice((b"\x91", b"\x81\xa1a")) * random.choice(_DEPTHS)
    return bytes(data[:MAX_BYTES])


def _changed(random: Random, tree: Any, other: Callable[[Random, Any], Any]) -> Any:
    """The same tree with one value somewhere in it another one; lists and maps may lose or repeat entries."""
    if isinstance(tree, dict) and tree and random.random() < 0.85:
        key = random.choice(list(tree))
        kind = random.random()
        changed = dict(tree)
        if kind < 0.1:
            del changed[key]
        elif kind < 0.15:
            changed[f"{key}x"] = changed.pop(key)
        else:
            changed[key] = _changed(random, tree[key], other)
        return changed
    if isinstance(tree, list) and tree and random.random() < 0.85:
        at = random.randrange(len(tree))
        kind = random.random()
        if kind < 0.1:
            return tree[:at] + tree[at + 1 :]
        if kind < 0.2:
            return tree[:at] + tree[at : at + 1] * random.choice((2, 3, 300)) + tree[at:]
        return [*tree[:at], _changed(random, tree[at], other), *tree[at + 1 :]]
    return other(random, tree)


def _other_value(random: Random, value: object) -> object:
    kind = random.randrange(12)
    if kind > 7 and value:  # of the same type, so that it gets past the first look
        if isinstance(value, str):
            return random.choice((*_STRINGS[:4], *_STRINGS[5:], value[::-1]))
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return random.choice(_NUMBERS[:10])
        if isinstance(value, float):
            return random.choice(_NUMBERS[10:])
        if isinstance(value, bytes):
            return value[:-1] if kind == 8 else value * 3
    if kind == 0:
        return random.choice(_NUMBERS)
    if kind == 1:
        return random.choice((float("nan"), float("inf"), float("-inf")))
    if kind == 2:
        return random.choice(_STRINGS[:4] if random.random() < 0.98 else _STRINGS)
    if kind == 3:
        return random.choice((None, True, [], {}, [[]], {"": None}, b"", b"\xff" * 9))
    if kind == 4:
        return [value]
    if kind == 5:
        return {"type": value} if isinstance(value, str) else str(value)[:64]
    if kind == 6 and isinstance(value, int | float):
        return -value
    return random.getrandbits(random.choice((8, 32, 63)))


def _other_json(random: Random, value: object) -> object:
    return fuzz_json.edge(random) if random.random() < 0.4 else _json_value(random, value)


def _json_value(random: Random, value: object) -> object:
    other = _other_value(random, value)
    return fuzz_json.Raw("NaN") if isinstance(other, bytes) or other != other else other  # noqa: PLR0124 - NaN


def _spliced(random: Random, data: bytes) -> bytes:
    """Now and then one string in it is no UTF-8."""
    if random.random() < 0.9 or not data:
        return data
    at = random.randrange(len(data))
    return data[:at] + random.choice(_BROKEN_UTF8) + data[at + 1 :]


def _field(random: Random) -> bytes:
    kind = random.randrange(5)
    if kind == 0:
        return str(random.choice(_NUMBERS)).encode()
    if kind == 1:
        return random.choice((b"nan", b"inf", b"-inf", b"1e400", b"0x1", b"1_0", b" 1", b"", b"1" * 5_000, b"+1"))
    if kind == 2:
        return random.choice((b'"', b'"a', b'a"b', b'"a,b"', b'""', b"a\rb", b"\0", b"\r"))
    if kind == 3:
        return random.choice(_BROKEN_UTF8)
    return b"x" * random.choice((1, 64, 131_073 if random.random() < 0.05 else 2))


def journal(random: Random, seed: bytes) -> bytes:
    """Lines of a mark and JSON, of which one went wrong."""
    lines = seed.split(b"\n")
    at = random.randrange(len(lines))
    if lines[at][:1] == b"+" and random.random() < 0.8:
        lines[at] = b"+" + json(random, lines[at][1:])
    else:
        lines[at] = raw(random, lines[at])
    return b"\n".join(lines)


def framed(random: Random, seed: bytes) -> bytes:
    """Frames behind their lengths: one of them went wrong, or their lengths did."""
    if random.random() < 0.3:
        return raw(random, seed, _HUGE)
    frames, at = [], 0
    while at < len(seed):
        size = int.from_bytes(seed[at : at + 4], "big")
        frames.append(seed[at + 4 : at + 4 + size])
        at += 4 + size
    which = random.randrange(len(frames))
    frames[which] = message_pack(random, frames[which])
    return b"".join(len(frame).to_bytes(4, "big") + frame for frame in frames)
