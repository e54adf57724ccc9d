"""`/v1/saga/workflows`: clients declare what a workflow is going to do, and look at what the graph service knows of it.

Nothing waits for a declaration: without one, or with the graph service away, the workflow runs all the same.
"""

import os
from typing import Final

import msgspec
from aiohttp import web

from saga.contract.ids import RootId, TenantId, scoped
from saga.contract.messages import GraphAnswer, GraphAsk, Message
from saga.contract.workflow_messages import Follows, NextStep, Shape, WorkflowFacts
from saga.gateway import declaring
from saga.gateway.api_errors import ApiError
from saga.gateway.http_body import read_body
from saga.gateway.http_desk import Desk
from saga.gateway.identity import WORKFLOW
from saga.gateway.tenants import Tenants
from saga.runtime.errors import BusUnavailable, MessageError

PATH: Final = "/v1/saga/workflows"
MAX_BODY_BYTES: Final = 256 * 1024
MAX_END_BYTES: Final = 4 * 1024
ANSWER_WITHIN_S: Final = 1.5


class WorkflowNode(msgspec.Struct, frozen=True, omit_defaults=True):
    """A step that was taken, or a node that was declared."""

    id: str
    tool: str
    steps: int  # of a declared node: taken so far
    session: str | None = None  # of a declared node: its agent
    parent: str | None = None
    prompt_tokens: int | None = None  # of a step that was taken, as the next two
    output_tokens: int | None = None
    engine_s: float | None = None


class WorkflowEdge(msgspec.Struct, frozen=True, rename={"source": "from", "target": "to"}):
    """What led to a step, or may."""

    source: str
    target: str
    kind: str
    probability: float
    gap_s: float | None = None


class WorkflowGraph(msgspec.Struct, frozen=True):
    """Nodes and edges."""

    nodes: list[WorkflowNode]
    edges: list[WorkflowEdge]
    left_out: int = 0


class WorkflowView(msgspec.Struct, frozen=True, kw_only=True, rename={"agent_class": "class"}):
    """What a client sees of a workflow."""

    id: str
    object: str = "saga.workflow"
    agent_class: str | None
    follows: Follows  # its declaration
    steps: int
    sessions: int
    silent_s: float
    done: tuple[str, ...]
    next: tuple[NextStep, ...]
    remaining_steps: float | None
    declared: WorkflowGraph | None
    taken: WorkflowGraph | None
    headers: dict[str, str]  # to send with its steps


class Workflows:
    """The handlers of `/v1/saga/workflows`."""

    def __init__(self, desk: Desk, tenants: Tenants) -> None:
        self._desk = desk
        self._tenants = tenants
        self._subjects = desk.subjects

    async def declare(self, request: web.Request) -> web.StreamResponse:
        """POST: 201 when the graph service has taken it. Raises ApiError 400, 401, 413, 415, 422, 503."""
        tenant = self._tenants.of(request.headers.get("Authorization"), request.headers.get("x-api-key"))
        name, message = declaring.parse(
            await read_body(request, MAX_BODY_BYTES), tenant.id, f"wf-{os.urandom(8).hex()}"
        )
        facts = await self._ask(self._subjects.workflow_declared(), message, message.root)
        if facts is None:
            raise _nobody()
        return _answer(_view(name, facts, tenant.id), status=201)

    async def end(self, request: web.Request) -> web.StreamResponse:
        """POST: 202, whether or not anybody knows the workflow. Raises ApiError 400, 401, 413, 422."""
        tenant = self._tenants.of(request.headers.get("Authorization"), request.headers.get("x-api-key"))
        name = request.match_info["id"]
        ended = declaring.parse_end(name, await read_body(request, MAX_END_BYTES), tenant.id)
        self._desk.say(self._subjects.workflow_ended(), ended)
        told = {"id": name, "object": "saga.workflow.end", "session": _own(ended.session, tenant.id) or None}
        return web.Response(status=202, body=msgspec.json.encode(told), content_type="application/json")

    async def show(self, request: web.Request) -> web.StreamResponse:
        """GET: 200. Raises ApiError 401, 404, 422, 503."""
        tenant = self._tenants.of(request.headers.get("Authorization"), request.headers.get("x-api-key"))
        name = declaring.workflow_id(request.match_info["id"])
        root = RootId(scoped(tenant.id, name))
        ask = GraphAsk(what="show", name=root, tenant=tenant.id)
        facts = await self._ask(self._subjects.graph_ask(), ask, root)
        if facts is None:
            told = f"No live workflow '{name}'. Name one whose steps were sent with {WORKFLOW}, or that was declared."
            raise ApiError(404, told, param="id", code="workflow_not_found")
        return _answer(_view(name, facts, tenant.id))

    async def _ask(self, subject: str, message: Message, root: RootId) -> WorkflowFacts | None:
        try:
            answer = await self._desk.ask(subject, message, ANSWER_WITHIN_S)
        except (BusUnavailable, MessageError):
            raise _nobody() from None
        if not isinstance(answer, GraphAnswer):
            raise _nobody()
        return next((facts for facts in answer.workflows if facts.root == root), None)


def _nobody() -> ApiError:
    return ApiError(
        503,
        "The graph service does not answer. The workflow runs all the same; try again to declare or look at it.",
        code="graph_unavailable",
        retry_after_s=2.0,
    )


def _view(name: str, facts: WorkflowFacts, tenant: TenantId) -> WorkflowView:
    return WorkflowView(
        id=name,
        agent_class=facts.agent_class or None,
        follows=facts.follows,
        steps=facts.steps,
        sessions=facts.sessions,
        silent_s=round(facts.silent_s, 3),
        done=facts.done,
        next=facts.next,
        remaining_steps=round(facts.remaining_steps, 2) if facts.remaining_steps >= 0 else None,
        declared=_graph(facts.declared, tenant) if facts.declared is not None else None,
        taken=_graph(facts.shape, tenant) if facts.shape is not None else None,
        headers={WORKFLOW: name},
    )


def _graph(shape: Shape, tenant: TenantId) -> WorkflowGraph:
    nodes = [
        WorkflowNode(
            node.id,
            node.tool,
            round(node.count),
            _own(node.session, tenant) or None,
            _own(node.parent, tenant) or None,
            round(node.prompt_tokens) or None,
            round(node.output_tokens) or None,
            round(node.engine_s, 6) or None,
        )
        for node in shape.nodes
    ]
    edges = [
        WorkflowEdge(e.source, e.target, e.kind, round(e.probability, 6), e.gap_s[0] if e.gap_s else None)
        for e in shape.edges
    ]
    return WorkflowGraph(nodes, edges, shape.left_out)


def _own(name: str, tenant: TenantId) -> str:
    """An id as the client knows it."""
    return name.removeprefix(f"{tenant}/")


def _answer(view: WorkflowView, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(view), content_type="application/json")
