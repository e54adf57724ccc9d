"""Answers fed to a connection as a socket would: cut anywhere they read alike; a broken one is an engine lost."""

import asyncio
import time
from collections.abc import Coroutine
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.gateway.framing import MAX_HEAD_BYTES
from saga.gateway.http_connection import Connection, EngineLostError, Reply, UnansweredError
from saga.gateway.http_engine import _Engine

KNOWN = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n"
OK = KNOWN % 2 + b"ok"

pieces_of = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
cuts_of = st.lists(st.integers(0, 10_000), max_size=8)


class FakeTransport(asyncio.Transport):
    """What a connection asks of its socket."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.aborted = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.aborted
        self.sent += data

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Line:
    """A connection without a network; `free` holds it each time that it offers itself for more."""

    def __init__(self) -> None:
        self.free: list[Connection] = []
        self.transport = FakeTransport()
        self.connection = Connection(self.free.append)
        self.connection.connection_made(self.transport)

    def ask(self) -> Reply:
        return self.connection.send(b"head ", b"body")

    def hear(self, *parts: bytes) -> None:
        """What arrives before the connection is closed."""
        for part in parts:
            if not self.transport.aborted:
                self.connection.data_received(part)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    points = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in pairwise(points)]


def at_once(waiting: Coroutine[Any, Any, bytes | None]) -> bytes | None:
    """The result of what has nothing left to wait for."""
    try:
        waiting.send(None)
    except StopIteration as stopped:
        return stopped.value
    raise AssertionError("it waits")


def chunks(pieces: list[bytes], *, extended: bool = False, trailers: bytes = b"") -> bytes:
    sizes = b"%X;x=1" if extended else b"%x"
    return b"".join(sizes % len(one) + b"\r\n" + one + b"\r\n" for one in pieces) + b"0\r\n" + trailers + b"\r\n"


# --- whole answers ---------------------------------------------------------------------------------------------------


@given(pieces_of, cuts_of, st.booleans(), st.sampled_from([b"", b"X-Later: 1\r\n"]), st.booleans())
def test_chunked_answers_cut_anywhere(pieces, cuts, extended, trailers, interim):
    line = Line()
    reply = line.ask()
    wire = (b"HTTP/1.1 100 Continue\r\n\r\n" if interim else b"") + CHUNKED
    for part in cut(wire + chunks(pieces, extended=extended, trailers=trailers), cuts):
        assert not reply.done
        assert not line.free
        line.hear(part)
    assert (reply.status, at_once(reply.read())) == (200, b"".join(pieces))
    assert line.free == [line.connection]
    assert line.connection.usable


@given(st.binary(max_size=60), cuts_of)
def test_answers_of_known_length_cut_anywhere(data, cuts):
    line = Line()
    reply = line.ask()
    for part in cut(KNOWN % len(data) + data, cuts):
        assert not reply.done
        line.hear(part)
    assert (reply.status, at_once(reply.read())) == (200, data)
    assert line.free == [line.connection]


@given(st.binary(max_size=60), cuts_of)
def test_answers_that_end_with_their_connection(data, cuts):
    line = Line()
    reply = line.ask()
    line.hear(*cut(UNTIL_CLOSE + data, cuts))
    assert not reply.done
    line.connection.connection_lost(None)
    assert at_once(reply.read()) == data
    assert not line.free
    assert not line.connection.usable


@pytest.mark.parametrize(
    ("wire", "status", "kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, True),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n", 200, True),
        (b"HTTP/1.1 503 \r\nContent-Length:0\r\nConnection: close\r\n\r\n", 503, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", 200, False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", 200, True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, True),
        (b"HTTP/1.1 100 Continue\r\nContent-Length: 9\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, True),
    ],
)
def test_heads_tell_the_end_and_what_becomes_of_the_connection(wire, status, kept):
    line = Line()
    reply = line.ask()
    line.hear(wire)
    assert (reply.status, at_once(reply.read())) == (status, b"")
    assert bool(line.free) == kept
    assert line.transport.aborted != kept


def test_one_connection_serves_again_and_again():
    line = Line()
    for number in range(3):
        reply = line.ask()
        assert not line.connection.usable
        line.hear(KNOWN % 1 + b"%d" % number)
        assert at_once(reply.read()) == b"%d" % number
    assert line.transport.sent == b"head body" * 3
    assert line.free == [line.connection] * 3


@given(st.sampled_from([b"more", b"H", OK, b"\0", b"HTTP/1.1 204 No\r\n\r\n"]), st.booleans(), cuts_of)
def test_bytes_after_the_end_are_no_part_of_it_and_close_the_connection(more, chunked, cuts):
    line = Line()
    reply = line.ask()
    line.hear(*cut((CHUNKED + chunks([b"ok"]) if chunked else OK) + more, cuts))
    assert (reply.status, at_once(reply.read())) == (200, b"ok")
    assert line.transport.aborted
    assert not line.connection.usable


def test_bytes_that_nobody_asked_for_close_the_connection():
    line = Line()
    line.hear(OK)
    assert line.transport.aborted


# --- broken answers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "before"),
    [
        (b"SSH-2.0-x\r\n\r\n", b""),
        (b"HTTP/1.1 abc\r\n\r\n", b""),
        (b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nxyz", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nok", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok", b""),
        (CHUNKED + b"xyz\r\n", b""),
        (CHUNKED + b"-5\r\n", b""),
        (CHUNKED + b"\r\n", b""),
        (CHUNKED + b"1" * 30, b""),
        (CHUNKED + b"2\r\nok\r\nzz\r\n", b"ok"),
        (CHUNKED + b"2\r\nokok", b"ok"),
    ],
)
@given(cuts_of)
def test_malformed_answers(wire, before, cuts):
    line = Line()
    reply = line.ask()
    line.hear(*cut(wire, cuts))
    assert not line.free
    assert line.transport.aborted
    got = at_once(reply.some()) if before else b""
    assert got == before
    with pytest.raises(EngineLostError, match="no valid answer") as raised:
        at_once(reply.read())
    assert not isinstance(raised.value, UnansweredError)


@given(
    st.sampled_from([OK, CHUNKED + chunks([b"ok", b"ok"], trailers=b"X: y\r\n"), UNTIL_CLOSE]), st.integers(0), cuts_of
)
def test_answers_that_end_early(wire, end, cuts):
    end %= len(wire)
    line = Line()
    reply = line.ask()
    line.hear(*cut(wire[:end], cuts))
    line.connection.connection_lost(None)
    with pytest.raises(EngineLostError, match="closed the connection early") as raised:
        at_once(reply.read())
    assert isinstance(raised.value, UnansweredError) == (end == 0)
    assert not line.free


def test_a_reset_ends_no_answer():
    line = Line()
    reply = line.ask()
    line.hear(UNTIL_CLOSE + b"half")
    line.connection.connection_lost(ConnectionResetError("reset"))
    assert at_once(reply.some()) == b"half"
    with pytest.raises(EngineLostError, match="reset"):
        at_once(reply.some())


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nX: ", b"y"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (CHUNKED + b"2\r\nok\r\n2;", b"x"),
        (CHUNKED + b"2\r\nok\r\n0\r\n", b"X: y\r\n"),
    ],
)
def test_nothing_without_content_is_endless(start, more):
    line = Line()
    reply = line.ask()
    line.hear(start, *[more * 1000] * (MAX_HEAD_BYTES // (len(more) * 1000) + 2))
    assert line.transport.aborted
    with pytest.raises(EngineLostError, match="bytes without content"):
        at_once(reply.read())


def test_pieces_of_a_long_stream_are_not_counted():
    line = Line()
    reply = line.ask()
    line.hear(CHUNKED, *[b"1\r\nx\r\n"] * (MAX_HEAD_BYTES // 6 + 10), b"0\r\n\r\n")
    assert at_once(reply.read()) == b"x" * (MAX_HEAD_BYTES // 6 + 10)


# --- the connection goes ---------------------------------------------------------------------------------------------


def test_nothing_is_sent_over_a_connection_that_has_gone():
    line = Line()
    line.connection.connection_lost(None)
    line.connection.discard()
    with pytest.raises(UnansweredError, match="at once"):
        line.ask()
    closing = Line()
    closing.connection.discard()
    with pytest.raises(UnansweredError, match="at once"):
        closing.ask()


def test_a_pool_takes_no_connection_that_has_gone():
    pool = _Engine("http://localhost")
    first, gone = Line(), Line()
    gone.connection.connection_lost(None)
    pool.put(gone.connection)
    assert pool.take(time.monotonic()) is None
    pool.put(first.connection)
    pool.put(gone.connection)
    assert pool.take(time.monotonic()) is first.connection


def test_closing_an_answer_early_closes_its_connection_and_a_whole_one_leaves_it():
    line = Line()
    line.ask().close()
    assert line.transport.aborted
    line.connection.connection_lost(None)
    whole = Line()
    reply = whole.ask()
    whole.hear(OK)
    reply.close()
    assert not whole.transport.aborted


# --- pumping ---------------------------------------------------------------------------------------------------------


async def test_a_pump_forwards_within_the_callback_and_once_for_each_read():
    line = Line()
    reply = line.ask()
    line.hear(CHUNKED + b"1\r\na\r\n1\r\nb\r\n")
    pieces: list[bytes] = []
    pumping = asyncio.ensure_future(reply.pump(pieces.append, lambda: True))
    await asyncio.sleep(0)
    assert pieces == [b"ab"]
    line.hear(b"1\r\nc\r\n")
    line.hear(b"1\r\nd\r\n1\r\ne\r\n")
    assert pieces == [b"ab", b"c", b"de"]
    line.hear(b"0\r\n\r\n")
    await pumping
    assert line.free == [line.connection]


async def test_what_a_sink_raises_ends_the_answer_and_reaches_the_pump():
    line = Line()
    reply = line.ask()

    def refuse(piece):
        raise RuntimeError(piece)

    pumping = asyncio.ensure_future(reply.pump(refuse, lambda: True))
    await asyncio.sleep(0)
    line.hear(CHUNKED + b"1\r\na\r\n")
    assert line.transport.aborted
    with pytest.raises(RuntimeError):
        await pumping


async def test_a_slow_sink_stops_the_reading():
    line = Line()
    reply = line.ask()
    pieces: list[bytes] = []
    keeps_up = False
    pumping = asyncio.ensure_future(reply.pump(pieces.append, lambda: keeps_up))
    await asyncio.sleep(0)
    assert not line.transport.reading
    keeps_up = True
    while not line.transport.reading:
        await asyncio.sleep(0)
    line.hear(CHUNKED + b"1\r\na\r\n0\r\n\r\n")
    await pumping
    assert pieces == [b"a"]


@pytest.mark.timeout(10)
@pytest.mark.parametrize("noticed", ["before the pump knows", "while it waits for the sink"])
async def test_an_engine_lost_behind_a_slow_sink_is_lost(noticed):
    """The pump must not look again for what will never come: that would stop the whole loop."""
    line = Line()
    reply = line.ask()
    slow = False
    pumping = asyncio.ensure_future(reply.pump(lambda _: None, lambda: not slow))
    await asyncio.sleep(0)
    slow = True
    line.hear(CHUNKED + b"1\r\na\r\n")
    while noticed == "while it waits for the sink" and line.transport.reading:
        await asyncio.sleep(0)
    line.connection.connection_lost(None)
    with pytest.raises(EngineLostError, match="early"):
        await pumping
