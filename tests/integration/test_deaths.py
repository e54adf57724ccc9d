"""Any one process may die during a replay: no step fails, no text changes, no lease is left over."""

import asyncio
import time

import pytest
import pytest_asyncio
from mesh_replay import STEPS, TakeOver, ends_of, leader_of, leases_of_agents, metric_of, replay

from saga.cli.mesh import Mesh, MeshSettings
from saga.placement.lease_accounts import ENDS

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(150)]
SESSIONS = 8
METRICS = {"SAGA_METRICS_PORT": "0"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(tmp_path_factory):
    """One mesh for all deaths: each test leaves it whole again."""
    settings = MeshSettings(
        workers=2,
        profile="h100x1-llama3-8b",
        page_tokens=16,
        state_dir=tmp_path_factory.mktemp("mesh"),
        env={"placement": METRICS, "admission": METRICS},
    )
    async with Mesh(settings) as mesh:
        yield mesh


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(mesh):
    """What the sessions answer when nothing dies."""
    answers = await replay(mesh.gateway_url, SESSIONS, "undisturbed")
    assert all(len(answer) == 40 for session in answers for answer in session)
    return answers


@pytest.mark.parametrize("victim", ["engine-0", "worker-0", "placement", "admission", "graph", "nats"])
async def test_a_death_during_a_replay_fails_no_step_and_leaks_no_lease(mesh, undisturbed, victim):
    name = await leader_of(mesh, victim) if victim in ("placement", "admission") else victim
    running = asyncio.create_task(replay(mesh.gateway_url, SESSIONS, f"without-{victim}"))
    await asyncio.sleep(1.2)
    pid = mesh.kill(name)

    assert await running == undisturbed
    await mesh.wait_ready(20)
    assert mesh.processes[name] != pid
    ends = await ends_of(mesh, f"without-{victim}")
    assert len(ends) == SESSIONS * STEPS, "no step is lost"
    assert set(ends.values()) == {1}, "and none is done twice"

    await nothing_is_left(mesh)


@pytest.mark.parametrize("service", ["placement", "admission"])
async def test_a_standby_takes_over_within_two_seconds(mesh, undisturbed, service):
    running = asyncio.create_task(replay(mesh.gateway_url, SESSIONS, f"over-{service}"))
    await asyncio.sleep(1.2)
    async with TakeOver(mesh, service) as hears:
        leader = await leader_of(mesh, service)
        killed_s = time.monotonic()
        mesh.kill(leader)

        assert await hears.after_s(killed_s) < 2.0
    assert await running == undisturbed
    await mesh.wait_ready(20)


async def nothing_is_left(mesh: Mesh) -> None:
    """Leases end with their steps; what died meanwhile is found out within the protocol's five seconds."""
    async with asyncio.timeout(12):
        while True:
            agents = await leases_of_agents(mesh)
            placement = await metric_of(mesh, await leader_of(mesh, "placement"), "saga_placement_leases")
            admission = await metric_of(mesh, await leader_of(mesh, "admission"), "saga_admission_steps")
            if not any(agents.values()) and placement == admission == 0:
                break
            await asyncio.sleep(0.5)
    leader = await leader_of(mesh, "placement")
    granted, *ended = [await metric_of(mesh, leader, f"saga_leases_{name}") for name in ("granted", *ENDS)]
    assert granted == sum(ended) > 0, "every lease has ended, and each is accounted for"
