"""`saga bench live` on real meshes: the ideal is what an engine with unlimited KV does, and systems are compared."""

import io
import json

from rich.console import Console

from saga.cli.mesh import Mesh, MeshSettings
from saga.load.bench_live import bench_live
from saga.load.cli import main
from saga.load.settings import BenchSettings
from saga.sim.fitted_sessions import generate


async def test_unlimited_kv_reaches_the_printed_ideal_within_a_point(tmp_path):
    mesh_settings = MeshSettings(
        workers=1,
        profile="h100x1-llama3-8b",
        speed=40.0,
        shrink=4,
        page_tokens=16,
        state_dir=tmp_path / "mesh",
        env={"engine": {"SAGA_ENGINE_KV_TOKENS": "50000000"}},
    )
    out = io.StringIO()
    async with Mesh(mesh_settings) as mesh:
        settings = BenchSettings(
            workload="swe-bench",
            limit=8,
            max_steps=8,
            gap_cap_s=4.0,
            target=mesh.gateway_url,
            json=tmp_path / "out.json",
        )
        code = await bench_live(settings, generate, Console(file=out), Console(file=io.StringIO()))
    document = json.loads((tmp_path / "out.json").read_bytes())
    (system,) = document["systems"]
    assert (code, system["steps_failed"], system["errors"]) == (0, 0, [])
    assert system["steps"] == document["plan"]["steps"] >= 8
    assert system["prompt_length_mismatches"] == 0
    assert system["ideal_hit_rate"] > 0.6
    assert abs(system["hit_rate"] - system["ideal_hit_rate"]) <= 0.01
    assert (document["run"]["speed"], document["run"]["shrink"]) == (40.0, 4)


def test_two_systems_on_the_same_tasks(tmp_path, capsys):
    file = tmp_path / "out.json"
    argv = "live --workload swe-bench --limit 4 --max-steps 3 --gap-cap 2 --shrink 16 --speed 20 --workers 2 --json"
    assert main([*argv.split(), str(file)]) == 0
    document = json.loads(file.read_bytes())
    systems = document["systems"]
    assert [system["system"] for system in systems] == ["session-affinity", "saga"]
    for system in systems:
        assert (system["steps"], system["steps_failed"], system["tasks"]) == (document["plan"]["steps"], 0, 4)
        assert system["tct_s"]["count"] == 4
        assert system["control_ms"]["count"] > 0
        assert system["engine_lag_p99_fraction"] is not None
    printed = capsys.readouterr().out
    assert "session-affinity" in printed
    assert "TCT mean" in printed
