"""The console's core: what the cell does, as a page can show it. Pure; it is told messages and answers frames.

`service.py` feeds it from the bus and asks for a frame five times a second while somebody looks. It hears the messages
that say most for their number: not those about leases and progress, which are most of a cell's, but gateways' beats.
"""

from typing import Final

from saga.console.cluster import Cluster
from saga.console.decisions import Decisions
from saga.console.events import ConsoleEvent, FrameDue, FrameMade, Replayed, TenantsTold, Watched
from saga.console.following import Following
from saga.console.records import Workflow
from saga.console.shares import Shares
from saga.console.table import Table
from saga.console.wire import Frame, Totals
from saga.contract.ids import RootId
from saga.contract.messages import (
    Forecast,
    GatewayBeat,
    Grant,
    Heartbeat,
    LeaderHello,
    Message,
    SessionsReleased,
    StepAdmitted,
    StepCancelled,
    StepFinished,
    StepReady,
    StepRefused,
    WorkerHello,
    WorkerLeaving,
    WorkerStands,
    WorkflowEnded,
)
from saga.kernel.effects import Received, Tick

EVERY_S: Final = 1.0  # tenants and totals


class ConsoleState:
    """One cell, watched."""

    def __init__(self, *, cell: str = "main", max_workflows: int = 2_000, wall_offset_s: float = 0.0) -> None:
        """`wall_offset_s`: wall clock less monotonic."""
        self.table = Table(max_workflows)
        self.cluster = Cluster()
        self.decisions = Decisions()
        self.shares = Shares()
        self.totals = Totals()
        self._cell = cell
        self._wall_offset_s = wall_offset_s
        self._following = Following(self.table, self.decisions, self.shares)
        self._summed_s = float("-inf")

    def check(self) -> None:
        """Assert what must always hold."""
        self.table.check()

    def handle(self, event: ConsoleEvent, now_s: float) -> list[FrameMade]:
        """Take an event; frames are all that ever comes of one. `now_s`: monotonic, from this console's start."""
        match event:
            case Received(message):
                self._received(message, now_s)
            case FrameDue():
                return self._frame(now_s)
            case Tick():
                self._tick(now_s)
            case Replayed(message):
                self._replayed(message)
            case TenantsTold(uses):
                self.shares.told(uses)
            case Watched(by_anybody):
                if by_anybody != self.table.gathering:
                    self.table.gather(on=by_anybody)
                    self.decisions.forget_untold()
        return []

    # --- questions -----------------------------------------------------------------------------------------------

    def whole(self, now_s: float) -> Frame:
        """Everything there is, for somebody who begins to look."""
        workflows = list(self.table.workflows.values())
        tenants, _known = self.shares.rows(workflows, now_s)
        steps = [step for workflow in workflows for step in (*workflow.steps, *workflow.live.values())]
        return Frame(
            now_s=round(now_s, 3),
            whole=True,
            cell=self._cell,
            at=now_s + self._wall_offset_s,
            workers=tuple(worker.row() for worker in self.cluster.workers.values()),
            workflows=tuple(workflow.row(now_s) for workflow in workflows),
            steps=tuple(step.row() for step in steps),
            decisions=tuple(self.decisions.newest),
            tenants=tuple(tenants),
            totals=self._sums(now_s),
        )

    def workflow(self, name: str) -> Workflow | None:
        """By its full name, or by what follows its tenant when only one is called so."""
        workflow = self.table.workflows.get(RootId(name))
        if workflow is not None:
            return workflow
        found = [w for root, w in self.table.workflows.items() if root.partition("/")[2] == name]
        return found[0] if len(found) == 1 else None

    # --- events --------------------------------------------------------------------------------------------------

    def _received(self, message: Message, now_s: float) -> None:
        match message:
            case StepReady():
                self._following.ready(message, now_s)
            case StepAdmitted():
                self._following.admitted(message, now_s)
            case Grant():
                self._following.granted(message, now_s)
            case StepFinished():
                self._following.finished(message, now_s)
            case Forecast():
                self._following.forecast(message)
            case GatewayBeat():
                self._following.beat(message, now_s)
            case Heartbeat() | WorkerHello():
                self._heard(message, now_s)
            case WorkerLeaving():
                self.cluster.left(message.worker_id)
                self.decisions.worker(message, now_s)
            case StepCancelled():
                self._following.cancelled(message, now_s)
            case StepRefused():
                self._following.refused(message, now_s)
            case SessionsReleased():
                self._following.released(message, now_s)
            case WorkflowEnded():
                self._following.over(message, now_s)
            case WorkerStands():
                if self.cluster.stands(message):
                    self.decisions.stands(message, now_s)
            case LeaderHello():
                self.decisions.leads(message, now_s)

    def _heard(self, message: Heartbeat | WorkerHello, now_s: float) -> None:
        hello = message.worker if isinstance(message, Heartbeat) else message
        self.shares.costs[hello.pool] = hello.cost
        if self.cluster.heard(message, now_s):
            self.decisions.worker(hello, now_s)

    def _replayed(self, message: Message) -> None:
        """As if we had been there; nothing of it counts as served now."""
        if isinstance(message, StepFinished) and message.at > 0:
            self._following.finished(message, message.at - self._wall_offset_s, live=False)

    def _tick(self, now_s: float) -> None:
        for worker_id in self.cluster.sweep(now_s):
            self.decisions.silent(worker_id, now_s)
        self.table.sweep(now_s)
        self.shares.settle(now_s)
        for window in (self.decisions.grants, self.decisions.waits):
            window.forget(now_s)

    # --- frames --------------------------------------------------------------------------------------------------

    def _frame(self, now_s: float) -> list[FrameMade]:
        table = self.table
        decisions, left_out = self.decisions.take()
        workers, workers_gone = self.cluster.take()
        due = now_s - self._summed_s >= EVERY_S
        if due:
            self._summed_s = now_s
        tenants, _known = self.shares.rows(table.workflows.values(), now_s) if due else (None, 0)
        frame = Frame(
            now_s=round(now_s, 3),
            workers=workers,
            workers_gone=workers_gone,
            workflows=tuple(workflow.row(now_s) for workflow in table.changed.values()),
            workflows_gone=tuple(table.gone),
            steps=tuple(step.row() for step in table.changed_steps.values()),
            decisions=decisions,
            decisions_left_out=left_out,
            tenants=None if tenants is None else tuple(tenants),
            totals=self._sums(now_s) if due else None,
        )
        table.gather(on=table.gathering)
        nothing = not (due or workers or workers_gone or frame.workflows or frame.workflows_gone or frame.steps)
        return [] if nothing and not decisions else [FrameMade(frame)]

    def _sums(self, now_s: float) -> Totals:
        states = {"running": 0, "gap": 0, "queued": 0, "dormant": 0, "closed": 0}
        context_tokens = 0
        tenants = set()
        for workflow in self.table.workflows.values():
            state = workflow.state(now_s)
            states[state] += 1
            tenants.add(workflow.tenant)
            if state in ("running", "gap", "queued"):
                context_tokens += sum(session.tokens for session in workflow.sessions.values())
        workers = self.cluster.workers.values()
        self.totals = Totals(
            workers=len(workers),
            workers_up=sum(worker.up for worker in workers),
            kv_tokens=sum(worker.hello.kv_tokens for worker in workers if worker.up),
            context_tokens=context_tokens,
            running=states["running"],
            gap=states["gap"],
            queued=states["queued"],
            dormant=states["dormant"],
            left_out=self.table.left_out,
            steps_per_s=self.shares.rate("steps", now_s),
            output_tokens_per_s=self.shares.rate("tokens", now_s),
            cached_share=self.shares.cached_share(),
            tenants=len(tenants | set(self.shares.uses)),
            grants={name: round(n) for name, n in self.decisions.grants.sums.items()},
            waits={name: round(n) for name, n in self.decisions.waits.sums.items()},
        )
        return self.totals
