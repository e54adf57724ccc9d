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
