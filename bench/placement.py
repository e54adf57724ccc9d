"""What placement decides in a second: one core, no bus, process time.

    python bench/placement.py [--workers 64,1024] [--steps 20000] [--json]

Each worker has 20 sessions at work. A step ends, its session comes back with the next, and one in 20 ends for good: the
next session is new, begins with one of 100 prefixes that some workers hold, and is placed by price. A placement is the
handling of a StepAdmitted up to its Grant; of new sessions, those that are priced, figures are given by themselves.
`per_s` counts all that the core is told meanwhile: leases taken, steps finished, pages stored, heartbeats, ticks.
`--named N`: admission names N workers with room, as it does in a cell; 0: every worker of the pool is a candidate.
"""

import argparse
import gc
import json
import sys
import time
from collections import deque
from random import Random

from saga.contract.ids import GatewayId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import (
    CostModel,
    Grant,
    Heartbeat,
    LeaseTaken,
    Message,
    PagesStored,
    ResidencyDelta,
    StepAdmitted,
    StepFinished,
    StepReady,
    Tag,
    WorkerHello,
)
from saga.kernel.effects import Effect, Promoted, Publish, Received, Tick
from saga.placement.making import Making, make_core

POOL = PoolId("model")
PAGE_TOKENS = 64
PREFIXES, PREFIX_PAGES = 100, 128
HOLDERS = 4  # workers that hold each prefix
SESSIONS_PER_WORKER = 20
ENDS = 1 / 20  # of steps
STEPS_PER_S = 1_000.0  # virtual, so that heartbeats and ticks come as often as they would


class Cell:
    """A placement core, and everybody who talks to it."""

    def __init__(self, workers: int, named: int) -> None:
        making = Making(
            cell="main",
            holder_id="p0",
            policy="saga",
            lookahead_steps=1,
            supersede=True,
            stealing="saga",
            born_s=0.0,
        )
        self.core = make_core(making)
        self.random = Random(7)
        self.now_s = 0.0
        self.spent_s = 0.0  # in the core
        self.homed_s: list[float] = []
        self.priced_s: list[float] = []
        self.running: deque[tuple[Grant, StepReady]] = deque()
        self._named = named
        self._steps = 0
        self._sessions = 0
        self._seq: dict[WorkerId, int] = {}
        self.hellos = [_hello(number) for number in range(workers)]
        self._tell(Promoted(1))
        for hello in self.hellos:
            self._hear(hello)
        for prefix in range(PREFIXES):
            for hello in self.random.sample(self.hellos, min(HOLDERS, workers)):
                self._store(hello.worker_id, _pages(prefix, 0, PREFIX_PAGES))
        for _ in range(SESSIONS_PER_WORKER * workers):
            self._begin()
        self.spent_s = 0.0
        self.homed_s.clear()
        self.priced_s.clear()

    def step(self) -> None:
        """The step that has run for longest ends; its session, or a new one, wants the next."""
        grant, ready = self.running.popleft()
        self.now_s += 1.0 / STEPS_PER_S
        over = self.random.random() < ENDS
        self._hear(_finished(grant, ready, final=over))
        if self._steps % 250 == 0:
            self._tell(Tick())
        if self._steps % int(STEPS_PER_S) == 0:
            for hello in self.hellos:
                self._hear(_beat(hello, self._seq.get(hello.worker_id, 0)))
        if over:
            self._begin()
            return
        pages = (ready.prompt_tokens + 1_000) // PAGE_TOKENS
        base = ready.prompt_tokens // PAGE_TOKENS
        number = int(ready.session.removeprefix("s"))
        fresh = _pages(PREFIXES + number, base, pages)
        self._store(grant.worker_id, fresh)
        tip = (ready.new_hashes or b"")[-8:]
        self._place(number, pages * PAGE_TOKENS, base, tip, fresh, grant.worker_id)

    def _begin(self) -> None:
        self._sessions += 1
        prefix = self.random.randrange(PREFIXES)
        pages = _pages(prefix, 0, PREFIX_PAGES) + _pages(PREFIXES + self._sessions, PREFIX_PAGES, PREFIX_PAGES + 16)
        self._place(self._sessions, (PREFIX_PAGES + 16) * PAGE_TOKENS, 0, b"", pages, WorkerId(""))

    def _place(self, session: int, prompt: int, base: int, tip: bytes, fresh: bytes, home: WorkerId) -> None:
        self._steps += 1
        ready = StepReady(
            step_id=StepId(f"{self._steps:032x}"),
            attempt=0,
            gateway_id=GatewayId("g0"),
            tenant=TenantId("t"),
            root=RootId(f"r{session}"),
            session=SessionId(f"s{session}"),
            pool=POOL,
            prompt_tokens=prompt,
            max_output_tokens=500,
            page_tokens=PAGE_TOKENS,
            base_pages=base,
            base_tip=tip,
            new_hashes=fresh,
        )
        fits: tuple[WorkerId, ...] = ()
        if not home and self._named:
            some = self.random.sample(self.hellos, min(self._named, len(self.hellos)))
            fits = tuple(hello.worker_id for hello in some)
        admitted = StepAdmitted(
            step=ready, tag=Tag(self.now_s, self.now_s, ready.step_id), home=home, fence=1, fits=fits
        )
        begun_s = time.process_time()
        effects = self.core.handle(Received(admitted), self.now_s)
        took_s = time.process_time() - begun_s
        self.spent_s += took_s
        (self.homed_s if home else self.priced_s).append(took_s)
        self._granted(effects, ready)

    def _granted(self, effects: list[Effect], ready: StepReady) -> None:
        for effect in effects:
            if isinstance(effect, Publish) and isinstance(effect.message, Grant):
                self.running.append((effect.message, ready))
                self._hear(_taken(effect.message, ready))

    def _store(self, worker_id: WorkerId, pages: bytes) -> None:
        seq = self._seq[worker_id] = self._seq.get(worker_id, 0) + 1
        self._hear(ResidencyDelta(worker_id=worker_id, epoch=1, seq=seq, changes=(PagesStored(pages),)))

    def _hear(self, message: Message) -> None:
        self._tell(Received(message))

    def _tell(self, event: Received | Tick | Promoted) -> None:
        begun_s = time.process_time()
        self.core.handle(event, self.now_s)
        self.spent_s += time.process_time() - begun_s


def _pages(stream: int, first: int, end: int) -> bytes:
    return b"".join(((stream << 20) + page + 1).to_bytes(8, "little") for page in range(first, end))


def _hello(number: int) -> WorkerHello:
    return WorkerHello(
        worker_id=WorkerId(f"w{number:04d}"),
        engine_url=f"http://w{number}",
        pool=POOL,
        epoch=1,
        page_tokens=PAGE_TOKENS,
        kv_tokens=4_000_000,
        context_tokens=262_144,
        max_running=256,
        session_tags=True,
        cost=CostModel(prompt_s_per_token=1e-4, output_s_per_token=1e-3, context_s_per_token=5e-8),
    )


def _beat(hello: WorkerHello, seq: int) -> Heartbeat:
    return Heartbeat(worker=hello, healthy=True, running=0, waiting=0, used_tokens=0, residency_seq=seq)


def _taken(grant: Grant, ready: StepReady) -> LeaseTaken:
    return LeaseTaken(
        step_id=grant.step_id,
        attempt=0,
        lease_id=grant.lease_id,
        worker_id=grant.worker_id,
        gateway_id=ready.gateway_id,
        tenant=ready.tenant,
        root=ready.root,
        session=ready.session,
        session_tag=grant.session_tag,
        lease_ttl_s=5.0,
        moved_from=grant.moved_from,
    )


def _finished(grant: Grant, ready: StepReady, *, final: bool) -> StepFinished:
    return StepFinished(
        step_id=grant.step_id,
        attempt=0,
        lease_id=grant.lease_id,
        worker_id=grant.worker_id,
        gateway_id=ready.gateway_id,
        tenant=ready.tenant,
        root=ready.root,
        session=ready.session,
        pool=POOL,
        prompt_tokens=ready.prompt_tokens,
        output_tokens=200,
        cached_tokens=0,
        finish_reason="tool_calls",
        tools=("bash",),
        final=final,
    )


def measure(workers: int, steps: int, named: int) -> dict[str, float]:
    """One cell. Times in microseconds."""
    cell = Cell(workers, named)
    gc.collect()
    gc.freeze()
    for _ in range(steps):
        cell.step()
    every_s = sorted(cell.homed_s + cell.priced_s)
    priced_s = sorted(cell.priced_s)
    return {
        "workers": workers,
        "named": named,
        "placements": len(every_s),
        "priced": len(priced_s),
        "per_s": round(len(every_s) / cell.spent_s),
        "p50_us": round(1e6 * every_s[len(every_s) // 2], 1),
        "p99_us": round(1e6 * every_s[int(0.99 * len(every_s))], 1),
        "priced_p50_us": round(1e6 * priced_s[len(priced_s) // 2], 1),
        "priced_p99_us": round(1e6 * priced_s[int(0.99 * len(priced_s))], 1),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="What placement decides in a second.")
    parser.add_argument("--workers", default="64,1024", help="cells to measure (64,1024)")
    parser.add_argument("--steps", type=int, default=20_000, help="steps of each (20000)")
    parser.add_argument("--named", type=int, default=0, help="workers that admission names for a new session; 0: all")
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args()
    found = [measure(int(workers), flags.steps, flags.named) for workers in flags.workers.split(",")]
    if flags.json:
        json.dump(found, sys.stdout, indent=2)
    else:
        for figures in found:
            sys.stdout.write("  ".join(f"{name} {value:,}" for name, value in figures.items()) + "\n")


if __name__ == "__main__":
    main()
