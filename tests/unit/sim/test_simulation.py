import ast
import subprocess
import sys
from fnmatch import fnmatchcase
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

import saga.sim as sim_package
from saga.contract.ids import WorkerId
from saga.sim.bench import Comparison, as_json, compare, count_runs
from saga.sim.clusters import ClusterError
from saga.sim.runner import KV_BOUND, Simulation, simulate
from saga.sim.spec import RunSpec
from saga.sim.systems.registry import SYSTEMS

SPEC = RunSpec("webarena", "saga", "small", 42, pressure=0.6, workers=2, tasks=12)


def settled() -> Simulation:
    """A run, and a second more: the last messages have arrived."""
    simulation = Simulation(SPEC)
    simulation.run()
    simulation.agenda.stopped = False
    simulation.agenda.run(simulation.agenda.now_s + 1.0)
    return simulation


@pytest.mark.parametrize("system", [*SYSTEMS, KV_BOUND])
def test_each_system_drains_with_its_invariants_intact(system: str):
    record = simulate(
        RunSpec("webarena", system, "small", 42, pressure=0.5, workers=2, tasks=12), check=system != KV_BOUND
    )
    assert record.failures == 0
    assert record.conversations == 12
    assert record.steps > 12
    assert record.ended_s > 0


def test_nothing_is_left_when_a_run_has_drained():
    simulation = settled()
    world = simulation.world
    assert len(world.gateway.core._steps) == 0
    assert world.placement.core.board.leases == {}
    assert all(not workflow.steps for workflow in world.admission.core.roster.workflows.values())
    assert len(world.admission.core.book.steps) == 0
    assert all(engine.core.idle for engine in world.engines.values())


def test_the_index_agrees_with_the_engines():
    simulation = settled()
    for worker_id, engine in simulation.world.engines.items():
        held = simulation.world.placement.core.board.index.pages_on(WorkerId(worker_id))
        assert held == engine.core.pool.tree.pages


def test_the_same_seed_gives_the_same_bytes_in_any_process():
    """String hashes differ between the two: no order may depend on them."""
    code = (
        "import sys; from saga.sim.bench import *\n"
        "c = Comparison('webarena', systems=('prefix-aware', 'saga'), workers=2, pressures=(1.2,), tasks=14)\n"
        "sys.stdout.buffer.write(as_json(compare([c], lambda *_: None).report))\n"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].startswith(b'{\n  "runs"')


def test_another_seed_is_another_run():
    other = RunSpec("webarena", "saga", "small", 123, pressure=0.6, workers=2, tasks=12)
    assert simulate(SPEC) != simulate(other)


SMALL = Comparison(workload="webarena", systems=("saga",), workers=2, pressures=(0.3,), tasks=6)


def told_of(comparison: Comparison, **how: Any) -> tuple[bytes, int]:
    """The report's bytes, and how many runs it took."""
    specs: list[RunSpec] = []
    results = compare([comparison], specs.append, **how)
    assert len(specs) == count_runs([comparison])
    return as_json(results.report), len(specs)


def test_processes_do_not_change_the_report():
    assert told_of(SMALL) == told_of(SMALL, jobs=2)


def test_an_interrupted_comparison_goes_on_with_the_runs_it_kept(tmp_path, monkeypatch):
    first = told_of(SMALL, keep=tmp_path)
    monkeypatch.setattr("saga.sim.bench.simulate", None)  # nothing is left to run
    assert told_of(SMALL, keep=tmp_path) == first


def test_a_damaged_kept_run_is_run_again(tmp_path):
    first = told_of(SMALL, keep=tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-7])
    assert told_of(SMALL, keep=tmp_path) == first


def test_a_run_that_is_watched_has_the_same_figures():
    watched, unwatched = simulate(structs.replace(SPEC, detail=True)), simulate(SPEC)
    assert watched.detail is not None
    assert structs.replace(watched, detail=None) == unwatched
    story = [span for span in watched.detail.spans if span.session == "main"]
    assert all(a.end_s == pytest.approx(b.start_s) for a, b in pairwise(story)), "a hole in the story"
    shown = [task for task in watched.measured if task.number == watched.detail.shown]
    assert story[0].start_s == shown[0].submitted_s
    assert story[-1].end_s == shown[-1].ended_s
    assert max(max(sample.held_tokens) for sample in watched.detail.samples) > 0


def test_all_systems_work_on_the_same_tasks():
    first = simulate(SPEC)
    second = simulate(RunSpec("webarena", "round-robin", "small", 42, pressure=0.6, workers=2, tasks=12))
    assert [(t.number, t.turn) for t in first.measured] == [(t.number, t.turn) for t in second.measured]
    assert first.steps == second.steps


def test_the_kv_bound_misses_nothing_and_is_never_slower():
    specs = {
        system: RunSpec("webarena", system, "small", 42, pressure=1.6, workers=1, tasks=40)
        for system in (KV_BOUND, "session-affinity")
    }
    bound, squeezed = simulate(specs[KV_BOUND]), simulate(specs["session-affinity"])
    assert bound.regenerated_tokens == 0
    assert squeezed.regenerated_tokens > 0
    bound_s = sum(task.tct_s for task in bound.measured)
    assert bound_s < sum(task.tct_s for task in squeezed.measured)


def test_a_host_tier_loads_back_what_was_prefilled_again_without_it():
    off = RunSpec("webarena", "session-affinity", "small", 42, pressure=2.0, workers=1, tasks=40)
    without, with_it = simulate(off, check=True), simulate(structs.replace(off, host_tier="on"), check=True)
    assert without.loaded_back_tokens == 0
    assert without.regenerated_tokens > 0
    assert with_it.loaded_back_tokens > 0
    assert with_it.regenerated_tokens < without.regenerated_tokens / 2
    assert sum(task.tct_s for task in with_it.measured) < sum(task.tct_s for task in without.measured)


def test_a_shared_tier_brings_what_other_engines_have_computed():
    host = RunSpec("webarena", "round-robin", "small", 42, pressure=0.5, workers=2, tasks=70, host_tier="on")
    alone, shared = simulate(host, check=True), simulate(structs.replace(host, host_tier="shared"), check=True)
    assert alone.shared_loaded_tokens == 0
    assert shared.shared_loaded_tokens > 0
    assert shared.regenerated_tokens < alone.regenerated_tokens / 10
    assert len(shared.measured) >= 10
    assert sum(task.tct_s for task in shared.measured) < sum(task.tct_s for task in alone.measured)


def test_a_shared_tier_that_the_cluster_lacks_is_refused_before_anything_runs(tmp_path):
    cluster = tmp_path / "cluster.toml"
    cluster.write_text('name = "apart"\nprofile = "a100x4-llama3-70b"\nworkers = 2\n')
    asked = Comparison("webarena", cluster=str(cluster), systems=("saga",), pressures=(1.0,), host_tiers=("shared",))
    with pytest.raises(ClusterError, match=r"cluster apart has no \[shared_tier\]"):
        compare([asked], told=lambda _: None)


def test_a_host_tier_that_the_profile_lacks_is_refused_before_anything_runs(tmp_path):
    profile = (resources.files("saga.engine") / "profiles" / "a100x4-llama3-70b.toml").read_text()
    bare = "\n".join(line for line in profile.splitlines() if not line.startswith("host_"))
    (tmp_path / "bare.toml").write_text(bare)
    cluster = tmp_path / "cluster.toml"
    cluster.write_text(f'name = "bare"\nprofile = "{tmp_path}/bare.toml"\nworkers = 1\n')
    asked = Comparison("webarena", cluster=str(cluster), systems=("saga",), pressures=(1.0,), host_tiers=("off", "on"))
    with pytest.raises(ClusterError, match="no host_kv_tokens"):
        compare([asked], told=lambda _: None)


def test_without_a_graph_service_all_goes_on_as_with_default_forecasts():
    said = RunSpec("webarena", "saga-no-forecasts", "small", 42, pressure=2.0, workers=1, tasks=40)
    defaults, unsaid = simulate(said, check=True), simulate(structs.replace(said, system="saga-no-graph"), check=True)
    assert unsaid.failures == 0
    assert unsaid.steps == defaults.steps
    assert [task.tct_s for task in unsaid.measured] == pytest.approx([task.tct_s for task in defaults.measured])


def test_what_cannot_drain_ends_at_the_horizon_and_counts_as_failed():
    record = simulate(RunSpec("swe-bench", "saga", "small", 42, pressure=0.6, workers=2, tasks=12, horizon_s=30.0))
    assert record.failures == 12
    assert record.ended_s <= 30.0


def test_open_loop_arrivals_that_outrun_the_cluster_are_unstable():
    slow = simulate(RunSpec("webarena", "saga", "small", 42, per_min=1.0, workers=1, tasks=24))
    fast = simulate(RunSpec("webarena", "saga", "small", 42, per_min=600.0, workers=1, tasks=24))
    assert not slow.unstable
    assert fast.unstable
    assert fast.failures == 0


def test_the_laboratory_runs_cores_not_shells():
    """As .importlinter says, and for shells that it cannot name by pattern."""
    root = Path(sim_package.__path__[0])
    for path in root.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("saga."):
                last = node.module.rpartition(".")[2]
                shells = ("service", "http_*", "zmq_*", "*_metrics", "__main__")
                assert not any(fnmatchcase(last, shell) for shell in shells)
                assert not node.module.startswith("saga.runtime")


def test_with_preemption_every_task_ends_with_its_invariants_intact():
    spec = structs.replace(SPEC, system="saga-preempts", pressure=4.0, workers=1, tasks=30, host_tier="on")

    assert simulate(spec, check=True).failures == 0
