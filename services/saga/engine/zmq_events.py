"""SGLang's KV events over ZMQ: what was stored and removed, published and replayed as a real server does it.

PUB frames are [topic, sequence (8 bytes big-endian), msgpack [ts, events, rank]]; a ROUTER answers an 8-byte first
sequence with the batches still buffered, ended by sequence -1. Source: sglang/srt/disaggregation/kv_events.py, 0.5.23.
"""

import time
from collections import deque
from collections.abc import Sequence
from typing import Final

import msgspec
import zmq
import zmq.asyncio

from saga.kv.pages import hashes_to_int64
from saga.kv.tokens import decode_ids

BUFFERED_BATCHES: Final = 10_000
END_OF_REPLAY: Final = (-1).to_bytes(8, "big", signed=True)
_RANK: Final = 0
_HIGH_WATER_MARK: Final = 100_000


class BlockStored(msgspec.Struct, tag=True, omit_defaults=True, frozen=True):
    """Chained pages that are cached now."""

    block_hashes: list[int]
    parent_block_hash: int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str | None = None
    cache_salt: str | None = None
    session_id: str | None = None


class BlockRemoved(msgspec.Struct, tag=True, omit_defaults=True, frozen=True):
    """Pages that are no longer cached."""

    block_hashes: list[int]
    medium: str | None = None


class AllBlocksCleared(msgspec.Struct, tag=True, frozen=True):
    """Nothing is cached."""


KvEvent = BlockStored | BlockRemoved | AllBlocksCleared


class KvEventBatch(msgspec.Struct, array_like=True, frozen=True):
    """One message: wall-clock seconds, events in order, data-parallel rank."""

    ts: float
    events: list[KvEvent]
    attn_dp_rank: int | None = _RANK


def stored_event(
    parent: bytes, hashes: bytes, token_bytes: bytes, *, page_tokens: int, cache_salt: str, session_id: str
) -> BlockStored:
    """A BlockStored of raw page hashes (8 bytes each) and token bytes."""
    return BlockStored(
        block_hashes=hashes_to_int64(hashes),
        parent_block_hash=hashes_to_int64(parent)[0] if parent else None,
        token_ids=decode_ids(token_bytes),
        block_size=page_tokens,
        lora_id=None,
        medium="GPU",
        cache_salt=cache_salt or None,
        session_id=session_id or None,
    )


def removed_event(hashes: bytes) -> BlockRemoved:
    """A BlockRemoved of raw page hashes."""
    return BlockRemoved(block_hashes=hashes_to_int64(hashes), medium="GPU")


class KvEventPublisher:
    """Publishes batches and answers replays. `serve_replays` must run as a task; sequence 0 says "all cleared"."""

    def __init__(self, host: str, port: int, replay_port: int, topic: str) -> None:
        """Binds both sockets; raises zmq.ZMQError when a port is taken."""
        self.topic = topic
        self.host = host
        self._topic = topic.encode()
        self._context = zmq.asyncio.Context()
        self._encoder = msgspec.msgpack.Encoder()
        self._sequence = 0
        self._buffer: deque[tuple[int, bytes]] = deque(maxlen=BUFFERED_BATCHES)
        # A plain socket on the same context: sending to a PUB never blocks, so it needs no loop.
        self._pub: zmq.Socket[bytes] = zmq.Socket(self._context, zmq.PUB)
        self._router = self._context.socket(zmq.ROUTER)
        try:
            self._pub.set_hwm(_HIGH_WATER_MARK)
            self.port = _bind(self._pub, host, port)
            self.replay_port = _bind(self._router, host, replay_port)
        except zmq.ZMQError:
            self.close()
            raise
        self.publish([AllBlocksCleared()])

    @property
    def next_sequence(self) -> int:
        """Of the batch to be published next."""
        return self._sequence

    def publish(self, events: Sequence[KvEvent]) -> None:
        """Send one batch."""
        payload = self._encoder.encode(KvEventBatch(time.time(), list(events)))
        self._buffer.append((self._sequence, payload))
        self._pub.send_multipart([self._topic, self._sequence.to_bytes(8, "big"), payload], zmq.NOBLOCK)
        self._sequence += 1

    async def serve_replays(self) -> None:
        """Answer replay requests until cancelled."""
        while True:
            frames = await self._router.recv_multipart()
            if len(frames) < 2 or len(frames[-1]) != 8:
                continue
            # A REQ socket puts an empty frame between identity and body and wants it back, a DEALER need not.
            envelope, first = frames[:-1], int.from_bytes(frames[-1], "big")
            for sequence, payload in list(self._buffer):
                if sequence >= first:
                    await self._router.send_multipart([*envelope, self._topic, sequence.to_bytes(8, "big"), payload])
            await self._router.send_multipart([*envelope, self._topic, END_OF_REPLAY, b""])

    def close(self) -> None:
        """Close both sockets; what is not sent is dropped."""
        self._pub.close(linger=0)
        self._router.close(linger=0)
        self._context.term()


def _bind(socket: "zmq.Socket[bytes] | zmq.asyncio.Socket", host: str, port: int) -> int:
    socket.bind(f"tcp://{host}:{port or '*'}")
    endpoint = socket.getsockopt_string(zmq.LAST_ENDPOINT)
    return int(endpoint.rsplit(":", 1)[1])
