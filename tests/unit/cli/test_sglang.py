"""The command line of a real SGLang server, and the mesh that has real servers in place of simulated ones."""

import json
from pathlib import Path
from random import Random

from saga.cli.plan import MeshSettings, plan
from saga.cli.sglang import PROVEN_VERSION, SglangSettings, beside, flags, on_sglang, ports_for, server
from saga.worker.http_sglang import PROVEN_VERSION as worker_proves  # noqa: N811 - to tell them apart

MODEL = "some/model"


def flag(given: list[str], name: str) -> str:
    return given[given.index(name) + 1]


def test_a_server_can_be_a_worker():
    ports = ports_for(1, Random(1))[0]

    given = flags(SglangSettings(model=MODEL), ports)

    assert flag(given, "--model-path") == MODEL
    assert flag(given, "--port") == str(ports.http)
    assert int(flag(given, "--page-size")) >= 16
    events = json.loads(flag(given, "--kv-events-config"))
    assert events["publisher"] == "zmq"
    assert events["bind"] is True
    assert events["endpoint"].endswith(f":{ports.events}")
    assert events["replay_endpoint"].endswith(f":{ports.replay}")
    assert {"--enable-session-radix-cache", "--enable-cache-report", "--enable-metrics"} <= set(given)
    assert "--device" not in given
    assert "--max-total-tokens" not in given


def test_each_thing_can_be_left_out_and_extra_flags_win():
    made = SglangSettings(
        model=MODEL, cpu=True, kv_events=False, session_tags=False, kv_tokens=4_096, extra=("--page-size", "32")
    )

    given = flags(made, ports_for(1, Random(2))[0])

    assert "--kv-events-config" not in given
    assert "--enable-session-radix-cache" not in given
    assert flag(given, "--max-total-tokens") == "4096"
    assert flag(given, "--device") == "cpu"
    assert given[-2:] == ["--page-size", "32"]


def test_a_folder_is_served_by_its_own_name_and_needs_no_network(tmp_path):
    made = SglangSettings(model=str(tmp_path), python=Path("/env/bin/python"), env={"A": "b"})

    spec = server("engine-0", made, ports_for(1, Random(3))[0])

    assert flag(list(spec.argv), "--served-model-name") == tmp_path.name
    assert "/env/bin/python" in spec.argv
    assert spec.env == {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "A": "b"}
    assert "--served-model-name" not in server("e", SglangSettings(model=MODEL), ports_for(1, Random(3))[0]).argv


def test_a_mesh_on_real_servers_differs_only_in_its_engines():
    simulated = plan(MeshSettings(workers=2), Random(4))
    ports = ports_for(2, Random(5))

    real = on_sglang(simulated, SglangSettings(model=MODEL), ports)

    assert [spec.name for spec in real.specs] == [spec.name for spec in simulated.specs]
    by_name = {spec.name: spec for spec in real.specs}
    for number, at in enumerate(ports):
        assert "sglang.launch_server" in by_name[f"engine-{number}"].argv
        assert by_name[f"worker-{number}"].env["SAGA_WORKER_ENGINE_URL"] == at.url
    assert by_name["worker-0"].env["SAGA_WORKER_ID"] == "w0"
    assert real.engine_urls == tuple(at.url for at in ports)
    assert real.gateway_url == simulated.gateway_url
    assert [spec for spec in real.specs if spec.name.startswith(("gateway", "graph", "admission", "placement"))] == [
        spec for spec in simulated.specs if spec.name.startswith(("gateway", "graph", "admission", "placement"))
    ]
    assert len({number for at in ports for number in (at.http, at.events, at.replay)}) == 6


def test_a_mesh_beside_servers_of_others_starts_none():
    simulated = plan(MeshSettings(workers=2), Random(6))

    attached = beside(simulated, ["http://h:1", "http://h:2"])

    names = [spec.name for spec in attached.specs]
    assert names == [spec.name for spec in simulated.specs if not spec.name.startswith("engine-")]
    by_name = {spec.name: spec for spec in attached.specs}
    assert by_name["worker-1"].env["SAGA_WORKER_ENGINE_URL"] == "http://h:2"
    assert by_name["worker-1"].env["SAGA_WORKER_ID"] == "w1"
    assert attached.engine_urls == ("http://h:1", "http://h:2")


def test_all_that_names_the_proven_release_names_the_same():
    root = Path(__file__).parents[3]
    pinned = (root / "tests" / "real_sglang" / "environment" / "requirements.txt").read_text().split()

    assert worker_proves == PROVEN_VERSION
    assert f"sglang=={PROVEN_VERSION}" in pinned


def test_the_gateway_of_a_model_folder_gets_its_tokenizer(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    simulated = plan(MeshSettings(workers=1, env={"gateway": {"A": "b"}}), Random(4))

    def gateway(mesh):
        return next(spec.env for spec in mesh.specs if spec.name == "gateway")

    real = on_sglang(simulated, SglangSettings(model=str(tmp_path), served_name="mine"), ports_for(1, Random(5)))
    assert gateway(real)["SAGA_GATEWAY_TOKENIZERS"] == f"mine={tmp_path}"
    assert gateway(real)["A"] == "b"
    assert "SAGA_GATEWAY_TOKENIZERS" not in gateway(
        on_sglang(simulated, SglangSettings(model="somewhere/else"), ports_for(1, Random(5)))
    )
