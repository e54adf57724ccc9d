"""As ThunderAgent schedules: workflows belong to workers; those of a full worker are paused, and resumed anywhere.

Usage of a worker is what its active workflows' contexts would take, resident or not, over its KV capacity.
"""

from collections.abc import Iterable
from itertools import islice

from saga.admission.expectations import Means
from saga.admission.policy import NO_CHANGE, Claims, Revision
from saga.admission.records import Workflow
from saga.contract.ids import NO_WORKER, RootId, WorkerId

BUFFER_TOKENS = 100  # set aside for each workflow's output
LOOK_TOKENS = 1e9  # more than any context: sets the classes of the waiting apart in their rank
TRIES = 64  # waiting workflows looked at for one that fits


class Readiness:
    """The place among those that wait to be resumed: by class, the smallest first inside one."""

    def __init__(self, *, largest_first: bool = False) -> None:
        """`largest_first`: best fit decreasing."""
        self._sign = -1.0 if largest_first else 1.0

    def of(self, workflow: Workflow, expected: Means) -> float:  # noqa: ARG002 - what it holds alone
        """As Rank."""
        new = all(not session.context_tokens for session in workflow.sessions.values())
        waits = 0 if workflow.steps and not new else 1 if workflow.steps else 2
        return waits * LOOK_TOKENS + self._sign * _tokens(workflow)


class PauseResume:
    """Pause the smallest, those in a tool call first, when a worker is over its threshold; resume to the emptiest.

    A workflow that generates is marked and paused at its step boundary. Waiting workflows resume in classes: those
    with a step that waits before new ones before those still in a tool call. Whoever waits longer than the timeout
    resumes whether there is room or not. Goes by `Readiness`.
    """

    unbinds = True

    def __init__(
        self,
        pause_at: float = 0.95,
        pause_to: float = 0.80,
        hysteresis: float = 0.10,
        timeout_s: float = 1_800.0,
    ) -> None:
        """Shares of a worker's KV capacity."""
        self._pause_at = pause_at
        self._pause_to = pause_to
        self._resume_to = pause_at - hysteresis
        self._timeout_s = timeout_s
        self._marked: dict[RootId, None] = {}
        self._outside_since_s: dict[RootId, float] = {}  # oldest first

    def revise(self, claims: Claims, now_s: float) -> Revision:
        """As ActiveSetPolicy."""
        usage = dict.fromkeys(claims.workers, 0)
        homes: dict[WorkerId, list[Workflow]] = {worker_id: [] for worker_id in claims.workers}
        for _, root in claims.inside:
            workflow = claims.workflows[root]
            self._outside_since_s.pop(root, None)
            home = _home(workflow)
            if home in usage:
                homes[home].append(workflow)
                usage[home] += 0 if root in self._marked else _tokens(workflow)
        leaves = self._ripe(claims)
        for worker_id, hello in claims.workers.items():
            if usage[worker_id] > self._pause_at * hello.kv_tokens:
                leaves += self._pause(homes[worker_id], usage[worker_id] - int(self._pause_to * hello.kv_tokens))
        joins = self._resume(claims, usage, now_s)
        return Revision(tuple(joins), tuple(leaves), joins) if joins or leaves else NO_CHANGE

    def _ripe(self, claims: Claims) -> list[RootId]:
        """Marked ones that have come to a step boundary; those that are over or dormant are forgotten."""
        leaves = []
        for root in list(self._marked):
            workflow = claims.workflows.get(root)
            if workflow is not None and workflow.active and workflow.running():
                continue
            del self._marked[root]
            if workflow is not None and workflow.active:
                leaves.append(root)
        return leaves

    def _pause(self, workflows: list[Workflow], excess_tokens: int) -> list[RootId]:
        """Those that leave now; those that must be marked are."""
        leaves = []
        unmarked = [w for w in workflows if w.root not in self._marked]
        for workflow in sorted(unmarked, key=lambda w: (w.running(), _tokens(w), w.root)):
            if excess_tokens <= 0:
                break
            excess_tokens -= _tokens(workflow)
            if workflow.running():
                self._marked[workflow.root] = None
            else:
                leaves.append(workflow.root)
        return leaves

    def _resume(self, claims: Claims, usage: dict[WorkerId, int], now_s: float) -> dict[RootId, WorkerId]:
        """Who joins, and where."""
        if not claims.outside:
            return {}
        if not usage:
            return {} if claims.inside else {claims.outside[0][1]: NO_WORKER}
        room = {w: int(self._resume_to * hello.kv_tokens) - usage[w] for w, hello in claims.workers.items()}
        joins: dict[RootId, WorkerId] = {}
        for root in self._overdue(now_s):
            workflow = claims.workflows.get(root)
            if workflow is not None and root in claims.needs and not workflow.active:
                joins[root] = _emptiest(room)
                room[joins[root]] -= _tokens(workflow)
        for _, root in islice(claims.outside, TRIES):
            self._outside_since_s.setdefault(root, now_s)
            if root in joins:
                continue
            tokens = _tokens(claims.workflows[root])
            best = _emptiest(room)
            if room[best] >= tokens or (not claims.inside and not joins):
                joins[root] = best
                room[best] -= tokens
            elif room[best] <= BUFFER_TOKENS:
                break
        return joins

    def _overdue(self, now_s: float) -> Iterable[RootId]:
        """Who has been outside for longer than the timeout."""
        overdue = []
        for root, since_s in self._outside_since_s.items():
            if now_s - since_s <= self._timeout_s:
                break
            overdue.append(root)
        for root in overdue:
            del self._outside_since_s[root]
        return overdue


def _emptiest(room: dict[WorkerId, int]) -> WorkerId:
    return max(room, key=lambda worker_id: (room[worker_id], worker_id))


def _home(workflow: Workflow) -> WorkerId:
    return workflow.bound or next((s.home for s in workflow.sessions.values() if s.home), NO_WORKER)


def _tokens(workflow: Workflow) -> int:
    """Contexts of its sessions: what each last held, or what its next step brings."""
    tokens = BUFFER_TOKENS
    prompts = {step.step.session: step.step.prompt_tokens for step in workflow.steps.values()}
    for session in workflow.sessions.values():
        tokens += max(session.context_tokens, prompts.get(session.session, 0))
    return tokens
