"""What placement remembers of each step for `saga why`: told by `state.py` what it hears and what it says.

Decides nothing. Where a step could have gone is told by `dispatch.py` when it asks its policy; why tokens were not
cached is worked out when the step finishes, by the rule of `contract/misses.py`.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from saga.contract.ids import StepId, WorkerId
from saga.contract.messages import (
    Grant,
    LeaseReleased,
    LeaseReturned,
    LeaseTaken,
    Message,
    StepAdmitted,
    StepCancelled,
    StepClaim,
    StepFinished,
    StepProgress,
    StepStarted,
    WhyAsk,
    WhyTold,
)
from saga.contract.misses import Sent, Used, shortfall
from saga.contract.why_messages import Cached, StepTold
from saga.kernel.effects import Decision, Effect, Publish
from saga.kernel.stories import MAX_STORIES, Stories, Story
from saga.placement.board import Board
from saga.placement.candidate import Candidate
from saga.placement.choices import Choice, told
from saga.placement.supersession import HASH_BYTES, shared_pages

Barred = Callable[[], Iterable[tuple[WorkerId, str]]]


class _Open:
    """A step that is not over."""

    __slots__ = ("choice", "first", "last", "sent")

    def __init__(self) -> None:
        self.sent: Sent | None = None
        self.first: Grant | None = None
        self.last: Grant | None = None
        self.choice: Choice | None = None  # since the last Grant


class PlacementStories:
    """Of one placement."""

    def __init__(self, board: Board, barred: Barred) -> None:
        """`barred`: workers that are given no steps, and why."""
        self._board = board
        self._barred = barred
        self._stories = Stories("placement")
        self._open: OrderedDict[StepId, _Open] = OrderedDict()

    def leads(self, now_s: float) -> None:
        """From now on this process leads; steps from an earlier lead of its own may have gone on elsewhere."""
        self._stories.leads(now_s)

    def answer(self, ask: WhyAsk, fence: int, now_s: float) -> WhyTold:
        """What is remembered."""
        return self._stories.answer(ask, fence, now_s, self._told)

    def _told(self, story: Story, now_s: float) -> StepTold:
        """A step that nobody named any more is over without a word."""
        story.over = story.over or story.step.step_id not in self._board.steps
        return story.told(now_s)

    def _opened(self, step_id: StepId) -> _Open:
        known = self._open.get(step_id)
        if known is None:
            known = self._open[step_id] = _Open()
            if len(self._open) > MAX_STORIES:
                self._open.popitem(last=False)
        return known

    # --- what is heard -----------------------------------------------------------------------------------------

    def heard(self, message: Message, now_s: float) -> None:
        """Before the books change: a prompt is compared with its session's last."""
        match message:
            case StepAdmitted():
                self._admitted(message, now_s)
            case StepClaim():
                story = self._stories.begin(message.step, now_s)
                story.add("claimed", now_s, message.step.attempt, message.worker_id)
            case LeaseTaken():
                self._note("taken", message, now_s)
            case StepStarted():
                self._note("started", message, now_s)
            case StepProgress():
                known = self._stories.of(message.step_id)
                if known is not None and known.last[0] in ("", "started", "taken"):
                    known.add("first_token", now_s, message.attempt, message.worker_id)
            case LeaseReturned():
                self._note("returned", message, now_s, reason=message.reason)
                if message.reason == "client_gone":
                    self._over(message.step_id)
            case LeaseReleased():
                self._note("lease_expired", message, now_s)
            case StepCancelled():
                what = "failed" if message.failed else "client_left"
                self._note(what, message, now_s, output_tokens=message.output_tokens)
                self._over(message.step_id)
            case StepFinished():
                self._finished(message, now_s)

    def _note(
        self,
        what: str,
        message: LeaseTaken | StepStarted | LeaseReturned | LeaseReleased | StepCancelled,
        now_s: float,
        **facts: str | float,
    ) -> None:
        story = self._stories.of(message.step_id)
        if story is not None:
            story.add(what, now_s, message.attempt, message.worker_id, facts)

    def _admitted(self, admitted: StepAdmitted, now_s: float) -> None:
        step = admitted.step
        known = self._stories.of(step.step_id)
        story = self._stories.begin(step, now_s)
        again = known is not None
        story.add(
            "admitted_again" if again else "admitted",
            now_s,
            step.attempt,
            admitted.home,
            {
                "waited": "" if admitted.waited == "none" else admitted.waited,
                "tag_s": admitted.tag.virtual_start_s,
            },
        )
        if again:
            return
        session = self._board.sessions.get(step.session)
        last = session.hashes if session is not None and session.stride == 1 == step.hash_stride else b""
        base = HASH_BYTES * step.base_pages
        extends = bool(base) and last[base - HASH_BYTES : base] == step.base_tip
        begun = last[:base] + step.new_hashes if extends else step.new_hashes
        comparable = bool(last) and (extends or not base)
        self._opened(step.step_id).sent = Sent(
            prompt_tokens=step.prompt_tokens,
            page_tokens=step.page_tokens,
            last_tokens=len(last) // HASH_BYTES * step.page_tokens if comparable else -1,
            shared_tokens=shared_pages(last, begun) * step.page_tokens if comparable else 0,
            begins=admitted.new_session,
            tagged=True,
            gap_s=step.gap_s,
            ran_at=session.ran_at if session is not None else WorkerId(""),
        )

    def _finished(self, finished: StepFinished, now_s: float) -> None:
        story = self._stories.of(finished.step_id)
        if story is None:
            return
        story.add(
            "finished",
            now_s,
            finished.attempt,
            finished.worker_id,
            {
                "reason": finished.finish_reason,
                "output_tokens": finished.output_tokens,
                "control_s": finished.waited_s,
                "first_token_s": finished.first_token_s,
                "engine_s": finished.engine_s,
            },
        )
        self._account(story, finished)
        self._over(finished.step_id)

    def _account(self, story: Story, finished: StepFinished) -> None:
        known = self._open.get(finished.step_id)
        if known is None or known.sent is None or known.first is None or known.last is None:
            return
        first, last, sent = known.first, known.last, known.sent
        used = Used(finished.prompt_tokens, finished.cached_tokens)
        missed, loss = shortfall(sent, first, last, used)
        story.tagged = bool(last.session_tag)
        story.cached = Cached(
            prompt_tokens=finished.prompt_tokens,
            expected_tokens=last.cached_tokens,
            cached_tokens=finished.cached_tokens,
            missed_tokens=missed,
            loss=loss,
            gap_s=sent.gap_s,
        )

    def _over(self, step_id: StepId) -> None:
        story = self._stories.of(step_id)
        if story is not None:
            story.over = True
        self._open.pop(step_id, None)

    # --- what is decided ---------------------------------------------------------------------------------------

    def weighed(self, step_id: StepId, candidates: Sequence[Candidate], decision: Decision[WorkerId]) -> None:
        """A policy was asked where the step goes."""
        self._opened(step_id).choice = Choice(candidates, decision)

    def said(self, message: Message | None, effects: Iterable[Effect], now_s: float) -> None:
        """After the books have changed: what was granted, and where a step waits that was not. `message`: None at a
        tick, when steps move."""
        for effect in effects:
            if isinstance(effect, Publish) and isinstance(effect.message, Grant):
                self._granted(effect.message, now_s)
        if isinstance(message, StepAdmitted | LeaseReturned):
            self._waits(message.step.step_id if isinstance(message, StepAdmitted) else message.step_id, now_s)

    def _granted(self, grant: Grant, now_s: float) -> None:
        story = self._stories.of(grant.step_id)
        if story is None:
            return
        story.add(
            "granted",
            now_s,
            grant.attempt,
            grant.worker_id,
            {
                "reason": grant.reason,
                "expected_tokens": grant.cached_tokens,
                "cost_s": grant.cost_s,
                "waited": "" if grant.waited == "none" else grant.waited,
                "new_session": int(grant.new_session),
                "moved_from": grant.moved_from,
                "ran_at": grant.ran_at if grant.ran_at != grant.worker_id else "",
                "left_tokens": grant.left_tokens,
            },
        )
        known = self._opened(grant.step_id)
        choice, known.choice = known.choice, None
        story.weighed = partial(told, choice, grant.worker_id, grant.reason, tuple(self._barred()))
        known.first, known.last = known.first or grant, grant

    def _waits(self, step_id: StepId, now_s: float) -> None:
        step, story = self._board.steps.get(step_id), self._stories.of(step_id)
        if step is None or story is None or step.queued_at is None:
            return
        home = step.queued_at
        worker = self._board.workers.get(home)
        queue = self._board.at_home.get(home) if home else self._board.homeless.get(step.admitted.step.pool)
        story.add(
            "waits",
            now_s,
            step.attempt,
            home,
            {
                "cause": step.wait_cause,
                "others_wait": len(queue) - 1 if queue else 0,
                "running": len(worker.leases) if worker is not None else -1,
                "leased_tokens": worker.leased_tokens if worker is not None else -1,
                "kv_tokens": worker.hello.kv_tokens if worker is not None else -1,
            },
        )
