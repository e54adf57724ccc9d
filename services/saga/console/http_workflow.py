"""Questions about one workflow: what it did, as this console saw it, and its execution graph, as the graph service
knows it."""

from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec
from aiohttp import web

from saga.console.http_answers import BadQuestionError
from saga.console.records import Workflow
from saga.contract.messages import GraphAnswer, GraphAsk
from saga.contract.subjects import Subjects
from saga.contract.workflow_messages import NextStep, Shape, WorkflowFacts
from saga.drawing.lanes import lanes_drawn
from saga.drawing.layers import layered
from saga.drawing.svg import svg
from saga.runtime.errors import BusUnavailable, MessageError

if TYPE_CHECKING:
    from saga.console.http_server import Desk

DRAWINGS: Final = ("class", "steps", "declared")
NEAR: Final = 5
SEARCHED: Final = 1_000  # workflows, for a name that is not known
NAME_CHARS: Final = 300


class SessionTold(msgspec.Struct, frozen=True):
    """One conversation of a workflow."""

    number: int
    name: str
    parent: str
    home: str
    tokens: int
    kept: bool
    running: int


class WorkflowTold(msgspec.Struct, frozen=True, kw_only=True):
    """All about one workflow. `steps` and `workflow` are rows as events have them."""

    now_s: float
    workflow: object
    sessions: list[SessionTold]
    steps: list[object]
    step_ids: list[str]  # of the steps
    decisions: list[object]
    drawings: list[str] = []  # that can be asked for
    no_graph: str = ""  # why the graph service says nothing
    follows: str = ""
    next: tuple[NextStep, ...] = ()
    remaining_steps: float = -1.0


class WorkflowQuestions:
    """Answers them."""

    def __init__(self, desk: "Desk", cell: str) -> None:
        self._desk = desk
        self._subjects = Subjects(cell)

    async def show(self, request: web.Request) -> web.Response:
        """Everything but the drawings."""
        workflow = self._asked(request)
        desk = self._desk
        facts, trouble = await self._facts(workflow)
        drawings = ["class"] if workflow.agent_class and not trouble else []
        drawings += ["steps"] if facts is not None and facts.shape is not None else []
        drawings += ["declared"] if facts is not None and facts.declared is not None else []
        told = WorkflowTold(
            now_s=desk.now_s,
            workflow=workflow.row(desk.now_s),
            sessions=[
                SessionTold(s.number, str(name), str(s.parent), s.home, s.tokens, s.kept, s.running)
                for name, s in workflow.sessions.items()
            ],
            steps=[step.row() for step in (*workflow.steps, *workflow.live.values())],
            step_ids=[step.step_id for step in (*workflow.steps, *workflow.live.values())],
            decisions=[row for row in desk.state.decisions.newest if row.workflow == workflow.number],
            drawings=drawings,
            no_graph=trouble,
        )
        if facts is not None:
            told = msgspec.structs.replace(
                told, follows=facts.follows, next=facts.next, remaining_steps=facts.remaining_steps
            )
        return web.Response(body=msgspec.json.encode(told), content_type="application/json")

    async def graph(self, request: web.Request) -> web.Response:
        """One drawing, as `saga graph show --svg` makes it. 204: there is nothing to draw yet."""
        which = request.query.get("of", "class")
        if which not in DRAWINGS:
            raise BadQuestionError(400, f"of={which[:40]!r} is none of {', '.join(DRAWINGS)}.")
        workflow = self._asked(request)
        shape, trouble = await self._shape(workflow, which)
        if shape is None and trouble:
            raise BadQuestionError(503, trouble)
        if shape is None:
            return web.Response(status=204)
        scene = lanes_drawn(shape) if which == "steps" else layered(shape)
        return web.Response(text=svg([scene], shape.name, styled=False), content_type="image/svg+xml")

    def _asked(self, request: web.Request) -> Workflow:
        name = request.query.get("root", "")
        if not name:
            raise BadQuestionError(400, "root=NAME is missing: the workflow's name, as the page shows it.")
        workflow = self._desk.state.workflow(name[:NAME_CHARS])
        if workflow is None:
            known = [str(root) for root in islice(reversed(self._desk.state.table.workflows), SEARCHED)]
            near = get_close_matches(name[:NAME_CHARS], known, NEAR, 0.6)
            hint = f" There are: {', '.join(near)}." if near else " It may have ended more than a minute ago."
            raise BadQuestionError(404, f"No workflow {name[:120]!r} is known here.{hint}")
        return workflow

    async def _facts(self, workflow: Workflow) -> tuple[WorkflowFacts | None, str]:
        """Of a workflow, if any are known; else, perhaps, why none can be had."""
        answer, trouble = await self._ask(str(workflow.root))
        found = [facts for facts in answer.workflows if facts.root == workflow.root] if answer is not None else []
        return (found[0] if found else None), trouble

    async def _shape(self, workflow: Workflow, which: str) -> tuple[Shape | None, str]:
        if which == "class":
            if not workflow.agent_class:
                return None, ""
            answer, trouble = await self._ask(f"class/{workflow.tenant}/{workflow.agent_class}")
            return (answer.shapes[0] if answer is not None and answer.shapes else None), trouble
        facts, trouble = await self._facts(workflow)
        return (None if facts is None else facts.shape if which == "steps" else facts.declared), trouble

    async def _ask(self, name: str) -> tuple[GraphAnswer | None, str]:
        """The process that speaks for this name answers a request, no other."""
        try:
            answer = await self._desk.ask(self._subjects.graph_ask(), GraphAsk(what="show", name=name))
        except (BusUnavailable, MessageError) as error:
            return None, f"The graph service does not answer: {error}"
        return (answer, "") if isinstance(answer, GraphAnswer) else (None, "The graph service answers something else.")
