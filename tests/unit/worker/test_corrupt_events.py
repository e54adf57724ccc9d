"""What an engine's KV events become when the way there drops, doubles, reorders and spoils them: the engine's tree.

No sockets: the stream's two ways of hearing are replaced by a tape of an EngineCore and what is done to it.
"""

import asyncio
import math
from functools import cache
from random import Random

import msgspec
import pytest
from engine_twin import Branching, Twin
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kv_tape import STORE

from saga.contract.ids import SessionTag, WorkerId
from saga.contract.messages import AllCleared, PagesRemoved, PagesStored
from saga.engine.zmq_events import AllBlocksCleared, BlockRemoved, BlockStored, KvEventBatch
from saga.kv.pages import hashes_to_int64
from saga.kv.residency import ResidencyIndex, page_words
from saga.worker.events import KvEvents, KvEventsLost, StoredBy
from saga.worker.residency import ResidencyFeed
from saga.worker.sequence import EventSequence
from saga.worker.zmq_events import REFUSED, KvEventStream, Restarted, events_of, numbered

W = WorkerId("w")
PAGE = {"type": "BlockStored", "block_hashes": [1, -1], "medium": "GPU"}


def packed(*events, ts=1.5):
    return msgspec.msgpack.encode([ts, list(events), 0])


def refused(reason):
    return REFUSED.labels(reason)._value.get()


def test_a_good_batch():
    batch = events_of(packed(PAGE, {"type": "BlockRemoved", "block_hashes": [1]}, {"type": "AllBlocksCleared"}))
    one, minus_one = bytes(7) + b"\x01", b"\xff" * 8
    changes = (PagesStored(one + minus_one), PagesRemoved(one), AllCleared())
    assert batch == KvEvents(changes, 1.5, (StoredBy(0, SessionTag(""), b""),))
    assert events_of(packed(PAGE | {"medium": "CPU_PINNED"}, ts=math.nan)) == KvEvents((), 0.0)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"hello",
        packed(PAGE)[:-5],
        packed(PAGE) + b"\x00",
        msgspec.msgpack.encode({"ts": 1.0, "events": []}),
        msgspec.msgpack.encode([1.0]),
        msgspec.msgpack.encode(["now", [], 0]),
        msgspec.msgpack.encode([1.0, {}, 0]),
        msgspec.msgpack.encode([1.0, [["BlockStored", [1], None]], 0]),  # as releases before 0.5.23 said it
        packed(PAGE | {"type": "BlockMoved"}),
        packed(PAGE | {"block_hashes": 1}),
        packed(PAGE | {"block_hashes": ["1"]}),
        packed(PAGE | {"block_hashes": [1.5]}),
        packed(PAGE | {"block_hashes": [b"\x00" * 8]}),
        packed(PAGE | {"block_hashes": [b"\x00" * 32]}),
        packed(PAGE | {"block_hashes": [2**63]}),
        packed(PAGE | {"medium": 1}),
        packed({"type": "BlockRemoved"}),
        b"\x91" * 100_000,
    ],
)
def test_what_is_no_batch_is_counted_and_raises_nothing(payload):
    before = refused("unreadable")
    assert events_of(payload) is None
    assert refused("unreadable") == before + 1


@pytest.mark.parametrize("frames", [[], [b"kv"], [b"kv", b"", b"x"], [b"kv", b"1234567", b"x"], [b"kv", bytes(9), b""]])
def test_a_message_without_a_number_is_counted(frames):
    before = refused("no_number")
    assert numbered(frames) is None
    assert refused("no_number") == before + 1


class Tape:
    """All that one engine process publishes, and the pages in its tree at the end."""

    def __init__(self, seed: int, requests: int) -> None:
        twin = Twin(kv_tokens=2_048, page_tokens=16, chunk_tokens=512, session_tags=True, eviction="lru")
        family = Branching(seed, tags=False)
        self.batches = [msgspec.msgpack.encode(KvEventBatch(seed, [AllBlocksCleared()]))]
        for ask in family.asks(requests):
            answer = family.tokens(ask.new_tokens, ask.new_tokens)
            twin.ask(ask, answer)
            family.answered(ask, answer)
            events = [self.event(what, page) for what, page, _before, _session in twin.lines]
            half = len(events) // 2
            for part in filter(None, (events[:half], events[half:])):
                self.batches.append(msgspec.msgpack.encode(KvEventBatch(seed + len(self.batches) / 1e4, part)))
            twin.lines.clear()
        self.tree = set(page_words(b"".join(node.hashes for node in twin.core.pool.tree.nodes())))

    @staticmethod
    def event(what, page):
        if what == STORE:
            return BlockStored(hashes_to_int64(page), None, [], 16, None, "GPU")
        return BlockRemoved(hashes_to_int64(page), "GPU")


@cache
def tape(number):
    made = Tape(100 + number, 40)
    assert sum(b"BlockRemoved" in batch for batch in made.batches) > 5, "nothing was evicted"
    assert len(made.tree) > 50
    return made


def spoiled(fault, seq, payload, random):
    """The messages that arrive instead of one: (number, payload), or frames that are none."""
    cut = random.randrange(len(payload))
    match fault:
        case "lost":
            return []
        case "twice":
            return [(seq, payload), (seq, payload)]
        case "truncated":
            return [(seq, payload[:cut])]
        case "garbage":
            return [(seq, random.randbytes(40))]
        case "wrong type":
            return [(seq, packed(PAGE | {"block_hashes": ["page"]}))]
        case "wide hash":
            return [(seq, packed(PAGE | {"block_hashes": [2**64 - 1]}))]
        case "no number":
            return [None]
        case "far number":
            return [(random.choice((seq + 50, 2**63, 2**64 - 1)), payload)]
        case "old number":
            return [(random.randrange(seq), random.randbytes(9)), (seq, payload)] if seq else [(seq, payload)]
    return [(seq, payload)]


FAULTS = (
    "fine", "lost", "twice", "late", "again", "truncated", "garbage", "wrong type", "wide hash", "no number",
    "far number", "old number", "nonsense", "restart",
)  # fmt: skip


class Engine:
    """One engine after the other, said over a bad line. Its replay says the truth, at most so far back."""

    def __init__(self, faults, seed, buffered):
        self.faults, self.random, self.buffered = iter(faults), Random(seed), buffered
        self.life, self.said = 0, 0  # batches of this life said so far
        self.late: list = []
        self.heard: list[int] = []  # numbers that arrived with their own batch

    @property
    def batches(self):
        return tape(self.life).batches

    def next(self):
        """Frames of the next live message; None for silence, when everything was said."""
        while not self.late:
            fault = next(self.faults, "fine")
            if fault == "restart" and self.life < 2:
                self.life, self.said, self.heard = self.life + 1, 0, []
            elif self.said == len(self.batches):
                return None
            else:
                self.say(fault)
        message = self.late.pop(0)
        if message is None:
            return [b"kv", b"?"]
        seq, payload = message
        if payload in self.batches[seq : seq + 1]:
            self.heard.append(seq)
        return [b"kv", seq.to_bytes(8, "big"), payload]

    def say(self, fault):
        seq, payload = self.said, self.batches[self.said]
        self.said += 1
        if fault == "late" and self.said < len(self.batches):  # after the one behind it
            self.say("fine")
            self.late.append((seq, payload))
        elif fault == "again" and seq:  # much of what was said already, once more
            first = self.random.randrange(seq)
            self.late += [(n, self.batches[n]) for n in range(first, seq + 1)]
            self.late.append((seq, payload))
        elif fault == "nonsense" and self.heard:  # readable, and not what this number was given to
            self.late += [(self.random.choice(self.heard), packed(PAGE)), (seq, payload)]
        else:
            self.late += spoiled(fault, seq, payload, self.random)

    def replay(self, start):
        oldest = max(0, self.said - self.buffered)
        return [(n, self.batches[n]) for n in range(max(start, oldest), self.said)]


class TapeStream(KvEventStream):
    """Hears an Engine."""

    def __init__(self, engine):
        self._engine, self._sequence, self._answered = engine, EventSequence(), False
        self._replay_endpoint = "the engine's" if engine.buffered else ""

    async def _next(self, _idle_s):
        return self._engine.next()

    async def _replayed(self, start):
        for message in self._engine.replay(start):
            yield message
        self._answered = True


class Mesh:
    """Agent and index behind a stream, as `worker.service` and placement put them together."""

    def __init__(self, engine):
        self.engine, self.index = engine, ResidencyIndex()
        self.feed = ResidencyFeed(W, Random(1), 0.0)
        self.lost = 0

    async def run(self):
        """Until the engine has said everything and a look in silence brought nothing new."""
        for epoch in range(1, 500):
            self.feed.restart(epoch)
            silence = 0
            stream = TapeStream(self.engine)
            async for event in self.until_silent(stream):
                if isinstance(event, Restarted):
                    break
                if event is None:
                    silence += 1
                    if silence > 1:
                        return
                    continue
                self.lost += isinstance(event, KvEventsLost)
                changes = event.changes if isinstance(event, KvEvents) else (AllCleared(),)
                for delta in self.feed.change(changes, 0.0) + self.feed.flush():
                    assert self.index.apply(delta) is None
        raise AssertionError("it never settles")

    async def until_silent(self, stream):
        """What the stream tells; None at each silence."""
        silences, listen = [0], stream._next

        async def listening(idle_s):
            frames = await listen(idle_s)
            silences[0] += frames is None
            if silences[0] > 2:
                raise EOFError
            return frames

        stream._next = listening
        try:
            async for event in stream.follow():
                yield event
        except EOFError:
            yield None
            yield None

    def claims(self):
        return set(self.index._workers[W].held)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(FAULTS), max_size=90), st.integers(0, 2**32))
@example(["fine"] * 5 + ["nonsense"] * 3, 1)
@example(["fine", "far number", "fine", "late", "restart", "late", "lost", "restart"], 2)
@example(["truncated", "lost", "lost", "garbage"], 3)
def test_what_is_claimed_in_the_end_is_the_engines_tree(faults, seed):
    mesh = Mesh(engine := Engine(faults, seed, buffered=10_000))
    asyncio.run(mesh.run())
    mesh.index.check()
    assert mesh.claims() == tape(engine.life).tree
    assert mesh.lost == 0, "the replay had everything"


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(FAULTS), max_size=90), st.integers(0, 2**32), st.sampled_from((0, 1, 3)))
def test_what_cannot_be_had_again_is_never_claimed(faults, seed, buffered):
    mesh = Mesh(engine := Engine(faults, seed, buffered))
    asyncio.run(mesh.run())
    mesh.index.check()
    assert mesh.claims() <= tape(engine.life).tree
    if set(faults) <= {"fine"}:
        assert mesh.claims() == tape(0).tree
