"""Quotas in virtual time: a published workload, with the cores of all services, under quotas that bite."""

from saga.admission.events import TenantChanged
from saga.contract.tenants import TenantTerms
from saga.sim.runner import Simulation
from saga.sim.spec import RunSpec

SPEC = RunSpec("swe-bench", "saga", "small", 42, pressure=1.5, workers=2, tasks=12)


def run(terms: TenantTerms) -> tuple[float, int, int]:
    """Seconds it took, most steps of a tenant at a time, most of its active workflows at a time."""
    simulation = Simulation(SPEC)
    admission = simulation.world.admission
    tenants = tuple(simulation.made.workload.weights)
    for tenant in tenants:
        admission.tell(TenantChanged(tenant, terms))
    handle, books = admission.core.handle, admission.core.roster.tenants
    most = {"steps": 0, "workflows": 0}

    def watched(event, now_s):
        effects = handle(event, now_s)
        for tenant in tenants:
            most["steps"] = max(most["steps"], len(books.of(tenant).running))
            most["workflows"] = max(most["workflows"], len(books.of(tenant).active))
        return effects

    admission.core.handle = watched
    record = simulation.run()
    admission.core.handle = handle
    admission.core.check()
    assert record.failures == 0
    return record.ended_s, most["steps"], most["workflows"]


def test_quotas_hold_and_slow_a_tenant_down_and_every_task_ends():
    free_s, free_steps, free_workflows = run(TenantTerms())
    steps_s, steps, _ = run(TenantTerms(running_steps=2))
    workflows_s, _, workflows = run(TenantTerms(active_workflows=3))

    assert free_steps > 2
    assert free_workflows > 3
    assert (steps, workflows) == (2, 3)
    assert steps_s > free_s
    assert workflows_s > free_s
