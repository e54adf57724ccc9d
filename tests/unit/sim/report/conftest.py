"""A report made by hand, as rich as a real one: three loads, two host tiers, three seeds, details, odd names."""

import math
from random import Random

import pytest

from saga.sim.detail import RunDetail, Sample, Span
from saga.sim.figures import Report, Run, Spread, Tail, ratios
from saga.sim.report.cache_results import CacheReport, CacheResult

SEEDS = (42, 123, 456)
# mean TCT at pressure 0.5, 1, 2 as a multiple of the bound, without host tier
SYSTEMS = {
    "round-robin": (1.01, 2.6, 8.9),
    "least-loaded": (1.01, 2.5, 8.6),
    "session-affinity": (1.0, 2.2, 7.65),
    "prefix-aware": (1.0, 2.1, 7.1),
    "affinity+cap": (1.0, 1.37, 2.02),
    "srpt+affinity": (1.0, 1.42, 2.3),
    "kv-ttl": (1.0, 2.0, 7.3),
    "saga": (1.0, 1.2, 1.61),
}
BOUND_S = {0.5: 478.0, 1.0: 649.0, 2.0: 774.0}


def make_run(system: str, pressure: float | None, seed: int, mean_s: float, bound_s: float, **changed: object) -> Run:
    ratio = mean_s / bound_s
    fields: dict[str, object] = {
        "workload": "swe-bench",
        "system": system,
        "cluster": "small",
        "seed": seed,
        "pressure": pressure,
        "load": None,
        "host_tier": "off",
        "peak_tasks_per_min": None,
        "tct_s": Spread(mean_s, mean_s * 0.9, mean_s * 1.8, mean_s * 2.4),
        "slowdown": Tail(ratio * 0.9, ratio * 2.1),
        "slo_attainment": 1.0 if ratio < 1.1 else max(0.0, 1.3 - ratio / 2),
        "hit_rate": 0.97 / ratio**0.3,
        "regenerated_tokens": int(4e6 * (ratio - 1.0) ** 2),
        "useful_kv_share": 0.8 / ratio**0.2,
        "tasks_per_min": 4.0 / ratio,
        "ttft_s": Tail(0.4 * ratio, 9.0 * ratio),
        "kv_bound_ratio": ratio,
        "unstable": False,
        "failures": 0,
        "users": 40,
        "tasks_measured": 118,
        "steps": 4_000,
        "retractions": 0,
        "refusals": 0,
        "dropped_sessions": 0,
        "virtual_s": 9_000.0,
    }
    return Run(**(fields | changed))  # type: ignore[arg-type]


def make_report(systems: dict[str, tuple[float, ...]] = SYSTEMS, *, cluster: str = "small") -> Report:
    runs = []
    for at, (pressure, bound_s) in enumerate(BOUND_S.items()):
        for tier in ("off", "on"):
            for number, seed in enumerate(SEEDS):
                for system, multiples in systems.items():
                    multiple = 1 + (multiples[at] - 1) * (0.45 if tier == "on" else 1.0)
                    shift = 1.0 + 0.03 * number * (multiple - 1) * (1 if system == "saga" else -1)
                    mean_s = bound_s * multiple * shift
                    runs.append(make_run(system, pressure, seed, mean_s, bound_s, host_tier=tier, cluster=cluster))
    return Report(tuple(runs), ratios(runs))


def make_detail(system: str, multiple: float, *, lanes: int = 3, tenants: int = 3) -> RunDetail:
    random = Random(f"{system}/7")
    samples = []
    workers = ("w0", "w1", "w2", "w3")
    for number in range(300):
        share = min(1.0, number / 40) * (1.0 if number < 260 else (300 - number) / 40)
        held = [int(449_000 * share * random.uniform(0.5, 0.8)) for _ in workers]
        samples.append(
            Sample(
                at_s=number * 10.0 * multiple,
                held_tokens=tuple(held),
                cached_tokens=tuple(int((449_000 - tokens) * min(1.0, number / 60)) for tokens in held),
                running=(8,) * 4,
                waiting=(2,) * 4,
                active=32,
                queued=9,
                service_s=tuple(number * 10.0 * (tenant + 1) for tenant in range(tenants)),
            )
        )
    tct_s = sorted(math.exp(random.gauss(math.log(600 * multiple), 0.5)) for _ in range(118))
    return RunDetail(
        workload="swe-bench",
        system=system,
        cluster="small",
        seed=42,
        pressure=2.0,
        load=None,
        host_tier="off",
        workers=workers,
        tenants=tuple(f"tenant-{number}" for number in range(tenants)),
        kv_tokens=449_000,
        samples=tuple(samples),
        shown=51,
        spans=tuple(_spans(system, lanes, multiple)),
        tct_s=tuple(tct_s),
        slowdowns=tuple(sorted(multiple * math.exp(random.gauss(0, 0.3)) for _ in tct_s)),
    )


def _spans(system: str, lanes: int, multiple: float) -> list[Span]:
    found = []
    for lane in range(lanes):
        random, now_s = Random(f"{system}/{lane}"), 900.0 + 60.0 * lane
        session = "main" if lane == 0 else f"explore-{lane}"
        for step in range(12):
            worker = f"w{(lane + step // 5) % 4}"
            cached = 0.0 if step in {0, 7} else 0.93
            for doing, took_s in (
                ("queued", random.expovariate(0.2) * (multiple - 1)),
                ("waiting", random.expovariate(0.5) * multiple),
                ("prefill", 4.0 - 3.5 * cached),
                ("decode", random.uniform(3.0, 12.0)),
                ("tool", random.expovariate(0.1)),
            ):
                on = worker if doing in {"prefill", "decode"} else ""
                note = "bash" if doing == "tool" else ""
                found.append(Span(session, doing, now_s, now_s + took_s, on, step, cached, note))  # type: ignore[arg-type]
                now_s += took_s
    return found


def make_cache() -> CacheReport:
    results = []
    for capacity, oracle, lru, causal in ((1_000_000, 40e6, 160e6, 90e6), (4_000_000, 12e6, 60e6, 30e6)):
        for policy, closed in (("lru", 0.0), ("walru", 0.3), ("ttl", 0.1), ("saga", 0.7)):
            tokens = int(lru - closed * (lru - causal))
            results.append(CacheResult(policy, capacity, tokens, int(oracle), tokens / oracle, closed, int(causal)))
    return CacheReport(tuple(results))


@pytest.fixture(scope="session")
def report() -> Report:
    """All systems, pressures 0.5, 1 and 2, host tier off and on, three seeds."""
    return make_report()


@pytest.fixture(scope="session")
def details() -> list[RunDetail]:
    """Three systems at pressure 2."""
    return [make_detail("saga", 1.6), make_detail("affinity+cap", 2.0), make_detail("session-affinity", 7.6)]


@pytest.fixture(scope="session")
def ablation() -> Report:
    """Ours with three parts taken away."""
    return make_report(
        {
            "saga": SYSTEMS["saga"],
            "saga-no-tags": (1.0, 1.35, 2.0),
            "saga-home-only": (1.0, 1.22, 1.7),
            "saga-lof": (1.0, 1.15, 1.58),
        }
    )


@pytest.fixture(scope="session")
def cache() -> CacheReport:
    """Four policies at two sizes."""
    return make_cache()
