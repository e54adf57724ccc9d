"""`make chaos` in short: two gateways, leaders and standbys, engines and NATS over links that can go bad.

What every machine must hold, however busy: nothing lost, doubled or leaked, one leader, no crash loop. How long clients
wait is measured by the long version (docs/reliability.md).
"""

import pytest
import pytest_asyncio

from saga.chaos.catalogue import FAULTS
from saga.chaos.report import as_line, result_of
from saga.chaos.scenes import LOSSY, Links
from saga.chaos.stage import Size
from saga.chaos.trial import IDLE_WITHIN_S, Timing, tried

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
SIZE = Size(workers=2, slots=3)
CLIENTS = 10
TIMING = Timing(warm_s=2.0, calm_s=1.0, settle_s=3.0, after_s=1.0, hold_s=3.0, whole_within_s=90.0)
BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(tmp_path_factory):
    """One mesh for all: each fault leaves it whole again."""
    async with LOSSY.open(SIZE, tmp_path_factory.mktemp("chaos")) as stage:
        yield stage


async def trial_of(stage, name):
    before = await stage.idle_within(IDLE_WITHIN_S)
    return await tried(stage, SIZE, BY_NAME[name], clients=CLIENTS, seed=1, timing=TIMING, before=before)


@pytest.mark.parametrize("name", ["kill-middle", "kill-gateway", "stop-placement-leader", "bad-bus"])
async def test_under_load_a_fault_loses_doubles_and_leaks_nothing(stage, name):
    trial = await trial_of(stage, name)
    result = result_of(trial, 1)

    assert result.safe, as_line(result)
    assert result.attempts["answered"] == result.steps > CLIENTS
    if name == "stop-placement-leader":
        assert trial.left.leading["placement"] != trial.before.leading["placement"], "the standby leads, and stays"
    if name == "kill-gateway":
        assert result.attempts.get("cut", 0) > 0, "its clients saw it die"
    if name == "bad-bus":
        assert all(stage.prop(Links).touched.values()), "messages were lost, doubled and late"
