"""What admission remembers of each step and workflow for `saga why`: told by `state.py` what it hears and what it says.

Why a step waits is read off the books at the moment it has to: the quota, or what the pool's active workflows need of
its KV, and who is in line before it. Decides nothing, changes nothing.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Final

from msgspec import structs

from saga.admission.needs import room_tokens
from saga.admission.quotas import Quotas
from saga.admission.records import Step, Workflow
from saga.admission.roster import Roster
from saga.admission.stepbook import StepBook
from saga.contract.ids import NO_WORKER, PoolId, RootId, WorkerId
from saga.contract.messages import LeaderHello, Message, Refused, StepAdmitted, StepReady, StepRefused, WhyAsk, WhyTold
from saga.contract.why_messages import Fact, Moment, StepTold, Weighed, WorkflowTold
from saga.kernel.effects import Answer, Effect, Publish
from saga.kernel.steps import StepState
from saga.kernel.stories import MAX_STORIES, Stories, Story

OTHERS_TOLD: Final = 6
MAX_WEIGHED: Final = 64  # workers that are put in order for it
NAMED: Final = 3  # workflows in a sentence
MAX_TURNS: Final = 32  # of one workflow: times it joined or left the active set
MAX_JOINS: Final = 1_024  # of all workflows, newest


class AdmissionStories:
    """Of one admission."""

    def __init__(self, roster: Roster, book: StepBook, quotas: Quotas) -> None:
        self._roster = roster
        self._book = book
        self._quotas = quotas
        self._stories = Stories("admission")
        self._now_s = 0.0
        self._turns: OrderedDict[RootId, tuple[float, deque[Moment]]] = OrderedDict()
        self._joined = 0  # so far
        self._joins: deque[RootId] = deque(maxlen=MAX_JOINS)
        self._waits_since: OrderedDict[str, int] = OrderedDict()  # step -> workflows that had joined by then
        roster.told = self._turned

    # --- what is heard and said --------------------------------------------------------------------------------

    def heard(self, message: Message | None, now_s: float) -> None:
        """Before the books change."""
        self._now_s = now_s
        if isinstance(message, StepReady):
            known = self._stories.of(message.step_id)
            story = self._stories.begin(message, now_s)
            if known is None:
                story.add(
                    "ready",
                    now_s,
                    message.attempt,
                    NO_WORKER,
                    {"waited_s": message.waited_s, "gap_s": message.gap_s},
                )
            elif story.last[1] != message.attempt:
                story.add("ready_again", now_s, message.attempt, NO_WORKER)

    def said(self, message: Message | None, effects: Iterable[Effect], now_s: float) -> None:
        """After the books have changed."""
        for effect in effects:
            if not isinstance(effect, Publish | Answer):
                continue
            match effect.message:
                case StepAdmitted() as admitted:
                    self._admitted(admitted, now_s)
                case LeaderHello():
                    self._stories.leads(now_s)
                case Refused() | StepRefused() as refused:
                    story = self._stories.of(refused.step_id)
                    if story is not None:
                        story.add(
                            "refused",
                            now_s,
                            refused.attempt,
                            NO_WORKER,
                            {"reason": refused.reason, "detail": refused.detail},
                        )
                        story.over = True
        if isinstance(message, StepReady):
            step = self._book.steps.get(message.step_id)
            if step is not None and step.life.state is StepState.WAITING:
                self._waits(step, now_s)

    def _admitted(self, admitted: StepAdmitted, now_s: float) -> None:
        story = self._stories.of(admitted.step.step_id)
        if story is None:  # it was let go on by a leader before this one
            story = self._stories.begin(admitted.step, now_s)
        attempt = admitted.step.attempt
        if story.said("admitted", attempt):
            return
        before = self._waits_since.pop(admitted.step.step_id, None)
        joined = self._joined - before - 1 if before is not None else -1  # its own workflow is the last
        names = list(self._joins)[-joined - 1 : -1] if joined > 0 else []
        workflow = self._roster.workflows.get(admitted.step.root)
        bound = workflow is not None and bool(admitted.home) and admitted.home == workflow.bound
        if bound and admitted.new_session:
            weighed = self._weighed(admitted.step.pool, admitted.home)
            story.weighed = lambda: weighed
        story.add(
            "admitted",
            now_s,
            attempt,
            admitted.home,
            {
                "bound": int(bound),
                "waited": "" if admitted.waited == "none" else admitted.waited,
                "joined_before": joined,
                "last_of_them": ", ".join(names[-NAMED:]),
                "tag_s": admitted.tag.virtual_start_s,
            },
        )

    def _weighed(self, pool_id: PoolId, chosen: WorkerId) -> tuple[Weighed, ...]:
        """Workers by the KV that their workflows need, which is what a policy that binds chooses by."""
        pool = self._roster.pool(pool_id)
        others = [worker_id for worker_id in pool.workers if worker_id != chosen]
        if len(others) < MAX_WEIGHED:
            others.sort(key=lambda worker_id: (pool.seats.at(worker_id).tokens[0], worker_id))
        told = []
        for worker_id in (chosen, *others[:OTHERS_TOLD]):
            hello, seat = pool.workers.get(worker_id), pool.seats.at(worker_id)
            if hello is not None:
                terms: dict[str, Fact] = {
                    "workflows": len(seat.members),
                    "needs_tokens": seat.tokens[0],
                    "room_tokens": room_tokens(hello),
                }
                told.append(Weighed(worker=worker_id, chosen=worker_id == chosen, terms=terms))
        return tuple(told)

    def _waits(self, step: Step, now_s: float) -> None:
        story = self._stories.of(step.step.step_id)
        if story is None or story.last[0] == "waits":
            return
        self._waits_since[step.step.step_id] = self._joined
        if len(self._waits_since) > MAX_STORIES:
            self._waits_since.popitem(last=False)
        story.add("waits", now_s, step.step.attempt, NO_WORKER, self.hindrance(step))

    def _turned(self, workflow: Workflow, what: str) -> None:
        """The workflow has joined the active set, or left it."""
        if what == "joined":
            self._joined += 1
            self._joins.append(workflow.root)
        known = self._turns.get(workflow.root)
        if known is None:
            known = self._turns[workflow.root] = (self._now_s, deque(maxlen=MAX_TURNS))
            if len(self._turns) > MAX_STORIES:
                self._turns.popitem(last=False)
        since_s, moments = known
        needs = self._roster.pool(workflow.pool).needs.get(workflow.root)
        facts: dict[str, Fact] = {"needs_tokens": needs[0]} if needs else {}
        moments.append(Moment(what=what, at_s=round(self._now_s - since_s, 6), worker=workflow.bound, facts=facts))

    # --- questions ---------------------------------------------------------------------------------------------

    def hindrance(self, step: Step) -> dict[str, Fact]:
        """What a step that waits is waiting for."""
        workflow = self._roster.workflows[step.step.root]
        if quota := self._quotas.waits_for(step):
            return {"limit": "quota", "quota": quota, "tenant": workflow.tenant}
        if self._quotas.hears_first(step, self._now_s):
            return {"limit": "takeover"}
        pool = self._roster.pool(workflow.pool)
        if not pool.workers:
            return {"limit": "no_worker"}
        own, tenants, first = pool.turns.before_it(workflow.root, workflow.tenant, NAMED)
        needs = pool.needs.get(workflow.root, (0,))
        return {
            "limit": "kv",
            "needs_tokens": needs[0],
            "active_workflows": len(pool.active),
            "active_tokens": pool.active_tokens[0],
            "kv_tokens": pool.kv_tokens,
            "own_before": own,
            "tenants_before": tenants,
            "first": ", ".join(first),
        }

    def answer(self, ask: WhyAsk, fence: int, now_s: float) -> WhyTold:
        """What is remembered."""
        told = self._stories.answer(ask, fence, now_s, self._told)
        root = ask.root or (told.steps[0].root if told.steps else RootId(""))
        workflow = self._roster.workflows.get(root)
        if workflow is None:
            return told
        return structs.replace(told, workflow=self._workflow(workflow, now_s))

    def _told(self, story: Story, now_s: float) -> StepTold:
        """A step that waits waits for something now, which may be another thing than at first."""
        step = self._book.steps.get(story.step.step_id)
        told = story.told(now_s)
        if step is None:
            return structs.replace(told, over=True)
        if step.life.state is not StepState.WAITING:
            return told
        now = Moment(what="waits_now", at_s=told.heard_s, attempt=step.step.attempt, facts=self.hindrance(step))
        return structs.replace(told, moments=(*told.moments, now))

    def _workflow(self, workflow: Workflow, now_s: float) -> WorkflowTold:
        _, moments = self._turns.get(workflow.root, (0.0, ()))
        needs = self._roster.pool(workflow.pool).needs.get(workflow.root)
        return WorkflowTold(
            state="active" if workflow.active else "queued" if workflow.steps else "dormant",
            submitted_s=round(now_s - workflow.submitted_s, 3),
            sessions=len(workflow.sessions),
            live_steps=len(workflow.steps),
            needs_tokens=needs[0] if needs else 0,
            bound=workflow.bound,
            moments=tuple(moments),
        )
