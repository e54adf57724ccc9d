"""What admission decides in a second while thousands wait: one core, no bus, process time.

    python bench/admission.py [--workers 8,64] [--waiting 10000] [--tenants 1000] [--decisions 20000] [--json]

`waiting` workflows of `tenants` tenants have a step outside the active set; those inside end a step, come back with
the next, and one in 30 ends for good, so that the oldest that waits takes its place and a new one joins the line. A
decision is the handling of a StepReady or a StepFinished: who joins, who is paused, which tag. `per_s` counts all that
the core is told meanwhile: leases taken, heartbeats, beats of gateways that name every waiting step each second, ticks.
`pool`, one budget for all workers, is what `saga`, a budget for each, replaced: `ratio` compares both in this one run.
"""

import argparse
import gc
import json
import sys
import time
from collections import deque
from random import Random

from saga.admission.making import Making, make_core
from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, SessionTag, StepId, TenantId, WorkerId
from saga.contract.messages import (
    CostModel,
    GatewayBeat,
    Heartbeat,
    LeaseTaken,
    Message,
    StepAdmitted,
    StepFinished,
    StepReady,
    WaitingStep,
    WorkerHello,
)
from saga.kernel.effects import Effect, Promoted, Publish, Received, Tick

POOL = PoolId("model")
GATEWAY = GatewayId("gateway-0")
KV_TOKENS = 600_000  # of a worker
PROMPT_TOKENS = 4_000, 30_000
GROWTH_TOKENS = 800
ENDS = 1 / 30  # of steps
STEPS_PER_S = 500.0  # virtual, so that beats and ticks come as often as they would


class Cell:
    """An admission core, and everybody who talks to it."""

    def __init__(self, policy: str, workers: int, tenants: int) -> None:
        making = Making(
            cell="main", policy=policy, wall_offset_s=0.0, max_waiting_steps=10**9, max_wait_s=1e9, weights={}
        )
        self.core = make_core(making)
        self.now_s = 0.0
        self.random = Random(7)
        self.tenants = tenants
        self.spent_s = 0.0  # in the core
        self.decided_s: list[float] = []
        self.running: deque[StepReady] = deque()
        self.waiting: dict[StepId, None] = {}
        self._steps = 0
        self._roots = 0
        self.hellos = [
            WorkerHello(
                worker_id=WorkerId(f"worker-{number}"),
                engine_url="http://engine",
                pool=POOL,
                epoch=1,
                page_tokens=64,
                kv_tokens=KV_TOKENS,
                context_tokens=32_768,
                max_running=256,
                session_tags=True,
                cost=CostModel(prompt_s_per_token=1e-4, output_s_per_token=1e-2),
            )
            for number in range(workers)
        ]
        self.core.handle(Promoted(1), 0.0)
        for hello in self.hellos:
            self.tell(hello)

    def tell(self, message: Message, *, decides: bool = False) -> None:
        """The core hears it; what it admits runs."""
        begun_s = time.process_time()
        effects = self.core.handle(Received(message), self.now_s)
        took_s = time.process_time() - begun_s
        self.spent_s += took_s
        if decides:
            self.decided_s.append(took_s)
        self._perform(effects)

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Publish) and isinstance(effect.message, StepAdmitted):
                self._start(effect.message)

    def _start(self, admitted: StepAdmitted) -> None:
        step = admitted.step
        if self.waiting.pop(step.step_id, 0) == 0:
            return
        worker = admitted.home or self.random.choice(self.hellos).worker_id
        self.tell(
            LeaseTaken(
                step_id=step.step_id,
                attempt=0,
                lease_id=LeaseId(worker),
                worker_id=worker,
                gateway_id=GATEWAY,
                tenant=step.tenant,
                root=step.root,
                session=step.session,
                session_tag=SessionTag(""),
                lease_ttl_s=5.0,
            )
        )
        self.running.append(step)

    def arrive(self, root: int | None = None, prompt_tokens: int = 0) -> None:
        """The next step of a workflow, or the first of a new one."""
        if root is None:
            self._roots += 1
            root, prompt_tokens = self._roots, self.random.randint(*PROMPT_TOKENS)
        self._steps += 1
        step_id = StepId(f"{self._steps:032x}")
        ready = StepReady(
            step_id=step_id,
            attempt=0,
            gateway_id=GATEWAY,
            tenant=TenantId(f"tenant-{root % self.tenants}"),
            root=RootId(str(root)),
            session=SessionId(str(root)),
            pool=POOL,
            prompt_tokens=prompt_tokens,
            max_output_tokens=500,
            page_tokens=64,
        )
        self.waiting[step_id] = None
        self.tell(ready, decides=True)

    def end(self) -> None:
        """The step that has run longest ends, and its workflow goes on or is over."""
        step = self.running.popleft()
        final = self.random.random() < ENDS
        worker = self.core.roster.workflows[step.root].sessions[step.session].home
        finished = StepFinished(
            step_id=step.step_id,
            attempt=0,
            lease_id=LeaseId(worker),
            worker_id=worker,
            gateway_id=GATEWAY,
            tenant=step.tenant,
            root=step.root,
            session=step.session,
            pool=POOL,
            prompt_tokens=step.prompt_tokens,
            output_tokens=300,
            cached_tokens=step.prompt_tokens - 300,
            finish_reason="tool_calls",
            final=final,
        )
        self.tell(finished, decides=True)
        if final:
            self.arrive()
        else:
            grown = step.prompt_tokens + GROWTH_TOKENS
            self.arrive(int(step.root), grown if grown < PROMPT_TOKENS[1] else PROMPT_TOKENS[0])
        before_s, self.now_s = self.now_s, self.now_s + 1 / STEPS_PER_S
        if int(4 * self.now_s) > int(4 * before_s):
            self._every_quarter(whole=int(self.now_s) > int(before_s))

    def _every_quarter(self, *, whole: bool) -> None:
        if whole:
            for hello in self.hellos:
                self.tell(Heartbeat(worker=hello, healthy=True, running=0, waiting=0, used_tokens=0, residency_seq=0))
            names = [WaitingStep(step_id=i, attempt=0, waited_s=0.1) for i in self.waiting]
            names += [WaitingStep(step_id=step.step_id, attempt=0, waited_s=0.1) for step in self.running]
            for first in range(0, len(names), 500):  # as many gateways
                self.tell(GatewayBeat(gateway_id=GATEWAY, waiting=tuple(names[first : first + 500])))
        begun_s = time.process_time()
        effects = self.core.handle(Tick(), self.now_s)
        self.spent_s += time.process_time() - begun_s
        self._perform(effects)


def measure(policy: str, workers: int, waiting: int, tenants: int, decisions: int) -> dict[str, float]:
    """One cell. Times in microseconds."""
    cell = Cell(policy, workers, tenants)
    while len(cell.waiting) < waiting:
        cell.arrive()
    cell.decided_s.clear()
    cell.spent_s = 0.0
    while len(cell.decided_s) < decisions:
        cell.end()
    cell.core.check()
    took = sorted(cell.decided_s)
    return {
        "workers": workers,
        "waiting": len(cell.waiting),
        "active": len(cell.core.roster.pool(POOL).active),
        "p50_us": 1e6 * took[len(took) // 2],
        "p99_us": 1e6 * took[len(took) * 99 // 100],
        "max_us": 1e6 * took[-1],
        "per_s": len(took) / cell.spent_s,
    }


def main() -> int:
    """Prints a table, or JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workers", default="8,64")
    parser.add_argument("--waiting", type=int, default=10_000)
    parser.add_argument("--tenants", type=int, default=1_000)
    parser.add_argument("--decisions", type=int, default=20_000)
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args()
    gc.disable()  # as the services: what a core makes is freed by reference counts
    rows = []
    for workers in map(int, flags.workers.split(",")):
        pair = {p: measure(p, workers, flags.waiting, flags.tenants, flags.decisions) for p in ("pool", "saga")}
        ratio = pair["saga"]["per_s"] / pair["pool"]["per_s"]
        rows += [{"policy": name, **row, "ratio": ratio if name == "saga" else 1.0} for name, row in pair.items()]
    if flags.json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return 0
    for row in rows:
        cells = (f"{key} {value:,.0f}" for key, value in row.items() if key not in ("policy", "ratio"))
        sys.stdout.write(f"{row['policy']:5}  {'  '.join(cells)}  ratio {row['ratio']:.2f}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
