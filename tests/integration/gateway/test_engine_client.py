"""The client to engines, against servers that answer byte by byte what a test wants."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable

import pytest

from saga.gateway.http_connection import EngineLostError, Reply
from saga.gateway.http_engine import DEAD_LINK_S, Departure, EngineClient, LeaseLostError, watch_link

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Scripted:
    """Answers the n-th request of each connection with the n-th of `answers`, then closes. None: closes unanswered."""

    def __init__(self) -> None:
        self.answers: list[list[bytes] | None] = []
        self.requests: list[bytes] = []
        self.connections = 0
        self.resets = False  # how it closes
        self.closed = asyncio.Event()
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            for answer in self.answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                if answer is None:
                    break
                for piece in answer:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.001)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if self.resets:
                # No wait, and no goodbye: what a process leaves behind that is killed.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
            self.closed.set()


@pytest.fixture
async def server() -> AsyncIterator[Scripted]:
    scripted = Scripted()
    listening = await asyncio.start_server(scripted.serve, "127.0.0.1", 0)
    scripted.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield scripted
    listening.close()
    await listening.wait_closed()


@pytest.fixture
async def client() -> AsyncIterator[EngineClient]:
    engines = EngineClient(1.0)
    yield engines
    await engines.close()


async def post(client: EngineClient, server: Scripted, may_leave: Callable[[], bool] = lambda: True) -> Reply:
    return await client.post(server.url, "/path", b"{}", Departure(may_leave))


async def test_connections_are_used_again(client, server):
    server.answers = [[OK[:5], OK[5:20], OK[20:]]] * 3
    for _ in range(3):
        reply = await post(client, server)
        assert (reply.status, await reply.read()) == (200, b"ok")
    assert server.connections == 1
    assert server.requests[0].startswith(b"POST /path HTTP/1.1\r\nHost: 127.0.0.1:")
    assert server.requests[0].endswith(b"\r\n\r\n{}")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system cannot be told how long to wait")
async def test_the_system_ends_a_connection_whose_engine_acknowledges_nothing_for_six_seconds():
    """Cut links are made by `make chaos` (cut-engine): here, what the kernel was told."""
    with socket.socket() as link:
        watch_link(link)
        told = [
            link.getsockopt(socket.IPPROTO_TCP, option) for option in (socket.TCP_KEEPIDLE, socket.TCP_USER_TIMEOUT)
        ]
        assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert told == [2, 1000 * DEAD_LINK_S] == [2, 6000]


async def test_every_connection_is_watched(client, server):
    server.answers = [[OK]] * 2
    await (await post(client, server)).read()

    (connection,) = client._engines[server.url].idle
    link = connection._transport.get_extra_info("socket")
    assert link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


async def two_idle(client: EngineClient, server: Scripted) -> None:
    """Leaves two connections in the pool."""
    for reply in await asyncio.gather(post(client, server), post(client, server)):
        await reply.read()


async def test_an_idle_connection_that_closes_under_a_request_says_nothing_of_the_engine(client, server):
    server.answers = [[OK], None]
    await two_idle(client, server)
    assert await (await post(client, server)).read() == b"ok"
    assert (server.connections, len(server.requests)) == (3, 4)  # a fresh one, not the other idle one


async def test_a_reset_under_a_request_is_no_different(client, server):
    server.answers = [[OK], None]
    server.resets = True
    for _ in range(2):
        assert await (await post(client, server)).read() == b"ok"
    assert (server.connections, len(server.requests)) == (2, 3)


async def test_an_engine_that_closes_the_fresh_connection_too_is_lost(client, server):
    server.answers = [[OK], None]
    await (await post(client, server)).read()
    server.answers = [None]
    with pytest.raises(EngineLostError, match="closed"):
        await post(client, server)
    assert (server.connections, len(server.requests)) == (2, 3)


async def test_an_idle_connection_that_closes_within_an_answer_is_an_engine_lost(client, server):
    server.answers = [[OK], [b"H"]]
    await (await post(client, server)).read()
    with pytest.raises(EngineLostError, match="closed"):
        await post(client, server)
    assert server.connections == 1


async def test_the_lease_is_asked_again_before_a_request_is_written_again(client, server):
    server.answers = [[OK], None]
    await (await post(client, server)).read()
    answers = iter([True, False])
    with pytest.raises(LeaseLostError):
        await post(client, server, lambda: next(answers))
    assert len(server.requests) == 2


async def test_a_connection_that_ends_while_it_waits_is_not_used(client, server):
    server.answers = [[OK]]
    await (await post(client, server)).read()
    await server.closed.wait()
    assert await (await post(client, server)).read() == b"ok"
    assert (server.connections, len(server.requests)) == (2, 2)


async def test_a_fresh_connection_that_closes_does(client, server):
    server.answers = [None]
    with pytest.raises(EngineLostError, match="closed"):
        await post(client, server)
    assert server.connections == 1


@pytest.mark.parametrize("resets", [False, True])
async def test_an_engine_that_ends_each_connection_at_once_is_lost_whenever_that_is_noticed(client, server, resets):
    server.resets = resets
    for _ in range(50):
        with pytest.raises(EngineLostError):
            await post(client, server)
        await client.abort(server.url, "rid")
    assert server.connections == 100


async def test_nothing_is_written_without_a_lease(client, server):
    server.answers = [[OK]] * 2
    with pytest.raises(LeaseLostError):
        await post(client, server, lambda: False)
    assert await (await post(client, server)).read() == b"ok"
    assert (server.connections, len(server.requests)) == (1, 1)


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        ([b"HTTP/1.1 100 Continue\r\n\r\n", OK], b"ok"),
        ([b"HTTP/1.1 200 OK\r\n\r\nuntil ", b"close"], b"until close"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"0\r\n\r\n"], b"ok"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"], b""),
    ],
)
async def test_framings(client, server, answer, body):
    server.answers = [answer]
    assert await (await post(client, server)).read() == body


@pytest.mark.parametrize(
    "answer",
    [
        [b"hello\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"],
        [b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000],
    ],
)
async def test_broken_answers(client, server, answer):
    server.answers = [answer]
    with pytest.raises(EngineLostError):
        await (await post(client, server)).read()


async def test_a_pump_gets_every_piece_and_raises_what_its_sink_raises(client, server):
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    server.answers = [[chunked, b"1\r\na\r\n", b"1\r\nb\r\n1\r\nc\r\n", b"0\r\n\r\n"]] * 2
    pieces = []
    await (await post(client, server)).pump(pieces.append, lambda: True)
    assert b"".join(pieces) == b"abc"

    def refuse(piece):
        raise RuntimeError(piece)

    with pytest.raises(RuntimeError):
        await (await post(client, server)).pump(refuse, lambda: True)


async def test_nobody_listens(client, server):
    server.url = "http://127.0.0.1:1"
    with pytest.raises(EngineLostError):
        await post(client, server)
    await client.abort(server.url, "rid")
