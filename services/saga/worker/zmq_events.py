"""SGLang's KV events over ZMQ: subscription and replay, as one stream in order and without gaps, or an honest "lost".

The only file that knows their wire format (SGLang 0.5.23, `disaggregation/kv_events.py`); its structs are declared
again here because importing SGLang takes seconds and a GPU stack. The order is `sequence`'s business.
"""

from collections.abc import AsyncIterator
from typing import Final

import msgspec
import zmq
import zmq.asyncio

from saga.contract.messages import AllCleared, PagesRemoved, PagesStored, ResidencyChange
from saga.kv.pages import int64_to_hashes
from saga.runtime.log import get_logger
from saga.worker.events import KvEvents, KvEventsLost
from saga.worker.sequence import EventSequence, Verdict

REPLAY_S: Final = 5.0  # an engine that takes longer to answer is as good as one without replay
FIRST_IDLE_S: Final = 0.25  # a subscription takes effect late: look soon for what was missed before
IDLE_S: Final = 5.0  # without events: ask whether the last ones were lost
_END: Final = (-1).to_bytes(8, "big", signed=True)
_GPU: Final = (None, "GPU")  # pages in host memory or on disk are no residency

log = get_logger()


class BlockStored(msgspec.Struct, tag="BlockStored", tag_field="type", gc=False):
    """Pages that entered the cache, in the order of their chain. Fields not used are left out."""

    block_hashes: list[int]
    medium: str | None = None


class BlockRemoved(msgspec.Struct, tag="BlockRemoved", tag_field="type", gc=False):
    """Pages that left it."""

    block_hashes: list[int]
    medium: str | None = None


class AllBlocksCleared(msgspec.Struct, tag="AllBlocksCleared", tag_field="type", gc=False):
    """The cache was flushed."""


class KVEventBatch(msgspec.Struct, array_like=True, gc=False):
    """One message."""

    ts: float
    events: list[BlockStored | BlockRemoved | AllBlocksCleared]


class Restarted(msgspec.Struct, frozen=True):
    """Another engine process publishes there now. The stream has ended."""


_decoder = msgspec.msgpack.Decoder(KVEventBatch)


def changes_of(payload: bytes) -> tuple[ResidencyChange, ...]:
    """The changes of one batch. Raises msgspec.MsgspecError for anything else."""
    changes: list[ResidencyChange] = []
    for event in _decoder.decode(payload).events:
        if isinstance(event, AllBlocksCleared):
            changes.append(AllCleared())
        elif event.medium in _GPU:
            kind = PagesStored if isinstance(event, BlockStored) else PagesRemoved
            changes.append(kind(int64_to_hashes(event.block_hashes)))
    return tuple(changes)


class KvEventStream:
    """The events of one engine process, from the oldest it still has."""

    def __init__(self, context: zmq.asyncio.Context, endpoint: str, replay_endpoint: str, topic: str) -> None:
        """`replay_endpoint` may be empty: then every gap is a loss."""
        self._context = context
        self._replay_endpoint = replay_endpoint
        self._sequence = EventSequence()
        self._live = context.socket(zmq.SUB)
        self._live.setsockopt(zmq.LINGER, 0)
        self._live.setsockopt(zmq.RCVHWM, 0)  # a short stall of ours must not become a gap
        self._live.setsockopt(zmq.RECONNECT_IVL, 100)
        self._live.subscribe(topic)
        self._monitor = self._live.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._live.connect(endpoint)

    def close(self) -> None:
        """End the subscription."""
        self._live.disable_monitor()
        self._live.close()

    async def disconnected(self) -> None:
        """Returns when the connection breaks: the engine's process died, or the network hiccuped."""
        await self._monitor.recv_multipart()

    async def follow(self) -> AsyncIterator[KvEvents | KvEventsLost | Restarted]:
        """Everything from now on, after what the engine still has of the past. Ends with Restarted."""
        async for event in self._catch_up():
            yield event
        idle_s = FIRST_IDLE_S
        while True:
            frames = await self._next(idle_s)
            if frames is None:
                self._sequence.settle()
                async for event in self._catch_up():
                    yield event
                idle_s = IDLE_S
                continue
            seq, payload = int.from_bytes(frames[-2], "big"), frames[-1]
            verdict = self._sequence.live(seq)
            if verdict is Verdict.RESTARTED:
                yield Restarted()
                return
            if verdict is Verdict.NEXT:
                yield _decoded(payload)
            elif verdict is Verdict.GAP:
                log.info("worker.kv_events_gap", expected=self._sequence.expected, seq=seq)
                async for event in self._catch_up():
                    yield event
                if self._sequence.expected <= seq:  # not even this one could be had again
                    self._sequence.skip_to(seq)
                    yield KvEventsLost()
                    yield _decoded(payload)

    async def _next(self, idle_s: float) -> list[bytes] | None:
        """The next message; None when none comes for a while. A poll, unlike a cancelled receive, loses none."""
        if not await self._live.poll(int(idle_s * 1000)):
            return None
        frames: list[bytes] = await self._live.recv_multipart()
        return frames

    async def _catch_up(self) -> AsyncIterator[KvEvents | KvEventsLost]:
        """Replay from the expected number until the engine has no more, or does not answer."""
        complete = not self._replay_endpoint
        while not complete:
            complete = True
            first = True
            async for seq, payload in self._replayed(self._sequence.expected):
                verdict = self._sequence.replayed(seq, first=first)
                first = False
                if verdict is Verdict.GAP:
                    complete = False  # parts were dropped on the way: again from there
                    break
                if verdict is Verdict.LOST:
                    log.warning("worker.kv_events_lost", oldest=seq)
                    yield KvEventsLost()
                if verdict is not Verdict.KNOWN:
                    yield _decoded(payload)

    async def _replayed(self, start: int) -> AsyncIterator[tuple[int, bytes]]:
        """What the engine has from number `start` on. Ends early when it does not answer in time."""
        socket = self._context.socket(zmq.DEALER)
        try:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.connect(self._replay_endpoint)
            await socket.send_multipart([b"", start.to_bytes(8, "big")])
            while await socket.poll(int(REPLAY_S * 1000)):
                frames = await socket.recv_multipart()
                if frames[-2] == _END:
                    return
                yield int.from_bytes(frames[-2], "big"), frames[-1]
            log.warning("worker.replay_timeout", endpoint=self._replay_endpoint)
        finally:
            socket.close()


def _decoded(payload: bytes) -> KvEvents | KvEventsLost:
    try:
        return KvEvents(changes_of(payload))
    except msgspec.MsgspecError as error:
        log.warning("worker.kv_events_unreadable", error=str(error))
        return KvEventsLost()
