"""Honest workers in the laboratory, under KV pressure that evicts all the time: nobody is put aside."""

import pytest

from saga.sim.runner import Simulation
from saga.sim.spec import RunSpec


@pytest.mark.parametrize("system", ["saga", "saga-no-active-set"])
def test_workers_that_evict_under_pressure_are_believed(system):
    simulation = Simulation(RunSpec("swe-bench", system, "small", 42, pressure=4.0, workers=4, tasks=120))
    simulation.run()
    trust = simulation.world.placement.core.trust
    conducts = [trust.conduct(worker_id) for worker_id in simulation.world.workers]

    assert dict(trust.barred()) == {}
    assert trust.quarantined_so_far == 0
    assert sum(conduct.judged for conduct in conducts) > 500
    assert max(conduct.broken_share for conduct in conducts) < 0.2
