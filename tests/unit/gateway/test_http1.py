"""Answers cut anywhere read alike; malformed ones raise."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.gateway.http1 import CHUNKED, UNTIL_CLOSE, Body, Head, parse_head

pieces_of = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    points = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in pairwise(points)]


@given(pieces_of, st.lists(st.integers(0, 10_000), max_size=8), st.booleans(), st.booleans())
def test_chunked_bodies(pieces, cuts, upper, trailers):
    wire = b"".join((b"%X;x=1\r\n%b\r\n" if upper else b"%x\r\n%b\r\n") % (len(one), one) for one in pieces)
    wire += b"0\r\nX-Later: 1\r\n\r\n" if trailers else b"0\r\n\r\n"
    body = Body(CHUNKED)
    parts = cut(wire, cuts)
    found = []
    for number, part in enumerate(parts):
        assert not body.done
        found.append(body.feed(part))
        assert body.done == (number == len(parts) - 1)
    assert b"".join(found) == b"".join(pieces)


@given(st.binary(min_size=1, max_size=60), st.lists(st.integers(0, 100), max_size=5))
def test_bodies_of_known_length(data, cuts):
    body = Body(len(data))
    assert b"".join(body.feed(part) for part in cut(data, cuts)) == data
    assert body.done
    with pytest.raises(ValueError, match="content-length"):
        body.feed(b"x")


def test_an_empty_body_is_done_at_once():
    assert Body(0).done
    assert not Body(UNTIL_CLOSE).done
    assert Body(UNTIL_CLOSE).ends_with_connection


@pytest.mark.parametrize("wire", [b"xyz\r\n", b"-5\r\n", b"\r\n", b"0\r\n\r\nmore", b"1" * 2000])
def test_malformed_chunks(wire):
    with pytest.raises(ValueError, match=r"."):
        Body(CHUNKED).feed(wire)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 12", Head(200, 12, keep=True)),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\ncontent-length: 3", Head(200, CHUNKED, keep=True)),
        (b"HTTP/1.1 503 \r\nContent-Length:0\r\nConnection: close", Head(503, 0, keep=False)),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1", Head(200, 1, keep=False)),
        (b"HTTP/1.1 200 OK\r\nServer: x", Head(200, UNTIL_CLOSE, keep=False)),
        (b"HTTP/1.1 204 No Content", Head(204, 0, keep=True)),
    ],
)
def test_heads(head, expected):
    assert parse_head(head) == expected


@pytest.mark.parametrize("head", [b"SSH-2.0", b"HTTP/1.1 abc", b"HTTP/1.1 200 OK\r\nContent-Length: -1", b""])
def test_malformed_heads(head):
    with pytest.raises(ValueError, match=r"."):
        parse_head(head)
