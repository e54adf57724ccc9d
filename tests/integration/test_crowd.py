"""More workflows at once than fit: each is answered in full, and every lease has ended."""

import asyncio

import pytest

from saga.cli.mesh import Mesh, MeshSettings
from saga.load.client import GatewayClient
from saga.load.crowd import Crowd, Shape
from saga.load.mesh_metrics import ANY_PORT, leases_of
from saga.placement.lease_accounts import ENDS

pytestmark = pytest.mark.timeout(240)
KV_TOKENS = 131_072  # of each engine: some fifty workflows


async def test_two_hundred_workflows_at_once_are_all_answered_and_leave_no_lease(tmp_path):
    settings = MeshSettings(
        workers=2,
        profile="h100x1-llama3-8b",
        page_tokens=16,
        speed=4.0,
        state_dir=tmp_path / "mesh",
        env={"engine": {"SAGA_ENGINE_KV_TOKENS": str(KV_TOKENS)}, "placement": ANY_PORT},
    )
    shape = Shape(workflows=200, steps=3, gap_s=0.5)
    async with Mesh(settings) as mesh:
        async with GatewayClient(mesh.gateway_url) as client:
            (model,) = await client.models()
            outcome = await Crowd(client, model.id, shape, seed=1).run()

        assert outcome.errors == {}
        assert (outcome.completed, outcome.steps) == (200, 600)
        assert outcome.most_open == 200
        assert outcome.waited.get("inactive", 0) > 0, "they did not fit all at once"
        async with asyncio.timeout(12):
            while (leases := await leases_of(mesh))["live"]:
                await asyncio.sleep(0.2)
        assert leases["granted"] == sum(leases[end] for end in ENDS)
        assert leases["finished"] == 600
        assert mesh.restarts == dict.fromkeys(mesh.restarts, 0)
