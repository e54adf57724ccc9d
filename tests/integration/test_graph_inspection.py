"""`saga graph` and what it asks, against graph processes on a real NATS: lists, drawings, resets, a killed process."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from saga.cli import main as command
from saga.cli.graph_ask import GraphService, NobodyError, nats_url
from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import Forecast, GraphAnswer, GraphAsk, StepFinished, WorkflowDeclared
from saga.contract.subjects import Subjects, kv_bucket
from saga.contract.workflow_messages import DeclaredEdge, DeclaredNode
from saga.graph.config import GraphConfig
from saga.graph.partitions import PARTITIONS
from saga.graph.service import Graph
from saga.graph.state import GLOBAL, model_key
from saga.runtime.app import App
from saga.runtime.bus_nats import NatsBus
from saga.runtime.clock import MonotonicClock
from saga.runtime.config import Shared

W = WorkerId("w1")
SUBJECTS = Subjects("main")
SAGA = [sys.executable, "-m", "saga.cli.main"]


def finished(number, root="t/r", *, tools=("bash",), agent_class="coder"):
    return StepFinished(
        step_id=StepId(f"{root}-{number}"),
        attempt=0,
        lease_id=LeaseId(f"lease-{number}"),
        worker_id=W,
        gateway_id=GatewayId("g"),
        tenant=TenantId("t"),
        root=RootId(root),
        session=SessionId(root),
        pool=PoolId("m"),
        agent_class=agent_class,
        prompt_tokens=100 * number,
        output_tokens=1,
        cached_tokens=0,
        finish_reason="tool_calls",
        tools=tools,
        gap_s=2.0,
        at=1000.0 + number,
    )


@pytest.fixture
async def bus(nats_url) -> AsyncIterator[NatsBus]:
    made = await NatsBus.connect(nats_url, name="test", cell="main")
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def graph(nats_url, name, *, replay_s=900.0):
    """One graph process, here."""
    async with asyncio.TaskGroup() as group:
        app = App("graph", Shared(), group)
        bus = await NatsBus.connect(nats_url, name=name, cell="main")
        app.attach(bus)
        process = Graph(GraphConfig(id=name, replay_s=replay_s), bus, MonotonicClock())
        serving = group.create_task(process.live(app))
        try:
            members = await bus.kv(kv_bucket("main", "graph-members"))
            async with asyncio.timeout(10):
                while name not in await members.keys():
                    await asyncio.sleep(0.02)
            yield process
        finally:
            app.stopping.set()
            await serving
            await bus.drain()
            app.cancel_all()


async def say(bus, *messages):
    for message in messages:
        await bus.append(SUBJECTS.step_finished(W), message, f"{message.step_id}-0")


async def saga_graph(nats_url, *arguments):
    """Exit code, stdout and stderr of the command."""
    process = await asyncio.create_subprocess_exec(
        *SAGA,
        "graph",
        *arguments,
        env={**os.environ, "SAGA_NATS_URL": nats_url, "COLUMNS": "80"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    return process.returncode, out.decode(), errors.decode()


async def test_two_processes_answer_as_one_and_forget_together(nats_url, bus, until):
    names = [f"class/t/{n}" for n in range(12)]
    async with graph(nats_url, "a") as a, graph(nats_url, "b") as b:
        await until(lambda: not a.partitions & b.partitions and len(a.partitions | b.partitions) == PARTITIONS)
        for number, name in enumerate(names):
            await say(bus, *(finished(n, f"t/{number}", agent_class=name.split("/")[2]) for n in range(1, 4)))
        await until(lambda: all(p.state.workflows.get(RootId("t/11")) is not None for p in (a, b)))
        service = GraphService(bus, "main")
        answers = await service.ask(GraphAsk(what="classes"))
        listed = [facts.name for answer in answers for facts in answer.classes]
        assert sorted(listed) == sorted([*names, "all", "tenant/t"]), "each once"
        assert {answer.member for answer in answers} == {"a", "b"}
        shown = await service.ask(GraphAsk(what="show", name="7"))
        assert [shape.name for answer in shown for shape in answer.shapes] == ["class/t/7"]
        forgotten = await service.reset("")
        assert sorted(n for answer in forgotten for n in answer.forgotten) == sorted(listed)
        assert all(answer.stored for answer in forgotten)
        for process in (a, b):
            assert list(process.state.models) == [GLOBAL]
            assert process.state.models[GLOBAL].gaps.samples == 0
        models = await bus.kv(kv_bucket("main", "graph"))
        assert set(await models.keys()) <= {model_key(GLOBAL)}
        again = await service.reset("")
        assert [n for answer in again for n in answer.forgotten] == []
    async with graph(nats_url, "c") as c:
        assert all(model.gaps.samples == 0 for model in c.state.models.values()), "the replay teaches it no more"


async def test_a_reset_class_is_gone_from_storage_too(nats_url, bus, until):
    async with graph(nats_url, "a") as a:
        await say(bus, *(finished(n) for n in range(1, 5)))
        await until(lambda: "class/t/coder" in a.state.models)
    models = await bus.kv(kv_bucket("main", "graph"))
    assert await models.get(model_key("class/t/coder")) is not None
    async with graph(nats_url, "a", replay_s=0.0) as a:
        assert a.state.models["class/t/coder"].gaps.samples == 3
        [answer] = await GraphService(bus, "main").reset("class/t/coder")
        assert answer.forgotten == ("class/t/coder",)
        assert await models.get(model_key("class/t/coder")) is None
    assert await models.get(model_key("class/t/coder")) is None
    assert await models.get(model_key("tenant/t")) is not None


async def test_a_declaration_is_answered_by_who_speaks_for_it(nats_url, bus, until):
    async with graph(nats_url, "a") as a, graph(nats_url, "b") as b:
        await until(lambda: not a.partitions & b.partitions and len(a.partitions | b.partitions) == PARTITIONS)
        for number in range(8):
            message = WorkflowDeclared(
                tenant=TenantId("t"),
                root=RootId(f"t/{number}"),
                nodes=(DeclaredNode(id="x"), DeclaredNode(id="y")),
                edges=(DeclaredEdge(source="x", target="y"),),
            )
            answer = await bus.request(SUBJECTS.workflow_declared(), message, 2.0)
            assert isinstance(answer, GraphAnswer)
            assert answer.workflows[0].remaining_steps == 2
            asked = await bus.request(SUBJECTS.graph_ask(), GraphAsk(what="show", name=f"t/{number}"), 2.0)
            assert asked.workflows[0].follows == "unstarted"
        await until(lambda: len(a.state.declared.by_root) == len(b.state.declared.by_root) == 8)


async def test_the_command_lists_draws_and_forgets(nats_url, bus, until, tmp_path):
    async with graph(nats_url, "a") as a:
        code, out, _ = await saga_graph(nats_url, "classes")
        assert (code, "Nothing is learnt yet" in out) == (0, True)
        await say(bus, *(finished(n, tools=("bash",) if n % 2 else ("read",)) for n in range(1, 9)))
        await until(
            lambda: a.state.models.get("class/t/coder") is not None and a.state.models[GLOBAL].gaps.samples == 7
        )
        code, out, _ = await saga_graph(nats_url, "classes", "--tenant", "t")
        assert code == 0
        assert "class/t/coder" in out
        assert "all" not in [line.split()[0] for line in out.splitlines() if line.strip()]
        drawing = tmp_path / "coder.svg"
        code, out, _ = await saga_graph(nats_url, "show", "coder", "--svg", str(drawing))
        assert code == 0
        assert "▶ read" in out
        assert max(map(len, out.splitlines()[:-1])) <= 80
        assert drawing.read_text().startswith("<svg")
        code, out, _ = await saga_graph(nats_url, "show", "r", "--json")
        assert (code, '"steps": 8' in out) == (0, True)
        code, _, errors = await saga_graph(nats_url, "show", "codr")
        assert (code, "class/t/coder" in errors, len(errors.splitlines())) == (1, True, 1)
        code, out, _ = await saga_graph(nats_url, "reset", "coder")
        assert (code, "Forgotten: class/t/coder" in out) == (0, True)
        code, out, _ = await saga_graph(nats_url, "reset", "class/t/coder")
        assert (code, "Nothing was known" in out) == (0, True)
        code, _, errors = await saga_graph(nats_url, "reset", "t/r")
        assert (code, "is a workflow" in errors) == (1, True)


async def test_where_no_graph_service_runs_it_says_so(nats_url, bus):
    code, _, errors = await saga_graph(nats_url, "classes")
    assert code == 1
    assert "no graph process answers" in errors
    with pytest.raises(NobodyError):
        await GraphService(bus, "main").reset("")


async def test_where_no_nats_is_it_says_so():
    code, _, errors = await saga_graph("nats://127.0.0.1:9", "classes")
    assert code == 2
    assert "127.0.0.1:9" in errors
    assert len(errors.splitlines()) == 1


def test_the_nats_of_a_mesh_that_runs_here_is_found(tmp_path):
    store = tmp_path / "nats"
    store.mkdir()
    assert nats_url({}, tmp_path) == "nats://127.0.0.1:4222"
    (store / "nats-server_999999999.ports").write_text('{"nats": ["nats://127.0.0.1:1111"]}')
    assert nats_url({}, tmp_path) == "nats://127.0.0.1:4222", "that server is dead"
    (store / f"nats-server_{os.getpid()}.ports").write_text('{"nats": ["nats://127.0.0.1:2222"]}')
    assert nats_url({}, tmp_path) == "nats://127.0.0.1:2222"
    assert nats_url({"SAGA_NATS_URL": "nats://x:1"}, tmp_path) == "nats://x:1"


def test_wrong_usage_ends_with_2(capsys):
    for arguments in (["graph"], ["graph", "reset"], ["graph", "reset", "x", "--all"], ["graph", "show"]):
        with pytest.raises(SystemExit) as caught:
            command.main(arguments)
        assert caught.value.code == 2
    assert "usage: saga graph" in capsys.readouterr().err


async def test_models_survive_a_killed_process(nats_url, bus, until):
    """Written behind every ten seconds; what is stored is enough, without the replay."""
    forecasts: list[Forecast] = []
    await bus.subscribe(SUBJECTS.every_forecast(), lambda incoming: forecasts.append(incoming.message))
    await bus.barrier()
    models = await bus.kv(kv_bucket("main", "graph"))
    members = await bus.kv(kv_bucket("main", "graph-members"))

    async def begin(name):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "saga.graph",
            env={**os.environ, "SAGA_NATS_URL": nats_url, "SAGA_GRAPH_ID": name, "SAGA_GRAPH_REPLAY_S": "0"},
            stderr=asyncio.subprocess.DEVNULL,
        )
        async with asyncio.timeout(60):
            while name not in await members.keys():
                await asyncio.sleep(0.05)
        return process

    first = await begin("first")
    try:
        await say(bus, *(finished(n) for n in range(1, 7)))
        await until(lambda: len(forecasts) == 6)
        async with asyncio.timeout(60):
            while await models.get(model_key("class/t/coder")) is None:
                await asyncio.sleep(0.1)
    finally:
        first.send_signal(signal.SIGKILL)
        await first.wait()
    second = await begin("second")
    try:
        async with asyncio.timeout(60):
            while True:  # until the lease of the first has run out, only a part of the roots is spoken for
                number = len(forecasts) + 100
                await say(bus, finished(number, f"t/{number}"))
                await asyncio.sleep(0.2)
                if len(forecasts) > 6:
                    break
        assert forecasts[-1].samples >= 5
        assert forecasts[-1].gap_p50_s == pytest.approx(2.0, rel=0.1)
    finally:
        second.terminate()
        await second.wait()
