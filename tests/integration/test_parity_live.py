"""What the live cores were told in a small mesh, told to fresh ones in another process: the same answers."""

import asyncio
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import aiohttp
import pytest
from mesh_replay import leader_of, model_of, opening, replay

from saga.cli.mesh import Mesh, MeshSettings
from saga.contract.subjects import kv_bucket
from saga.contract.tenants import TERMS_BUCKET, TenantTerms, write_row
from saga.runtime.bus_nats import NatsBus
from saga.sim.measured import measure
from saga.sim.replayed import Moment
from saga.sim.replayed import replay as replay_file

pytestmark = pytest.mark.timeout(120)
SERVICES = {"admission": 2, "placement": 2, "graph": 1, "gateway": 1, "worker": 2}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """A mesh that lives through sessions, a client that leaves, the death of an engine and of a leader."""
    folder = tmp_path_factory.mktemp("recordings")
    asyncio.run(_live(tmp_path_factory.mktemp("mesh"), folder))
    return folder


async def _live(state_dir: Path, folder: Path) -> None:
    settings = MeshSettings(workers=2, profile="h100x1-llama3-8b", page_tokens=16, speed=4.0, state_dir=state_dir)
    async with Mesh(settings, environ=os.environ | {"SAGA_RECORD": str(folder)}) as mesh:
        await _agree(mesh.nats_url, TenantTerms(running_steps=2, active_workflows=2, weight=2.0))
        await replay(mesh.gateway_url, 3, "calm")
        await _agree(mesh.nats_url, None)
        await _leave_early(mesh.gateway_url)
        stormy = asyncio.create_task(replay(mesh.gateway_url, 4, "stormy"))
        await asyncio.sleep(0.4)
        mesh.kill("engine-0")
        mesh.kill(await leader_of(mesh, "admission"))
        await stormy
        await asyncio.sleep(1.5)  # a beat of everybody


async def _agree(nats_url: str, terms: TenantTerms | None) -> None:
    bus = await NatsBus.connect(nats_url, name="test")
    rows = await bus.kv(kv_bucket("main", TERMS_BUCKET))
    await (rows.delete("default") if terms is None else rows.put("default", write_row(terms)))
    await bus.drain()


async def _leave_early(url: str) -> None:
    async with aiohttp.ClientSession() as http:
        body = {"model": await model_of(http, url), "prompt": opening(99), "max_tokens": 20_000, "stream": True}
        async with http.post(f"{url}/v1/completions", json=body | {"ignore_eos": True}) as response:
            assert response.status == 200
            await response.content.readany()


@pytest.mark.parametrize("service", SERVICES)
def test_a_fresh_core_answers_what_the_live_one_answered(service: str, recordings: Path):
    files = sorted(recordings.glob(f"{service}.*"))
    assert len(files) >= SERVICES[service]

    verdicts = [replay_file(file) for file in files]

    for verdict in verdicts:
        assert verdict.difference is None, verdict.difference
    assert sum(verdict.events for verdict in verdicts) > 50
    assert sum(verdict.effects for verdict in verdicts) > 20


def test_the_recordings_hold_what_happened(recordings: Path):
    seen: Counter[str] = Counter()

    def told(moment: Moment) -> None:
        message = getattr(moment.event, "message", None)
        seen[type(moment.event).__name__ if message is None else type(message).__name__] += 1

    terms = []
    for file in recordings.iterdir():
        before = seen["TenantChanged"]
        replay_file(file, told)
        if file.name.startswith("admission."):
            terms.append(seen["TenantChanged"] - before)

    assert seen["Submitted"] == 7 * 6 + 1
    assert seen["StepCancelled"] > 0
    assert seen["EngineGone"] >= 1
    # The leader that was killed may have lost its last second, and with it the word that the terms are gone.
    # The one that was started in its place finds none.
    killed, lived = sorted(terms)[-2:]
    assert lived == 2, "they came and went"
    assert killed >= 1, "they came"
    assert seen["Promoted"] >= 3, "the first leaders, and one that took over"
    assert {
        "Restored",
        "Completed",
        "Sending",
        "StepReady",
        "Grant",
        "ResidencyDelta",
        "KvEvents",
        "Settle",
    } <= set(seen)


def test_times_on_the_way_can_be_read_off_them(recordings: Path):
    measured = measure(recordings)

    assert set(measured.hops) == {"gateway to admission", "admission to placement", "placement to gateway"}
    for hop in measured.hops.values():
        assert hop.count > 20
        assert 0 < hop.median_s < 0.1
    assert set(measured.starts_s) >= {"default/calm-0", "default/stormy-3"}
    assert min(measured.starts_s.values()) == 0
    assert measured.engine_s > 0


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_with_other_hashes_answers_alike(hash_seed: str, recordings: Path):
    """No answer depends on the order of a set of strings."""
    command = [sys.executable, "-m", "saga.cli.main", "replay", "--quiet", *map(str, sorted(recordings.iterdir()))]

    done = subprocess.run(
        command, env=os.environ | {"PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": the same\n") == len(list(recordings.iterdir()))
