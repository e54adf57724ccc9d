"""What the graph service costs: its core's events a second, how late a forecast is, and the memory of what it follows.

    python bench/graph_service.py [--steps 200000] [--workflows 100000] [--quick] [--json]

Steps of 2,000 concurrent workflows of 20 tenants with 5 agent classes each: 37 steps on average, gaps log-normal by
tool, one session in ten a sub-agent. Each step is two events, StepReady and StepFinished; every StepFinished is
answered by a forecast. Goals: 20,000 events/s in one process, a forecast within 5 ms (P99) of its event, 100,000 live
workflows in 1 GiB. Rates are of process time; a yardstick beside them, 20 turns of a loop, tells how busy the machine
was: half a microsecond where nothing else runs. `best`: of the fastest tenth of windows of 100 events, which is what
the core does when it is left alone. Latencies are wall time, once of the core alone and once with decoding before
and encoding after it, with models stored every 10 s as in service. Memory is measured in a process of its own, with
workflows half way through their steps.
"""

import argparse
import gc
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random

from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import AnyMessage, StepFinished, StepReady, decode, encode
from saga.graph.making import Making, make_core
from saga.graph.state import GraphState
from saga.kernel.effects import Effect, Publish, Received, Tick, WakeAt

TENANTS, CLASSES, CONCURRENT = 20, 5, 2_000
MEAN_STEPS = 37.0
SUB_AGENTS = 0.1
TOOLS = (("bash", 0.18), ("read", 0.05), ("edit", 0.1), ("grep", 0.12), ("web", 0.85), ("test", 20.0), ("sql", 0.12))
STEPS_A_S = 500.0  # of virtual time; sets how often models are stored
WINDOW = 100  # events


class Agent:
    """One session, drawn from a seed."""

    def __init__(self, number: int, random: Random) -> None:
        tenant = random.randrange(TENANTS)
        self.tenant = TenantId(f"tenant-{tenant}")
        self.root = RootId(f"{self.tenant}/{random.getrandbits(128):032x}")
        self.is_sub = random.random() < SUB_AGENTS
        self.parent = SessionId(self.root) if self.is_sub else SessionId("")
        self.session = SessionId(f"{self.root}/sub" if self.is_sub else self.root)
        self.agent_class = f"{tenant * CLASSES + random.randrange(CLASSES):016x}"
        self.left = max(1, round(random.gammavariate(2, MEAN_STEPS / 2)))
        self.prompt_tokens = random.randint(2_000, 20_000)
        self.pace = random.lognormvariate(0.0, 0.5)
        self.gap_s = -1.0
        self.number = number

    def step(self, random: Random, at: float) -> tuple[StepReady, StepFinished]:
        """Its next one."""
        step_id = StepId(f"{random.getrandbits(128):032x}")
        tool, median_s = random.choice(TOOLS)
        self.left -= 1
        self.prompt_tokens += random.randint(100, 2_000)
        ready = StepReady(
            step_id=step_id,
            attempt=0,
            gateway_id=GatewayId("gateway"),
            tenant=self.tenant,
            root=self.root,
            session=self.session,
            parent=self.parent,
            pool=PoolId("model"),
            agent_class=self.agent_class,
            prompt_tokens=self.prompt_tokens,
            max_output_tokens=4_096,
            page_tokens=64,
            new_hashes=random.randbytes(128),
            gap_s=self.gap_s,
            at=at,
        )
        finished = StepFinished(
            step_id=step_id,
            attempt=0,
            lease_id=LeaseId(step_id[:20]),
            worker_id=WorkerId("worker"),
            gateway_id=GatewayId("gateway"),
            tenant=self.tenant,
            root=self.root,
            session=self.session,
            parent=self.parent,
            pool=PoolId("model"),
            agent_class=self.agent_class,
            prompt_tokens=self.prompt_tokens,
            output_tokens=random.randint(50, 500),
            cached_tokens=0,
            finish_reason="tool_calls" if self.left else "stop",
            tools=(tool,) if self.left else (),
            gap_s=self.gap_s,
            engine_s=random.uniform(0.5, 3.0),
            at=at,
        )
        self.gap_s = self.pace * random.lognormvariate(0.0, 1.2) * median_s
        return ready, finished


def steps(count: int, seed: int) -> Iterator[tuple[StepReady, StepFinished]]:
    """Steps of concurrent workflows, each replaced by a new one when it ends."""
    random = Random(seed)
    agents = [Agent(number, random) for number in range(CONCURRENT)]
    for number in range(count):
        at = random.randrange(CONCURRENT)
        if not agents[at].left:
            agents[at] = Agent(number, random)
        yield agents[at].step(random, 1e9 + number / STEPS_A_S)


def core() -> GraphState:
    """As the service makes it."""
    return make_core(Making(cell="bench", forecast="saga"))


class Clock:
    """Feeds a core in virtual time and wakes it when it asks."""

    def __init__(self, state: GraphState) -> None:
        self.state = state
        self.wake_s = float("inf")

    def tick(self, now_s: float) -> float:
        """Let it store what is due; returns the longest single call in seconds."""
        longest_s = 0.0
        while self.wake_s <= now_s:
            self.wake_s = float("inf")
            begun_s = time.perf_counter()
            self.note(self.state.handle(Tick(), now_s))
            longest_s = max(longest_s, time.perf_counter() - begun_s)
        return longest_s

    def note(self, effects: Sequence[Effect]) -> None:
        """Remember when it wants to be woken."""
        for effect in effects:
            if isinstance(effect, WakeAt):
                self.wake_s = min(self.wake_s, effect.at_s)


def rates(count: int, warm: int) -> dict[str, float]:
    """Events a second of process time, and seconds per part of the shell's work."""
    made = list(steps(warm + count, 1))
    payloads = [encode(message) for pair in made[warm:] for message in pair]
    state = core()
    clock = Clock(state)
    for number, pair in enumerate(made[:warm]):
        for each in pair:
            clock.note(state.handle(Received(each), number / STEPS_A_S))
        clock.tick(number / STEPS_A_S)
    events = [Received(message) for pair in made[warm:] for message in pair]
    gc.collect()
    forecasts = []
    windows_s = []
    begun_s = window_s = time.process_time()
    for number, event in enumerate(events, 2 * warm):
        if number % WINDOW == 0:
            windows_s.append(time.process_time() - window_s)
            window_s += windows_s[-1]
        now_s = number / 2 / STEPS_A_S
        effects = state.handle(event, now_s)
        if effects:
            forecasts += effects
            clock.note(effects)
            clock.tick(now_s)
    core_s = time.process_time() - begun_s
    state.check()
    begun_s = time.process_time()
    for payload in payloads:
        decode(payload)
    decode_s = time.process_time() - begun_s
    said = [effect.message for effect in forecasts if isinstance(effect, Publish)]
    begun_s = time.process_time()
    for forecast in said:
        encode(forecast)
    encode_s = time.process_time() - begun_s
    return {
        "yardstick_us": yardstick_us(),
        "steps": count,
        "forecasts": len(said),
        "core_events_per_s": round(len(events) / core_s),
        "core_best_events_per_s": round(WINDOW / sorted(windows_s[1:])[len(windows_s) // 10]),
        "core_us_per_event": round(1e6 * core_s / len(events), 1),
        "decode_us_per_event": round(1e6 * decode_s / len(events), 1),
        "encode_us_per_forecast": round(1e6 * encode_s / max(1, len(said)), 1),
        "shell_and_core_events_per_s": round(len(events) / (core_s + decode_s + encode_s)),
    }


def latencies(count: int, warm: int) -> dict[str, float]:
    """Wall time from a StepFinished to its forecast, in milliseconds; the queue behind a tick counts."""
    state = core()
    clock = Clock(state)
    core_ms: list[float] = []
    whole_ms: list[float] = []
    late_s = longest_tick_s = 0.0
    for number, (ready, finished) in enumerate(steps(warm + count, 2)):
        now_s = number / STEPS_A_S
        state.handle(Received(ready), now_s)
        payload = encode(finished)
        begun_s = time.perf_counter()
        message: AnyMessage = decode(payload)
        core_s = time.perf_counter()
        effects = state.handle(Received(message), now_s)
        done_s = time.perf_counter()
        for effect in effects:
            if isinstance(effect, Publish):
                encode(effect.message)
        end_s = time.perf_counter()
        clock.note(effects)
        if number >= warm:
            core_ms.append(1e3 * (done_s - core_s))
            whole_ms.append(1e3 * (end_s - begun_s + late_s))
        late_s = clock.tick(now_s)
        longest_tick_s = max(longest_tick_s, late_s)
    core_ms.sort()
    whole_ms.sort()
    return {
        "core_p50_ms": round(core_ms[len(core_ms) // 2], 3),
        "core_p99_ms": round(core_ms[len(core_ms) * 99 // 100], 3),
        "forecast_p99_ms": round(whole_ms[len(whole_ms) * 99 // 100], 3),
        "forecast_max_ms": round(whole_ms[-1], 3),
        "longest_tick_ms": round(1e3 * longest_tick_s, 3),
    }


def memory(workflows: int) -> dict[str, float]:
    """Resident memory that so many live workflows add, half way through. Run in a process of its own."""
    random = Random(3)
    state = core()
    before = resident()
    nodes = 0
    for number in range(workflows):
        agent = Agent(number, random)
        for _ in range(max(1, agent.left // 2)):
            for message in agent.step(random, 1e9 + number):
                state.handle(Received(decode(encode(message))), number / STEPS_A_S)
            nodes += 1
    state.check()
    added = resident() - before
    return {
        "workflows": len(state.workflows),
        "nodes": sum(len(aeg.nodes) for aeg in state.workflows.values()),
        "steps": nodes,
        "mib": round(added / (1 << 20)),
        "bytes_per_workflow": round(added / workflows),
        "process_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def yardstick_us() -> float:
    """Process time of a short loop: the median of many."""
    took = []
    for _ in range(2_001):
        begun_s = time.process_time()
        _ = [n * 2 for n in range(20)]
        took.append(time.process_time() - begun_s)
    return round(1e6 * sorted(took)[1_000], 2)


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


def main(argv: Iterable[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="rate, latency and memory of the graph service's core")
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--workflows", type=int, default=100_000)
    parser.add_argument("--quick", action="store_true", help="a twentieth of everything")
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args(None if argv is None else list(argv))
    count, workflows = (flags.steps // 20, flags.workflows // 20) if flags.quick else (flags.steps, flags.workflows)
    figures = {}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for name, job in (
            ("rates", pool.submit(rates, count, count // 4)),
            ("latencies", pool.submit(latencies, count // 2, count // 4)),
            ("memory", pool.submit(memory, workflows)),
        ):
            figures[name] = job.result()
            if not flags.json:
                print(name, "  ".join(f"{key} {value}" for key, value in figures[name].items()), flush=True)
    if flags.json:
        print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
