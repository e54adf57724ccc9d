"""What workers promise, and what becomes of it: cached tokens as they advertise them against those their engine counts.

A promise is made at a Grant, by the pages that the worker has advertised, and judged at StepFinished. An honest worker
breaks it, too, when it evicts in between; but then it takes the page back (`PagesRemoved`), and it is excused. What is
left of broken promises is noise (a message that was late) or a lie. Pure; `trust.py` draws the conclusions.
"""

from collections import deque
from typing import Final, Literal

import msgspec

from saga.contract.ids import LeaseId, WorkerId
from saga.contract.messages import AllCleared, Grant, PagesRemoved, ResidencyDelta, StepFinished

HASH_BYTES: Final = 8
LEAST_PAGES: Final = 2  # a promise of fewer is not worth a judgement
BROKEN_SHARE: Final = 0.5  # of the promised tokens that must be missing
MAX_TAKEN_BACK_BYTES: Final = 1 << 20  # remembered of one worker while promises are open; beyond it all are excused
MAX_PROMISES: Final = 50_000

Verdict = Literal["kept", "broken", "excused"]


class Promise(msgspec.Struct, gc=False):
    """Of one Grant."""

    worker_id: WorkerId
    epoch: int
    expected_tokens: int
    page_tokens: int
    chain: bytes  # page hashes of the prompt
    mark: int  # how much its worker had taken back by then
    since_s: float
    started_s: float = -1.0  # its gateway said that it runs; negative: not yet
    moved_s: float = -1.0  # and that it goes on


class _TakenBack:
    """Pages that one worker took back, for as long as somebody may ask."""

    __slots__ = ("bytes", "log", "mark", "unsure_mark")

    def __init__(self) -> None:
        self.mark = 0  # one more with each delta
        self.unsure_mark = 0  # before it, anything may have been taken back
        self.log: deque[tuple[int, bytes]] = deque()
        self.bytes = 0


class Promises:
    """Open promises, by lease."""

    def __init__(self) -> None:
        self._open: dict[LeaseId, Promise] = {}
        self._by_worker: dict[WorkerId, dict[LeaseId, Promise]] = {}
        self._taken_back: dict[WorkerId, _TakenBack] = {}

    def __len__(self) -> int:
        return len(self._open)

    def made(self, grant: Grant, epoch: int, page_tokens: int, chain: bytes, now_s: float) -> None:
        """A lease is granted, with so many tokens advertised. `chain` empty: not at hand, nothing will be judged."""
        if len(self._open) >= MAX_PROMISES:
            return
        back = self._taken_back.setdefault(grant.worker_id, _TakenBack())
        expected_tokens = grant.cached_tokens if chain else 0
        promise = Promise(grant.worker_id, epoch, expected_tokens, page_tokens, chain, back.mark, now_s)
        self._open[grant.lease_id] = promise
        self._by_worker.setdefault(grant.worker_id, {})[grant.lease_id] = promise

    def runs(self, lease_id: LeaseId, now_s: float) -> None:
        """Its gateway says that the step runs, or goes on."""
        promise = self._open.get(lease_id)
        if promise is not None:
            promise.started_s = now_s if promise.started_s < 0 else promise.started_s
            promise.moved_s = now_s

    def off(self, lease_id: LeaseId) -> Promise | None:
        """The lease is over; nothing is judged."""
        promise = self._open.pop(lease_id, None)
        if promise is None:
            return None
        here = self._by_worker[promise.worker_id]
        del here[lease_id]
        self._forget(promise.worker_id, next(iter(here.values()), None))
        return promise

    def running(self, worker_id: WorkerId, since_s: float, moved_since_s: float) -> int:
        """Steps there that have run since before the one time, and were heard to go on after the other."""
        return sum(
            0 <= promise.started_s <= since_s and promise.moved_s >= moved_since_s
            for promise in self._by_worker.get(worker_id, {}).values()
        )

    def taken_back(self, delta: ResidencyDelta) -> None:
        """A worker says what it no longer holds."""
        back = self._taken_back.get(delta.worker_id)
        if back is None:
            return
        back.mark += 1
        if not self._by_worker.get(delta.worker_id):
            return
        for change in delta.changes:
            if isinstance(change, AllCleared):
                self.unsure(delta.worker_id)
            elif isinstance(change, PagesRemoved):
                back.log.append((back.mark, change.hashes))
                back.bytes += len(change.hashes)
        while back.bytes > MAX_TAKEN_BACK_BYTES:
            mark, hashes = back.log.popleft()
            back.bytes -= len(hashes)
            back.unsure_mark = mark

    def unsure(self, worker_id: WorkerId) -> None:
        """What it holds is not known for certain: its engine is new, or something that it said was missed."""
        back = self._taken_back.setdefault(worker_id, _TakenBack())
        back.mark += 1
        back.unsure_mark = back.mark

    def judged(self, finished: StepFinished, epoch: int) -> tuple[Verdict, Promise] | None:
        """What became of the promise; None: there was none worth it. `epoch`: of the worker's engine now."""
        promise = self._open.get(finished.lease_id)
        if promise is None:
            return None
        back = self._taken_back[promise.worker_id]
        verdict = self._verdict(promise, finished, back, epoch)
        self.off(finished.lease_id)
        return None if verdict is None else (verdict, promise)

    def _verdict(self, promise: Promise, finished: StepFinished, back: _TakenBack, epoch: int) -> Verdict | None:
        expected = promise.expected_tokens
        if expected < LEAST_PAGES * promise.page_tokens:
            return None
        if expected - finished.cached_tokens < BROKEN_SHARE * expected:
            return "kept"
        if back.unsure_mark > promise.mark or epoch != promise.epoch:
            return "excused"
        # The engine stops at the first page that it lacks: that one must have been taken back.
        at = finished.cached_tokens // promise.page_tokens * HASH_BYTES
        missing = promise.chain[at : at + HASH_BYTES]
        removed = any(_has(hashes, missing) for mark, hashes in back.log if mark > promise.mark)
        return "excused" if removed else "broken"

    def _forget(self, worker_id: WorkerId, oldest: Promise | None) -> None:
        back = self._taken_back[worker_id]
        while back.log and (oldest is None or back.log[0][0] <= oldest.mark):
            back.bytes -= len(back.log.popleft()[1])


def _has(hashes: bytes, page: bytes) -> bool:
    at = hashes.find(page)
    while at >= 0 and at % HASH_BYTES:
        at = hashes.find(page, at + 1)
    return at >= 0
