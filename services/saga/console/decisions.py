"""Decisions worth a line, with their reasons, and how often each reason was given in the last minute."""

from collections import deque
from collections.abc import Iterable
from typing import Final

from saga.console.minute import Minute
from saga.console.records import Step, Workflow
from saga.console.wire import DecisionKind, DecisionRow
from saga.contract.messages import Grant, LeaderHello, SessionsReleased, WorkerHello, WorkerLeaving, WorkerStands

KEPT: Final = 400
IN_A_FRAME: Final = 16
WORTH_TELLING_S: Final = 0.25  # a shorter wait is not told
_QUIET: Final = ("dormant", "closed", "moved", "unbound")  # of releases: what everybody expects, or a move tells


class Decisions:
    """The newest, and counts."""

    def __init__(self) -> None:
        self.newest: deque[DecisionRow] = deque(maxlen=KEPT)
        self.made = 0
        self._told = 0  # up to this number
        self.grants = Minute()
        self.waits = Minute()

    def take(self) -> tuple[tuple[DecisionRow, ...], int]:
        """Those made since the last call, the newest of them at most; and how many were left out."""
        new = self.made - self._told
        self._told = self.made
        if not new:
            return (), 0
        rows = tuple(self.newest)[-min(new, IN_A_FRAME) :]
        return rows, new - len(rows)

    def forget_untold(self) -> None:
        """Nobody looked: what was made meanwhile comes with the whole."""
        self._told = self.made

    # --- what was decided ----------------------------------------------------------------------------------------

    def granted(self, step: Step, grant: Grant, now_s: float) -> None:
        """Where a step runs, why there, and what it waited for."""
        self.grants.count(grant.reason or "other", now_s)
        self.waits.count(grant.waited, now_s)
        waited_s = max(0.0, now_s - step.ready_s)
        if step.moved_from:
            self._add("moved", step.workflow, grant.worker_id, step.moved_from, grant.reason, waited_s, now_s)
        elif grant.waited != "none" and waited_s >= WORTH_TELLING_S:
            self._add("waited", step.workflow, grant.worker_id, "", grant.waited, waited_s, now_s)
        elif grant.new_session:
            self._add("placed", step.workflow, grant.worker_id, "", grant.reason, grant.cached_tokens, now_s)
        if grant.superseded_tokens:
            self._add("superseded", step.workflow, grant.worker_id, "", "", grant.superseded_tokens, now_s)

    def restarted(self, step: Step, now_s: float) -> None:
        """Its engine died under it."""
        self._add("restarted", step.workflow, "", step.worker, "engine_died", step.output_tokens, now_s)

    def refused(self, step: Step, reason: str, now_s: float) -> None:
        """It waited in vain."""
        self._add("refused", step.workflow, "", "", reason, now_s - step.ready_s, now_s)

    def failed(self, step: Step, now_s: float) -> None:
        """It ended with an error."""
        self._add("failed", step.workflow, step.worker, "", "", now_s - step.ready_s, now_s)

    def released(self, workflow: Workflow, released: SessionsReleased, sessions: int, now_s: float) -> None:
        """KV that need not be kept."""
        if released.reason in _QUIET:
            return
        kind: DecisionKind = "paused" if released.reason == "paused" else "released"
        self._add(kind, workflow, released.worker_id, "", released.reason, sessions, now_s)

    def worker(self, message: WorkerHello | WorkerLeaving, now_s: float) -> None:
        """One came, or went."""
        if isinstance(message, WorkerHello):
            self._about(message.worker_id, "worker", "", "joined", now_s)
        else:
            self._about(message.worker_id, "worker", "", "engine_died" if message.engine_died else "leaving", now_s)

    def stands(self, message: WorkerStands, now_s: float) -> None:
        """Placement thinks otherwise of a worker."""
        self._about(message.worker_id, "worker", message.reason, message.standing, now_s)

    def silent(self, worker_id: str, now_s: float) -> None:
        """A worker is not heard any more."""
        self._about(worker_id, "worker", "", "silent", now_s)

    def leads(self, hello: LeaderHello, now_s: float) -> None:
        """A new leader."""
        self._about(hello.service, "leader", hello.service, "took_over", now_s)

    def since(self, rows: Iterable[DecisionRow], workflow: int) -> list[DecisionRow]:
        """Of these the ones about one workflow."""
        return [row for row in rows if row.workflow == workflow]

    def _add(
        self, kind: DecisionKind, workflow: Workflow, worker: str, other: str, reason: str, amount: float, now_s: float
    ) -> None:
        self.made += 1
        row = DecisionRow(
            self.made, round(now_s, 3), kind, workflow.number, workflow.root, worker, other, reason, round(amount, 3)
        )
        self.newest.append(row)

    def _about(self, name: str, kind: DecisionKind, other: str, reason: str, now_s: float) -> None:
        self.made += 1
        worker = name if kind == "worker" else ""
        self.newest.append(DecisionRow(self.made, round(now_s, 3), kind, -1, name, worker, other, reason, 0.0))
