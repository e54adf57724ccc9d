"""The supervisor: starts, watches, restarts and ends exactly what it started. With fake services, real processes."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from random import Random

import pytest

from saga.cli.child import ProcessSpec
from saga.cli.mesh import Mesh, MeshSettings
from saga.cli.plan import Plan, free_ports
from saga.cli.probe import ready_answer
from saga.runtime.bus_nats import NatsBus
from saga.runtime.errors import StartError

FAKE = Path(__file__).with_name("fake_service.py")


def fake(
    tmp_path: Path, name: str, kind: str = "plain", *more: str, rank: int = 1, grace_s: float = 5.0
) -> ProcessSpec:
    """One fake service."""
    return ProcessSpec(
        name=name,
        argv=(sys.executable, str(FAKE), kind, *more),
        env={"FAKE_JOURNAL": str(tmp_path / "journal"), "FAKE_NAME": name},
        stop_rank=rank,
        grace_s=grace_s,
    )


def mesh_of(tmp_path: Path, *specs: ProcessSpec, within_s: float = 20.0) -> Mesh:
    """A mesh of a fake gateway and these."""
    (port,) = free_ports(1, Random())
    gateway = fake(tmp_path, "gateway", "gateway", str(port), rank=0)
    processes = Plan(specs=(*specs, gateway), gateway_url=f"http://127.0.0.1:{port}", engine_urls=())
    return Mesh(MeshSettings(state_dir=tmp_path / "state", ready_within_s=within_s), processes=processes)


def mesh_without_gateway(tmp_path: Path, *specs: ProcessSpec) -> Mesh:
    """A mesh that never gets ready."""
    processes = Plan(specs=specs, gateway_url="http://127.0.0.1:1", engine_urls=())
    return Mesh(MeshSettings(state_dir=tmp_path / "state", ready_within_s=20), processes=processes)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def pids_below(parent: int) -> list[int]:
    """Children of a process."""
    tasks = Path(f"/proc/{parent}/task").iterdir()
    return [int(pid) for task in tasks for pid in (task / "children").read_text().split()]


async def test_a_mesh_starts_and_ends_what_it_started_in_order(tmp_path):
    mesh = mesh_of(tmp_path, fake(tmp_path, "worker", rank=4), fake(tmp_path, "graph", rank=3))

    async with mesh:
        processes = mesh.processes
        assert set(processes) == {"nats", "gateway", "worker", "graph"}
        assert all(alive(pid) for pid in processes.values())
        assert await ready_answer(mesh.gateway_url) == ""
        bus = await NatsBus.connect(mesh.nats_url)
        assert bus.connected
        await bus.close()

    assert not any(alive(pid) for pid in processes.values())
    assert mesh.processes == {}
    assert (tmp_path / "journal").read_text().split() == ["gateway", "graph", "worker"]
    assert {path.name for path in mesh.log_dir.glob("*.log")} == {
        "nats.log",
        "gateway.log",
        "worker.log",
        "graph.log",
    }


async def test_what_dies_is_started_again(tmp_path, until):
    async with mesh_of(tmp_path, fake(tmp_path, "worker")) as mesh:
        url = mesh.nats_url
        for name in ("worker", "gateway", "nats"):
            pid = mesh.kill(name)
            await until(lambda name=name, pid=pid: mesh.processes.get(name, pid) != pid)
        await mesh.wait_ready(10)

        assert mesh.restarts["worker"] == mesh.restarts["gateway"] == 1
        bus = await NatsBus.connect(url)
        await bus.close()


async def test_a_child_that_cannot_start_stops_everything_with_its_message(tmp_path):
    mesh = mesh_without_gateway(tmp_path, fake(tmp_path, "engine", "refuse"))

    with pytest.raises(StartError, match="saga engine: unknown profile 'x'; known are a, b"):
        await mesh.__aenter__()

    assert mesh.processes == {}


async def test_a_child_that_keeps_dying_stops_everything_with_its_log(tmp_path):
    mesh = mesh_without_gateway(tmp_path, fake(tmp_path, "engine", "broken"))

    with pytest.raises(StartError, match=r"engine keeps dying: .*this is broken.*engine\.log"):
        await mesh.__aenter__()

    assert mesh.processes == {}


async def test_a_child_that_does_not_stop_is_killed_after_its_grace(tmp_path):
    async with mesh_of(tmp_path, fake(tmp_path, "engine", "stubborn", grace_s=0.3)) as mesh:
        pids = list(mesh.processes.values())
        started_s = time.monotonic()

    assert not any(alive(pid) for pid in pids)
    assert time.monotonic() - started_s < 5


async def test_two_meshes_do_not_share_a_state_directory(tmp_path):
    async with mesh_of(tmp_path) as mesh:
        with pytest.raises(StartError, match="another mesh runs in"):
            await mesh_of(tmp_path).__aenter__()
        assert await ready_answer(mesh.gateway_url) == ""


async def test_children_end_when_their_supervisor_is_killed(tmp_path, until):
    program = f"""
        import asyncio, sys
        sys.path.insert(0, {str(FAKE.parent)!r})
        from pathlib import Path
        import test_up
        async def main():
            tmp_path = Path({str(tmp_path)!r})
            async with test_up.mesh_of(tmp_path, test_up.fake(tmp_path, "worker")) as mesh:
                print(*mesh.processes.values(), flush=True)
                await asyncio.sleep(60)
        asyncio.run(main())
    """
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(program), stdout=subprocess.PIPE
    )
    assert supervisor.stdout is not None
    pids = [int(pid) for pid in (await supervisor.stdout.readline()).split()]
    assert len(pids) == 3
    assert all(alive(pid) for pid in pids)

    supervisor.kill()
    await supervisor.wait()

    await until(lambda: not any(alive(pid) for pid in pids))


async def test_up_says_what_is_wrong_in_one_line_and_exits_2(tmp_path):
    saga = [sys.executable, "-m", "saga.cli.main", "up", "--state-dir", str(tmp_path / "state")]
    for flags, environ, message in (
        (
            ["--system", "nonesuch"],
            {},
            "saga up: unknown system 'nonesuch'; known are least-loaded, prefix-aware, round-robin, saga, ",
        ),
        ([], {"SAGA_NATS_URL": "nats://127.0.0.1:1"}, "saga up: NATS is not reachable at nats://127.0.0.1:1"),
    ):
        started_s = time.monotonic()
        up = await asyncio.create_subprocess_exec(
            *saga, *flags, env=os.environ | environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        _output, errors = await up.communicate()

        assert up.returncode == 2
        assert errors.decode().startswith(message)
        assert errors.count(b"\n") == 1
        assert time.monotonic() - started_s < 4


async def test_up_runs_a_whole_mesh_until_ctrl_c_and_leaves_nothing_behind(tmp_path):
    up = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "saga.cli.main", "up", "--workers", "1", "--port", "0"),
        *("--state-dir", str(tmp_path / "state")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert up.stdout is not None
    said = ""
    async with asyncio.timeout(60):
        while "curl" not in said:
            line = await up.stdout.readline()
            assert line, "it ended before it was ready"
            said += line.decode()
    pids = pids_below(up.pid)
    assert len(pids) == 10, "NATS, engine, worker, graph, gateway, console, two each of admission and placement"
    assert "console" in said

    os.killpg(up.pid, signal.SIGINT)  # as Ctrl-C in a terminal
    _output, errors = await up.communicate()

    assert (up.returncode, errors.decode()) == (0, "")
    assert not any(alive(pid) for pid in pids)


async def test_sigterm_while_starting_leaves_nothing_behind(tmp_path, until):
    """A gateway that never gets ready must not keep `saga up` from stopping."""
    mesh = mesh_without_gateway(tmp_path, fake(tmp_path, "worker"))
    entering = asyncio.create_task(mesh.__aenter__())
    await until(lambda: "worker" in mesh.processes)
    pids = list(mesh.processes.values())

    entering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await entering

    assert not any(alive(pid) for pid in pids)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
