"""Everything that an SGLang server says of its KV cache, hash by hash and in order. For tests that compare."""

import asyncio

import msgspec
import zmq
import zmq.asyncio

from saga.kv.pages import HASH_BYTES, int64_to_hashes

STORE, REMOVE, CLEAR = "store", "remove", "clear"
QUIET_MS = 300


class KvTape:
    """A subscription to one server. A line is (what, page hash, hash of the page before, session), as far as known."""

    def __init__(self, endpoint: str, topic: str = "kv") -> None:
        self.lines: list[tuple[str, bytes, bytes, str]] = []
        self.seqs: list[int] = []
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.RCVHWM, 0)
        self._socket.subscribe(topic)
        self._socket.connect(endpoint)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_) -> None:
        self._socket.close()
        self._context.destroy(linger=0)

    async def joined(self, provoke) -> None:
        """Returns once something that `provoke()` makes the server say is heard: a subscription takes effect late."""
        async with asyncio.timeout(10):
            while not self.lines:
                await provoke()
                await self.settle()
        self.lines.clear()

    async def settle(self) -> None:
        """Take down what is said until there is silence."""
        while await self._socket.poll(QUIET_MS):
            frames = await self._socket.recv_multipart()
            self.seqs.append(int.from_bytes(frames[-2], "big"))
            for event in msgspec.msgpack.decode(frames[-1])[1]:
                self.lines += lines_of(event)


def lines_of(event: dict) -> list[tuple[str, bytes, bytes, str]]:
    """One event, page by page."""
    match event["type"]:
        case "BlockStored":
            parent = event.get("parent_block_hash")
            before = b"" if parent is None else int64_to_hashes([parent])
            return stored(before, int64_to_hashes(event["block_hashes"]), event.get("session_id") or "")
        case "BlockRemoved":
            return removed(int64_to_hashes(event["block_hashes"]))
        case "AllBlocksCleared":
            return [(CLEAR, b"", b"", "")]
    raise AssertionError(f"an event that is not known: {event}")


def pages_in(hashes: bytes) -> list[bytes]:
    """Each hash by itself."""
    return [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]


def stored(before: bytes, hashes: bytes, session: str) -> list[tuple[str, bytes, bytes, str]]:
    """Lines of a run of pages that entered."""
    pages = pages_in(hashes)
    return [(STORE, page, parent, session) for page, parent in zip(pages, [before, *pages], strict=False)]


def removed(hashes: bytes) -> list[tuple[str, bytes, bytes, str]]:
    """Lines of pages that left."""
    return [(REMOVE, page, b"", "") for page in pages_in(hashes)]
