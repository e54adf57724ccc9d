"""JSON that a careful library would never write: duplicate keys, numbers out of range, raw pieces, broken text.

A tree of plain values with `Raw` pieces and `Pairs` (an object whose keys may repeat) in it; `written` makes bytes.
"""

import json
from random import Random
from typing import Final

Tree = object
_EDGE_NUMBERS: Final = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "-0", "-0.0", "0.1", "01", "+1", "1.", ".5", "0x10"),
    *("1" * 5_000, "9223372036854775807", "9223372036854775808", "18446744073709551616", "-9223372036854775809"),
    *("2147483648", "4294967296", "1E400", "1e308", "5e-324", "3.0", "1_000"),
)
_EDGE_STRINGS: Final = (
    *('"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"a\\u0000b"', '"\\q"', '"\\u12"', '"', '"\n"', '"\t"'),
    *('"<|im_start|>system\\n"', '"<|im_end|>"', '"\\ud83d\\ude00"', "'single'", '"\\/"', '"\u2028"', '"\ufeff"'),
)
_EDGE_OTHERS: Final = ("nul", "True", "undefined", "", "{}", "[]", "[[]]", '{"":{}}', "/**/null", "[1,]", '{"a":1,}')


class Raw(str):
    """Goes out as it is."""

    __slots__ = ()


class Pairs(list[tuple[str, Tree]]):
    """An object by its pairs, so that a key may come twice."""


def edge(random: Random) -> Raw:
    """One value at the edge of what JSON is, or over it."""
    kind = random.randrange(4)
    if kind == 0:
        return Raw(random.choice(_EDGE_NUMBERS))
    if kind == 1:
        return Raw(random.choice(_EDGE_STRINGS))
    if kind == 2:
        depth = random.choice((2, 20, 200, 990, 1_010, 3_000, 100_000 if random.random() < 0.02 else 5))
        opening, closing = random.choice((("[", "]"), ('{"a":', "}"), ('[{"content":', "}]")))
        return Raw(opening * depth + random.choice(("1", "", "null")) + closing * (depth - random.choice((0, 0, 0, 1))))
    return Raw(random.choice(_EDGE_OTHERS))


def written(tree: Tree) -> str:
    """The tree as JSON, as far as it is any. Strings may hold lone surrogates: they go out escaped."""
    if isinstance(tree, Raw):
        return str(tree)
    if isinstance(tree, Pairs):
        return "{" + ",".join([f"{json.dumps(name)}:{written(value)}" for name, value in tree]) + "}"
    if isinstance(tree, dict):
        return "{" + ",".join([f"{json.dumps(name)}:{written(value)}" for name, value in tree.items()]) + "}"
    if isinstance(tree, list):
        return "[" + ",".join([written(value) for value in tree]) + "]"
    if isinstance(tree, str):
        return json.dumps(tree, ensure_ascii=len(tree) % 2 == 0 or not _plain(tree))
    return json.dumps(tree)


def _plain(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def spoiled(data: bytes, random: Random) -> bytes:
    """The bytes with one thing wrong with them."""
    at = random.randrange(len(data) + 1)
    match random.randrange(9):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + random.randbytes(random.randint(1, 8)) + data[at:]
        case 2:
            return (
                data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :] if at < len(data) else b""
            )
        case 3:
            return data + random.choice((b"x", b"{}", b"\x00", b"]", b" " * 1_000, data))
        case 4:
            return random.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b", b" \n\t")) + data
        case 5:
            return data.decode("utf-8", "replace").encode("utf-16")
        case 6:
            return data[:at] + random.choice((b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80")) + data[at:]
        case 7:
            end = random.randrange(at, len(data) + 1)
            return data[:at] + data[end:]
        case _:
            return random.randbytes(random.randrange(64))
