"""Loading ahead in the laboratory: by the live cores, charged by the engine, and only where there is a host tier."""

from msgspec import structs

from saga.sim.runner import simulate
from saga.sim.spec import RunSpec

SPEC = RunSpec("webarena", "saga", "small", 42, pressure=4.0, workers=1, tasks=70, host_tier="on")


def test_with_a_host_tier_some_sessions_are_loaded_ahead_and_nothing_is_left_of_it():
    record = simulate(SPEC, check=True)
    assert record.prefetches > 0
    assert record.failures == 0


def test_without_a_tier_nobody_is():
    assert simulate(structs.replace(SPEC, host_tier="off")).prefetches == 0


def test_nor_by_the_ablation():
    assert simulate(structs.replace(SPEC, system="saga-no-prefetch")).prefetches == 0
