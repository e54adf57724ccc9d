"""SGLang's KV events over ZMQ: subscription and replay, as one stream in order and without gaps, or an honest "lost".

The only file that knows their wire format (SGLang 0.5.23, `disaggregation/kv_events.py`); its structs are declared
again here because importing SGLang takes seconds and a GPU stack. The order is `sequence`'s business. What cannot be
read, bears no number or one that the engine never gave is counted and not used: the replay says what is true.
"""

import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Final

import msgspec
import zmq
import zmq.asyncio

from saga.contract.ids import SessionTag
from saga.contract.messages import AllCleared, PagesRemoved, PagesStored, ResidencyChange
from saga.contract.unreadable import UNREADABLE
from saga.kv.pages import int64_to_hashes
from saga.runtime import metrics
from saga.runtime.log import get_logger
from saga.worker.events import KvEvents, KvEventsLost, StoredBy
from saga.worker.sequence import EventSequence, Verdict

REPLAY_S: Final = 5.0  # an engine that takes longer to answer is as good as one without replay
FIRST_IDLE_S: Final = 0.25  # a subscription takes effect late: look soon for what was missed before
IDLE_S: Final = 2.0  # without events: ask whether the last ones were lost
_NUMBER_BYTES: Final = 8
_END: Final = (-1).to_bytes(_NUMBER_BYTES, "big", signed=True)
_GPU: Final = (None, "GPU")  # pages in host memory or on disk are no residency

log = get_logger()
REFUSED = metrics.counter(
    "saga_worker_kv_batches_refused_total",
    "Batches of KV events not used: unreadable, without a number, or not what the engine gave that number to",
    ("reason",),
)


class BlockStored(msgspec.Struct, tag="BlockStored", tag_field="type", gc=False):
    """Pages that entered the cache, in the order of their chain. Fields not used are left out."""

    block_hashes: list[int]
    medium: str | None = None
    parent_block_hash: int | None = None  # of the page before the first
    session_id: str | None = None  # the session tag of the request that stored them


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


Heard = KvEvents | KvEventsLost | Restarted
_decoder = msgspec.msgpack.Decoder(KVEventBatch)


def events_of(payload: bytes) -> KvEvents | None:
    """What one batch says; None when it is no batch, or names a page by more than 64 bits."""
    try:
        batch = _decoder.decode(payload)
        changes: list[ResidencyChange] = []
        stored_by: list[StoredBy] = []
        for event in batch.events:
            change = _change(event)
            if change is None:
                continue
            if isinstance(event, BlockStored):
                parent = b"" if event.parent_block_hash is None else int64_to_hashes([event.parent_block_hash])
                stored_by.append(StoredBy(len(changes), SessionTag(event.session_id or ""), parent))
            changes.append(change)
    except UNREADABLE as error:
        REFUSED.labels("unreadable").inc()
        log.warning("worker.kv_events_unreadable", error=str(error))
        return None
    return KvEvents(tuple(changes), batch.ts if math.isfinite(batch.ts) else 0.0, tuple(stored_by))


def _change(event: BlockStored | BlockRemoved | AllBlocksCleared) -> ResidencyChange | None:
    if isinstance(event, AllBlocksCleared):
        return AllCleared()
    if event.medium not in _GPU:
        return None
    hashes = int64_to_hashes(event.block_hashes)
    return PagesStored(hashes) if isinstance(event, BlockStored) else PagesRemoved(hashes)


def numbered(frames: list[bytes]) -> tuple[int, bytes] | None:
    """(number, payload) of a message; None when it is none of the engine's."""
    if len(frames) < 2 or len(frames[-2]) != _NUMBER_BYTES:
        REFUSED.labels("no_number").inc()
        log.warning("worker.kv_events_without_number", frames=len(frames))
        return None
    return int.from_bytes(frames[-2], "big"), frames[-1]


class KvEventStream:
    """The events of one engine process, from the oldest it still has."""

    def __init__(self, context: zmq.asyncio.Context, endpoint: str, replay_endpoint: str, topic: str) -> None:
        """`replay_endpoint` may be empty: then every gap is a loss."""
        self._context = context
        self._replay_endpoint = replay_endpoint
        self._sequence = EventSequence()
        self._answered = False  # the last replay was told to its end
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

    async def follow(self) -> AsyncIterator[Heard]:
        """Everything from now on, after what the engine still has of the past. Ends with Restarted."""
        async for event in self._events():
            yield event
            if isinstance(event, Restarted):
                return

    async def _events(self) -> AsyncIterator[Heard]:
        async for event in self._catch_up():  # how old this news is says nothing about how fresh claims are
            yield KvEvents(event.changes, stored_by=event.stored_by) if isinstance(event, KvEvents) else event
        idle_s = FIRST_IDLE_S
        while True:
            frames = await self._next(idle_s)
            if frames is None:
                async for event in self._catch_up():
                    yield event
                idle_s = IDLE_S
            elif (message := numbered(frames)) is not None:
                async for event in self._heard(*message):
                    yield event

    async def _heard(self, seq: int, payload: bytes) -> AsyncIterator[Heard]:
        """One live batch."""
        sequence, mark, events = self._sequence, hash(payload), events_of(payload)
        if events is None:
            verdict = Verdict.GAP if seq >= sequence.expected else Verdict.KNOWN
        else:
            verdict = sequence.live(seq, mark)
        if verdict is Verdict.NEXT and events is not None:
            yield events
        elif verdict is Verdict.STRANGE:
            if await self._another_answers():
                yield Restarted()
            else:
                REFUSED.labels("not_its_number").inc()
                log.warning("worker.kv_events_stray", expected=sequence.expected, seq=seq)
        elif verdict is Verdict.GAP:
            log.info("worker.kv_events_gap", expected=sequence.expected, seq=seq)
            async for event in self._catch_up():
                yield event
            if sequence.expected > seq:
                return
            if self._answered:
                REFUSED.labels("not_its_number").inc()
                log.warning("worker.kv_events_never_said", expected=sequence.expected, seq=seq)
                return
            sequence.skip_to(seq, mark)  # not even this one could be had again
            yield KvEventsLost()
            if events is not None:
                yield events

    async def _next(self, idle_s: float) -> list[bytes] | None:
        """The next message; None when none comes for a while. A poll, unlike a cancelled receive, loses none."""
        if not await self._live.poll(int(idle_s * 1000)):
            return None
        frames: list[bytes] = await self._live.recv_multipart()
        return frames

    async def _catch_up(self) -> AsyncIterator[Heard]:
        """Replay from the expected number until the engine has no more, or does not answer."""
        self._answered = False
        sequence, tried, heard = self._sequence, -1, False
        while self._replay_endpoint:
            first = heard = again = False
            first, tried = sequence.expected == tried, sequence.expected
            async with aclosing(self._replayed(sequence.replay_from)) as replay:
                async for seq, payload in replay:
                    verdict = sequence.replayed(seq, hash(payload), first=first or not heard)
                    heard = True
                    if verdict is Verdict.STRANGE:
                        yield Restarted()
                        return
                    if verdict is Verdict.GAP:
                        again = True  # parts were dropped on the way: once more from there
                        break
                    if verdict is not Verdict.KNOWN:
                        first = False
                        events = events_of(payload)
                        if verdict is Verdict.LOST or events is None:
                            log.warning("worker.kv_events_lost", seq=seq)
                            yield KvEventsLost()
                        if events is not None:
                            yield events
            if not again:
                break
        if self._answered and not heard and sequence.expected and await self._oldest(0) is not None:
            yield Restarted()  # it has a past, but not the batch that we took last

    async def _another_answers(self) -> bool:
        """Whether what the engine says now does not continue what was taken; also when that cannot be found out."""
        start = self._sequence.replay_from
        oldest = await self._oldest(start) if self._replay_endpoint else None
        return oldest is None or not self._sequence.is_ours(oldest[0], hash(oldest[1]))

    async def _oldest(self, start: int) -> tuple[int, bytes] | None:
        """The first batch that the engine still has from number `start` on."""
        async with aclosing(self._replayed(start)) as replay:
            async for message in replay:
                return message
        return None

    async def _replayed(self, start: int) -> AsyncGenerator[tuple[int, bytes], None]:
        """What the engine has from number `start` on. Ends early when it does not answer in time."""
        socket = self._context.socket(zmq.DEALER)
        try:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.connect(self._replay_endpoint)
            await socket.send_multipart([b"", start.to_bytes(_NUMBER_BYTES, "big")])
            while await socket.poll(int(REPLAY_S * 1000)):
                frames = await socket.recv_multipart()
                if len(frames) > 1 and frames[-2] == _END:
                    self._answered = True
                    return
                if (message := numbered(frames)) is not None:
                    yield message
            log.warning("worker.replay_timeout", endpoint=self._replay_endpoint)
        finally:
            socket.close()
