"""Where processes run that have machines of their own, and where others reach them."""

from pathlib import Path
from random import Random

import pytest

from saga.chaos.machines import Machines
from saga.cli.plan import MeshSettings, plan


@pytest.fixture
def planned():
    return plan(MeshSettings(workers=2, gateways=2, state_dir=Path("state")), Random(1))


def machines(*groups):
    made = Machines(groups, str)
    made._nats_urls = {name: f"nats://{name}" for group in groups for name in group}
    return made


def by_name(planned):
    return {spec.name: spec for spec in planned.specs}


def port_of(url):
    return url.rsplit(":", 1)[1]


def test_an_engine_on_another_machine_is_told_of_by_its_address_there(planned):
    moved = machines(("worker-1", "engine-1")).rewritten(planned)
    specs = by_name(moved)

    assert moved.engine_urls[0] == planned.engine_urls[0]
    assert moved.engine_urls[1] == f"http://10.213.0.2:{port_of(planned.engine_urls[1])}"
    assert specs["engine-1"].env["SAGA_ENGINE_HOST"] == "10.213.0.2"
    assert specs["worker-1"].env["SAGA_WORKER_ENGINE_URL"] == moved.engine_urls[1]
    assert specs["worker-1"].argv[:3] == ("ip", "netns", "exec")
    assert specs["worker-1"].env["SAGA_NATS_URL"] == "nats://worker-1"
    assert specs["worker-0"] == by_name(planned)["worker-0"]


def test_a_gateway_on_another_machine_finds_the_engines_that_are_here(planned):
    moved = machines(("gateway-1",)).rewritten(planned)
    specs = by_name(moved)

    assert moved.gateway_url == planned.gateway_url
    assert moved.more_gateway_urls == (f"http://10.213.0.2:{port_of(planned.more_gateway_urls[0])}",)
    assert specs["gateway-1"].env["SAGA_GATEWAY_HOST"] == "10.213.0.2"
    for url in moved.engine_urls:
        assert url.startswith("http://10.213.0.1:"), "our end of the gateway's wire"


def test_machines_have_wires_of_their_own():
    made = machines(("placement-0",), ("placement-1",))
    first, second = made.of("placement-0"), made.of("placement-1")
    assert made.of("graph") is None
    ends = {machine.there(wire) for machine in (first, second) for wire in ("front", "back")}
    assert len(ends) == 4
