"""Which processes make a mesh."""

from pathlib import Path
from random import Random

import pytest

from saga.cli.plan import SYSTEMS, MeshSettings, free_ports, plan
from saga.runtime.errors import StartError
from saga.sim.systems.registry import make_system


def test_a_mesh_has_its_engines_with_their_workers_and_standbys():
    settings = MeshSettings(workers=2, profile="p", speed=10, shrink=16, page_tokens=16, state_dir=Path("state"))
    planned = plan(settings, Random(1))
    by_name = {spec.name: spec for spec in planned.specs}

    assert sorted(by_name) == [
        "admission-0",
        "admission-1",
        "engine-0",
        "engine-1",
        "gateway",
        "graph",
        "placement-0",
        "placement-1",
        "worker-0",
        "worker-1",
    ]
    engine, worker = by_name["engine-1"], by_name["worker-1"]
    assert engine.argv[1:] == ("-m", "saga.engine")
    assert engine.env == {
        "SAGA_ENGINE_PORT": planned.engine_urls[1].rsplit(":", 1)[1],
        "SAGA_ENGINE_PROFILE": "p",
        "SAGA_ENGINE_SPEED": "10",
        "SAGA_ENGINE_SHRINK": "16",
        "SAGA_ENGINE_PAGE_TOKENS": "16",
    }
    assert worker.env == {
        "SAGA_WORKER_ID": "w1",
        "SAGA_WORKER_ENGINE_URL": planned.engine_urls[1],
        "SAGA_WORKER_JOURNAL": str(Path("state").absolute() / "worker-1.journal"),
        "SAGA_WORKER_RETENTION": "saga",
    }
    assert planned.gateway_url == f"http://127.0.0.1:{by_name['gateway'].env['SAGA_GATEWAY_PORT']}"


def test_several_gateways_have_a_name_and_a_port_each_and_the_first_has_the_one_asked_for():
    planned = plan(MeshSettings(workers=1, gateways=3, gateway_port=18080), Random(1))
    gateways = {spec.name: spec.env["SAGA_GATEWAY_PORT"] for spec in planned.specs if spec.name.startswith("gateway")}

    urls = (planned.gateway_url, *planned.more_gateway_urls)
    assert list(gateways) == ["gateway-0", "gateway-1", "gateway-2"]
    assert urls == tuple(f"http://127.0.0.1:{port}" for port in gateways.values())
    assert len(set(urls)) == 3
    assert gateways["gateway-0"] == "18080"


def test_a_mesh_without_a_gateway_is_refused():
    with pytest.raises(StartError, match="one gateway"):
        plan(MeshSettings(gateways=0))


def test_a_console_is_started_where_it_is_asked_for():
    planned = plan(MeshSettings(workers=1, console_port=0), Random(1))
    without = plan(MeshSettings(workers=1), Random(1))

    (console,) = [spec for spec in planned.specs if spec.name == "console"]
    assert planned.console_url == f"http://127.0.0.1:{console.env['SAGA_CONSOLE_PORT']}"
    assert without.console_url == ""
    assert "console" not in [spec.name for spec in without.specs]


def test_the_gateway_is_ended_first_and_the_engines_last():
    specs = sorted(plan(MeshSettings(workers=1)).specs, key=lambda spec: spec.stop_rank)

    assert [spec.name.split("-")[0] for spec in specs] == [
        "gateway",
        "admission",
        "admission",
        "placement",
        "placement",
        "graph",
        "worker",
        "engine",
    ]


@pytest.mark.parametrize("router", ["round-robin", "least-loaded", "prefix-aware", "session-affinity"])
def test_baselines_have_engines_that_start_what_is_cached_longest_first(router: str):
    by_name = {spec.name: spec.env for spec in plan(MeshSettings(workers=1, system=router)).specs}

    assert by_name["placement-0"]["SAGA_PLACEMENT_POLICY"] == router
    assert by_name["admission-0"]["SAGA_ADMISSION_POLICY"] == "open"
    assert by_name["engine-0"]["SAGA_ENGINE_SCHEDULE"] == "lpm"
    assert make_system(router, 1).engine.schedule == "lpm", "as in the laboratory"


def test_a_system_is_a_choice_of_policies_and_each_can_be_overridden():
    settings = MeshSettings(system="session-affinity", retention_policy="tags", env={"graph": {"SAGA_GRAPH_X": "1"}})
    by_name = {spec.name: spec.env for spec in plan(settings).specs}

    assert by_name["admission-1"]["SAGA_ADMISSION_POLICY"] == SYSTEMS["session-affinity"]["SAGA_ADMISSION_POLICY"]
    assert by_name["placement-0"] == {"SAGA_PLACEMENT_POLICY": "session-affinity", "SAGA_PLACEMENT_ID": "placement-0"}
    assert by_name["worker-0"]["SAGA_WORKER_RETENTION"] == "tags"
    assert by_name["graph"] == {"SAGA_GRAPH_X": "1"}
    without = {spec.name: spec.env for spec in plan(MeshSettings(system="saga-no-forecasts")).specs}
    assert without["graph"] == {"SAGA_GRAPH_FORECAST": "defaults"}
    assert without["worker-0"]["SAGA_WORKER_RETENTION"] == "saga"


def test_settings_that_make_no_mesh_are_refused():
    with pytest.raises(StartError, match="unknown system 'best'; known are least-loaded, prefix-aware, round-robin"):
        plan(MeshSettings(system="best"))
    with pytest.raises(StartError, match="at least one worker"):
        plan(MeshSettings(workers=0))


def test_free_ports_differ():
    assert len(set(free_ports(20, Random(3)))) == 20
