"""A cell whose NATS has a user for each service, as `saga nats-users` writes them: it works, and nobody may do more."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from mesh_replay import opening

from saga.cli.mesh import Mesh, MeshSettings
from saga.cli.nats_users import configuration, password_variable
from saga.contract.ids import GatewayId, RootId, SessionId, TenantId, WorkerId
from saga.contract.messages import Message, ResendSteps, WorkflowEnded
from saga.contract.permissions import ROLES
from saga.contract.subjects import Subjects, kv_bucket
from saga.runtime.bus_nats import NatsBus
from saga.runtime.errors import BusUnavailable, StartError
from saga.runtime.nats_access import NatsAccess
from saga.runtime.nats_server import NatsServer

pytestmark = pytest.mark.timeout(180)
SUBJECTS = Subjects()


def password(role: str) -> str:
    return f"secret-of-{role}"


def access(role: str) -> NatsAccess:
    return NatsAccess(role, password(role))


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A NATS that lets nobody in without a password."""
    config = tmp_path / "users.conf"
    config.write_text(configuration("main"))
    environ = {password_variable(role): password(role) for role in ROLES}
    server = NatsServer(tmp_path / "nats", config=config, environ=environ)
    await server.start()
    yield server
    await server.stop()


def environment(folder: Path, role: str) -> dict[str, str]:
    file = folder / f"{role}.password"
    file.write_text(password(role) + "\n")
    return {"SAGA_NATS_USER": role, "SAGA_NATS_PASSWORD_FILE": str(file)}


async def saga(server: NatsServer, environ: dict[str, str], *words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "saga.cli.main",
        *words,
        env=os.environ | {"SAGA_NATS_URL": server.url} | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_a_mesh_needs_nothing_that_its_users_may_not(guarded: NatsServer, tmp_path: Path):
    roles = [role for role in ROLES if role != "operator"]
    settings = MeshSettings(
        workers=2,
        page_tokens=16,
        live_keys=True,
        console_port=0,
        leaders=2,
        nats_url=guarded.url,
        state_dir=tmp_path / "state",
        env={role: environment(tmp_path, role) for role in roles},
    )
    operator = environment(tmp_path, "operator")
    async with Mesh(settings) as mesh, aiohttp.ClientSession() as http:
        code, key = await saga(guarded, operator, "keys", "create", "acme")
        assert code == 0, key
        headers = {"Authorization": f"Bearer {key.split()[-1]}", "X-Saga-Workflow": "w", "X-Saga-Explain": "1"}
        for turn in range(3):
            body = {"model": await model(http, mesh, headers), "prompt": opening(3 + turn), "max_tokens": 4}
            async with http.post(f"{mesh.gateway_url}/v1/completions", json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                step = answer.headers["X-Saga-Step"]
        for words in (
            ["why", step],
            ["why", "0" * 32],
            ["workers"],
            ["drain", "w0", "--wait"],
            ["drain", "w0", "--undo"],
        ):
            code, said = await saga(guarded, operator, *words)
            assert code == int(words[1:] == ["0" * 32]), said
        code, said = await saga(guarded, operator, "tenants", "usage", "acme")
        assert code == 0, said
        async with http.get(f"{mesh.console_url}/api/state") as shown:
            assert [row[2] for row in (await shown.json())["workflows"]] == ["acme"]
        async with http.get(f"{mesh.console_url}/api/workflow?root=w") as shown:
            assert "no_graph" not in (told := await shown.json()) or told["no_graph"] == ""
        watch = ("top", "--once")
        for command in (("graph", "classes"), ("workers",), watch, ("drain", "w1"), ("drain", "w1", "--undo")):
            code, said = await saga(guarded, operator, *command)
            assert code == 0, said
        said = "".join(log.read_text() for log in sorted(mesh.log_dir.glob("*.log")))
    assert "bus.refused" not in said, [line for line in said.splitlines() if "bus.refused" in line][:5]


async def model(http: aiohttp.ClientSession, mesh: Mesh, headers: dict[str, str]) -> str:
    async with asyncio.timeout(40.0):  # until the gateway has heard of the key
        while True:
            async with http.get(f"{mesh.gateway_url}/v1/models", headers=headers) as response:
                if response.status == 200:
                    return str((await response.json())["data"][0]["id"])
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("role", ["", "gateway", "nobody"])
async def test_a_wrong_password_or_none_stops_the_start_and_says_which_setting(guarded: NatsServer, role: str):
    with pytest.raises(StartError, match=r"refuses .*SAGA_NATS_USER"):
        await NatsBus.connect(guarded.url, access=NatsAccess(role, "wrong" if role else ""))


@pytest.mark.parametrize(
    ("role", "subject"),
    [
        ("gateway", SUBJECTS.step_admitted()),
        ("worker", SUBJECTS.step_admitted()),
        ("graph", SUBJECTS.gateway(GatewayId("g0"))),
        ("placement", SUBJECTS.step_admitted()),
        ("operator", SUBJECTS.sessions_released(WorkerId("w0"))),
        ("worker", SUBJECTS.leader_hello()),
    ],
)
async def test_nobody_says_what_only_another_service_may(guarded: NatsServer, role: str, subject: str, until):
    """Not heard by the one who listens there, while what that role may say is."""
    heard: list[Message] = []
    listeners = {"placement.admitted": "placement", "gateway": "admission", "worker.release": "placement"}
    listener = next((role for part, role in listeners.items() if f".{part}" in subject), "gateway")
    bus = await NatsBus.connect(guarded.url, access=access(listener))
    intruder = await NatsBus.connect(guarded.url, access=access(role))
    own = await NatsBus.connect(guarded.url, access=access("gateway"))
    admission = await NatsBus.connect(guarded.url, access=access("admission"))
    try:
        await bus.subscribe(_wild(subject), lambda told: heard.append(told.message))
        ended: list[Message] = []
        await admission.subscribe(SUBJECTS.workflow_ended(), lambda told: ended.append(told.message))
        for each in (bus, admission):
            await each.barrier()

        await intruder.publish(subject, ResendSteps(service="placement", fence=1, step_ids=()))
        await intruder.barrier()
        await own.publish(SUBJECTS.workflow_ended(), _ended())
        await until(lambda: bool(ended))

        await bus.barrier()
        assert heard == []
    finally:
        for each in (bus, intruder, own, admission):
            await each.close()


async def test_a_service_reads_and_writes_no_bucket_of_another(guarded: NatsServer):
    operator = await NatsBus.connect(guarded.url, access=access("operator"))
    worker = await NatsBus.connect(guarded.url, access=access("worker"))
    gateway = await NatsBus.connect(guarded.url, access=access("gateway"))
    try:
        keys = await operator.kv(kv_bucket("main", "keys"))
        await keys.put("0123456789ab", b"{}")

        entry = await (await gateway.kv(kv_bucket("main", "keys"))).get("0123456789ab")
        assert entry is not None, "gateways read keys"
        assert entry.value == b"{}"
        with pytest.raises(BusUnavailable):
            await (await gateway.kv(kv_bucket("main", "keys"))).put("0123456789ab", b"{1}")
        with pytest.raises(BusUnavailable):
            await worker.kv(kv_bucket("main", "keys"))
        kept = await keys.get("0123456789ab")
        assert kept is not None
        assert kept.value == b"{}"
    finally:
        for each in (operator, worker, gateway):
            await each.close()


def _wild(subject: str) -> str:
    """As the service that listens there does."""
    family = {
        SUBJECTS.gateway(GatewayId("g0")): SUBJECTS.every_gateway(),
        SUBJECTS.sessions_released(WorkerId("w0")): SUBJECTS.every_sessions_released(),
    }
    return family.get(subject, subject)


def _ended() -> WorkflowEnded:
    return WorkflowEnded(tenant=TenantId("t"), root=RootId("t/r"), session=SessionId("t/s"))
