"""What a leader remembers of recent steps, for people: the newest few thousand, each as a row of moments.

Nothing is decided by it. A core tells it what it hears and says; `saga why` asks (`contract/why_messages.py`). Bounded
in steps and in moments, so that it costs the same after a year. Pure.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Literal

from saga.contract.ids import RootId, StepId, WorkerId
from saga.contract.step_messages import StepReady
from saga.contract.why_messages import Cached, Fact, Moment, StepTold, Weighed, WhyAsk, WhyTold

MAX_STORIES: Final = 10_000
MAX_MOMENTS: Final = 32  # of one step; then the middle is left out
MOST_TOLD: Final = 24  # steps in one answer: below 160 KiB


class Story:
    """One step, or one workflow, as one leader knows it."""

    __slots__ = ("cached", "moments", "over", "prompt_tokens", "since_s", "step", "tagged", "weighed")

    def __init__(self, step: StepReady, now_s: float) -> None:
        self.step = _Names(step)
        self.prompt_tokens = step.prompt_tokens
        self.since_s = now_s
        self.over = False
        self.moments: list[Moment] = []
        self.weighed: tuple[Weighed, ...] = ()
        self.cached: Cached | None = None
        self.tagged = False

    def add(self, what: str, now_s: float, attempt: int, worker: WorkerId, facts: Mapping[str, Fact] = {}) -> None:
        """Something happened. Facts that are empty or negative are left out: they say that nothing is known."""
        known = {name: fact for name, fact in facts.items() if fact != "" and (isinstance(fact, str) or fact >= 0)}
        moment = Moment(what=what, at_s=round(now_s - self.since_s, 6), attempt=attempt, worker=worker, facts=known)
        if len(self.moments) >= MAX_MOMENTS:
            del self.moments[MAX_MOMENTS // 2]
        self.moments.append(moment)

    def said(self, what: str) -> bool:
        """Whether such a moment is among those kept."""
        return any(moment.what == what for moment in self.moments)

    def told(self, now_s: float) -> StepTold:
        """For the asker."""
        names = self.step
        return StepTold(
            step_id=names.step_id,
            root=names.root,
            session=names.session,
            tenant=names.tenant,
            pool=names.pool,
            prompt_tokens=self.prompt_tokens,
            heard_s=round(now_s - self.since_s, 6),
            over=self.over,
            moments=tuple(self.moments),
            weighed=self.weighed,
            cached=self.cached,
            tagged=self.tagged,
        )


class _Names:
    """A step's ids, without its page hashes."""

    __slots__ = ("pool", "root", "session", "step_id", "tenant")

    def __init__(self, step: StepReady) -> None:
        self.step_id, self.root, self.session = step.step_id, step.root, step.session
        self.tenant, self.pool = step.tenant, step.pool


class Stories:
    """The newest steps of one leader."""

    def __init__(self, service: Literal["admission", "placement"], most: int = MAX_STORIES) -> None:
        self._service: Literal["admission", "placement"] = service
        self._most = most
        self._stories: OrderedDict[StepId, Story] = OrderedDict()
        self._led_since_s = 0.0

    def __len__(self) -> int:
        return len(self._stories)

    def leads(self, now_s: float) -> None:
        """From now on this process leads."""
        self._led_since_s = now_s

    def begin(self, step: StepReady, now_s: float) -> Story:
        """The step's story, begun when there is none."""
        story = self._stories.get(step.step_id)
        if story is None:
            story = self._stories[step.step_id] = Story(step, now_s)
            if len(self._stories) > self._most:
                self._stories.popitem(last=False)
        return story

    def of(self, step_id: StepId) -> Story | None:
        """The step's, if it is remembered."""
        return self._stories.get(step_id)

    def answer(
        self, ask: WhyAsk, fence: int, now_s: float, told: Callable[[Story, float], StepTold] = Story.told
    ) -> WhyTold:
        """What is remembered of the step, or of the newest steps of the workflow."""
        story = self._stories.get(ask.step_id)
        found = [story] if story is not None else self._of_root(ask.root) if not ask.step_id else []
        most = max(1, min(ask.most, MOST_TOLD))
        oldest = next(iter(self._stories.values()), None)
        return WhyTold(
            service=self._service,
            fence=fence,
            leading_s=round(now_s - self._led_since_s, 3),
            remembered=len(self._stories),
            oldest_s=round(now_s - oldest.since_s, 3) if oldest is not None else 0.0,
            steps=tuple(told(one, now_s) for one in found[-most:]),
            more=len(found) > most,
        )

    def _of_root(self, root: RootId) -> list[Story]:
        return [story for story in self._stories.values() if story.step.root == root] if root else []
