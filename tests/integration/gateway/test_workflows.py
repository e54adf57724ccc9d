"""Workflows declared and looked at over HTTP, with the graph's own core behind the bus."""

import asyncio

import pytest

from saga.contract.messages import GraphAnswer, GraphAsk, StepFinished, WorkflowDeclared
from saga.contract.subjects import Subjects
from saga.gateway.tenants import Tenants
from saga.graph.forecast import policy_named
from saga.graph.inspection import answers, workflow_facts
from saga.graph.partitions import PARTITIONS
from saga.graph.state import GraphState
from saga.kernel.effects import Received
from saga.runtime.bus_memory import MemoryBus

PATH = "/v1/saga/workflows"
ALL = frozenset(range(PARTITIONS))
COMPLETION = {"model": "tiny", "prompt": "Once upon a time there was a fox", "max_tokens": 4}
CHAIN = {
    "id": "release-7",
    "class": "releaser",
    "deadline_s": 60,
    "nodes": [{"id": "plan"}, {"id": "answer", "tool": ""}],
    "edges": [{"from": "plan", "to": "answer"}],
}


class GraphBehind:
    """The graph's core, listening where the service would."""

    def __init__(self, bus):
        self.bus = bus
        self.state = GraphState(Subjects(), policy_named("saga"))

    async def start(self):
        await self.bus.subscribe(Subjects().workflow_declared(), self.hear)
        await self.bus.subscribe(Subjects().graph_ask(), self.hear)
        await self.bus.subscribe(Subjects().every_step_end(), self.hear)

    async def hear(self, incoming):
        message = incoming.message
        if isinstance(message, GraphAsk):
            for answer in answers(self.state, message, "me", ALL, 1.0):
                await incoming.respond(answer)
            return
        self.state.handle(Received(message), 1.0)
        if isinstance(message, WorkflowDeclared):
            facts = workflow_facts(self.state, message.root, 1.0)
            await incoming.respond(GraphAnswer(member="me", partitions=(), workflows=(facts,)))


@pytest.fixture
async def start_with_graph(start):
    """Starts a mesh with a graph core; keywords as of `start`."""

    async def make(**keywords):
        mesh = await start(**keywords)
        mesh.graph = GraphBehind(MemoryBus(mesh.bus.broker, "graph"))
        await mesh.graph.start()
        return mesh

    return make


async def get(mesh, name, **headers):
    response = await mesh.client.get(f"{PATH}/{name}", headers=headers)
    return response.status, await response.json()


async def post(mesh, body, **headers):
    response = await mesh.client.post(PATH, json=body, headers=headers)
    return response.status, await response.json()


async def test_a_workflow_is_declared_followed_and_looked_at(start_with_graph):
    mesh = await start_with_graph()
    status, said = await post(mesh, CHAIN)
    assert (status, said["id"], said["class"], said["follows"]) == (201, "release-7", "releaser", "unstarted")
    assert said["remaining_steps"] == 2
    assert said["next"][0]["node"] == "plan"
    response = await mesh.ask(COMPLETION, **said["headers"])
    assert response.status == 200
    await mesh.leaders.finished()
    async with asyncio.timeout(5):
        while (seen := await get(mesh, "release-7"))[1]["steps"] < 1:
            await asyncio.sleep(0.01)
    status, said = seen
    assert (status, said["follows"], said["done"], said["remaining_steps"]) == (200, "yes", ["plan"], 1)
    assert [node["session"] for node in said["taken"]["nodes"]] == ["release-7"]
    assert [(edge["from"], edge["to"]) for edge in said["declared"]["edges"]] == [("plan", "answer")]


async def test_steps_carry_the_declared_deadline_and_the_named_node(start_with_graph):
    mesh = await start_with_graph()
    await post(mesh, CHAIN)
    await mesh.ask(COMPLETION, X_Saga_Workflow="release-7", X_Saga_Node="answer")
    await mesh.ask(COMPLETION, X_Saga_Workflow="release-7", X_Saga_Deadline_S="5")
    await mesh.ask(COMPLETION, X_Saga_Workflow="another")
    assert [(step.deadline_s, step.node) for step in mesh.leaders.steps] == [(60.0, "answer"), (5.0, ""), (0.0, "")]
    ends = await mesh.leaders.until(StepFinished, 3)
    assert ends[0].node == "answer"


async def test_without_an_id_one_is_made(start_with_graph):
    mesh = await start_with_graph()
    _, one = await post(mesh, {"nodes": [{"id": "a"}]})
    _, two = await post(mesh, {"nodes": [{"id": "a"}]})
    assert one["id"] != two["id"]
    assert (await get(mesh, one["id"]))[0] == 200


async def test_tenants_see_their_own(start_with_graph):
    tenants = Tenants.parse('[tenants.one]\nkeys = ["k1"]\n[tenants.two]\nkeys = ["k2"]\n', "test")
    mesh = await start_with_graph(tenants=tenants)
    assert (await post(mesh, CHAIN))[0] == 401
    assert (await post(mesh, CHAIN, Authorization="Bearer k1"))[0] == 201
    assert (await get(mesh, "release-7", Authorization="Bearer k1"))[0] == 200
    assert (await get(mesh, "release-7", Authorization="Bearer k2"))[0] == 404
    assert (await get(mesh, "one/release-7", Authorization="Bearer k2"))[0] == 404
    assert (await get(mesh, "release-7"))[0] == 401


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"\xff", 400, "invalid_json"),
        (b'{"nodes": [], "x": 1}', 422, "invalid_type"),
        (b'{"nodes": []}', 422, "too_large"),
        (b'{"nodes":[{"id":"a"}],"edges":[{"from":"a","to":"a"}]}', 422, "cycle"),
        (b'{"nodes":[{"id":"a"}],"edges":[{"from":"a","to":"b"}]}', 422, "unknown_node"),
        (b" " * 300_000, 413, "body_too_large"),
    ],
)
async def test_bad_declarations(start_with_graph, body, status, code):
    mesh = await start_with_graph()
    response = await mesh.client.post(PATH, data=body)
    error = (await response.json())["error"]
    assert (response.status, error["code"], error["type"]) == (status, code, "invalid_request_error")
    assert not mesh.graph.state.declared.by_root


async def test_what_nobody_knows_is_not_found(start_with_graph):
    mesh = await start_with_graph()
    status, said = await get(mesh, "nothing")
    assert (status, said["error"]["code"]) == (404, "workflow_not_found")
    assert "nothing" in said["error"]["message"]


async def test_without_a_graph_service_only_the_declaration_fails(start):
    mesh = await start()
    status, said = await post(mesh, CHAIN)
    assert (status, said["error"]["code"]) == (503, "graph_unavailable")
    status, said = await get(mesh, "release-7")
    assert (status, said["error"]["code"]) == (503, "graph_unavailable")
    assert (await mesh.ask(COMPLETION, X_Saga_Workflow="release-7")).status == 200


async def test_the_wrong_method_is_told(start):
    mesh = await start()
    response = await mesh.client.get(PATH)
    assert response.status == 405
    assert "POST" in (await response.json())["error"]["message"]


class Ends:
    """What is said to be over."""

    def __init__(self, mesh):
        self.bus = MemoryBus(mesh.bus.broker, "ends")
        self.heard = []

    async def start(self):
        await self.bus.subscribe(Subjects().workflow_ended(), lambda incoming: self.heard.append(incoming.message))
        return self

    async def until(self, count):
        async with asyncio.timeout(5):
            while len(self.heard) < count:
                await asyncio.sleep(0.01)
        return [(end.tenant, end.root, end.session) for end in self.heard]


async def test_a_workflow_and_a_session_are_ended_by_word(start):
    mesh = await start()
    ends = await Ends(mesh).start()

    whole = await mesh.client.post(f"{PATH}/release-7/end")
    part = await mesh.client.post(f"{PATH}/release-7/end", json={"session": "release-7/helper"})

    assert (whole.status, await whole.json()) == (
        202,
        {"id": "release-7", "object": "saga.workflow.end", "session": None},
    )
    assert (part.status, (await part.json())["session"]) == (202, "release-7/helper")
    assert await ends.until(2) == [
        ("default", "default/release-7", ""),
        ("default", "default/release-7", "default/release-7/helper"),
    ]


async def test_a_tenant_ends_its_own_only(start):
    tenants = Tenants.parse('[tenants.one]\nkeys = ["k1"]\n[tenants.two]\nkeys = ["k2"]\n', "test")
    mesh = await start(tenants=tenants)
    ends = await Ends(mesh).start()

    assert (await mesh.client.post(f"{PATH}/w/end")).status == 401
    await mesh.client.post(f"{PATH}/w/end", headers={"Authorization": "Bearer k2"})

    assert await ends.until(1) == [("two", "two/w", "")]


@pytest.mark.parametrize(
    ("body", "status", "named"),
    [
        (b"{", 400, ""),
        (b'{"session": 7}', 422, "session"),
        (b'{"session": ""}', 422, "session"),
        (b'{"session": "' + b"x" * 129 + b'"}', 422, "128"),
        (b'{"step": "s"}', 422, "step"),
        (b" " * 5_000, 413, "4096"),
    ],
)
async def test_bad_ends(start, body, status, named):
    mesh = await start()
    response = await mesh.client.post(f"{PATH}/w/end", data=body)

    assert response.status == status
    assert named in (await response.json())["error"]["message"]


@pytest.mark.parametrize(
    ("headers", "body", "ended"),
    [
        ({"X-Dynamo-Session-Final": "true"}, {}, True),
        ({}, {"nvext": {"agent_context": {"session_final": True}}}, True),
        ({"X-Saga-Final": "session"}, {}, True),
        ({"X-Saga-Final": "false", "X-Dynamo-Session-Final": "true"}, {}, False),
        ({}, {"nvext": {"agent_context": {"session_final": "yes"}}}, False),
    ],
)
async def test_a_child_that_says_that_it_is_done_ends_alone(start, headers, body, ended):
    mesh = await start()
    ends = await Ends(mesh).start()
    child = {"X-Dynamo-Session-ID": "run:child", "X-Dynamo-Parent-Session-ID": "run"}

    response = await mesh.client.post("/v1/completions", json=COMPLETION | body, headers=child | headers)

    assert response.status == 200
    assert not mesh.leaders.steps[0].final
    if ended:
        assert await ends.until(1) == [("default", "default/run", "default/run:child")]
    else:
        await mesh.leaders.finished()
        assert not ends.heard
