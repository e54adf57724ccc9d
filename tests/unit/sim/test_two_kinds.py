"""One pool on machines of two generations: each takes what it can, and no more."""

from functools import cache

import pytest

from saga.sim.clusters import ClusterError, load_cluster, other_profiles
from saga.sim.runner import Simulation
from saga.sim.spec import RunRecord, RunSpec

CLUSTER = "two-kinds"


@cache
def run(system: str, pressure: float) -> tuple[Simulation, RunRecord]:
    simulation = Simulation(RunSpec("swe-bench", system, CLUSTER, 1001, pressure=pressure, tasks=60))
    record = simulation.run()
    simulation.world.check()
    return simulation, record


def steps_by_worker(simulation: Simulation) -> dict[str, int]:
    return {worker_id: host.core.stats.finished for worker_id, host in simulation.world.engines.items()}


def test_the_pool_is_as_large_as_its_machines_together():
    simulation, _ = run("saga", 0.5)

    sizes = [host.core.profile.kv_tokens for host in simulation.world.engines.values()]

    assert sizes == [448_000, 448_000, 1_326_992]


def test_a_faster_machine_with_more_kv_does_more_of_the_work():
    simulation, record = run("saga", 0.5)

    slow, other_slow, fast = steps_by_worker(simulation).values()

    assert record.failures == 0
    assert fast > 2 * max(slow, other_slow)


def test_machines_of_another_model_are_no_part_of_the_pool(tmp_path):
    path = tmp_path / "odd.toml"
    path.write_text(
        'name = "odd"\nprofile = "a100x4-llama3-70b"\nworkers = 1\n'
        'others = [{ profile = "h100x1-llama3-8b", workers = 1 }]\n'
    )
    cluster, profile = load_cluster(str(path))

    with pytest.raises(ClusterError, match=r"odd: model 'meta-llama/Llama-3\.1-8B"):
        other_profiles(cluster, profile)
