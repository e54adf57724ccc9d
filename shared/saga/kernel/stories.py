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
NO_FACTS: Final[Mapping[str, Fact]] = {}
MOST_TOLD: Final = 24  # steps in one answer: below 160 KiB


class Story:
    """One step as one leader knows it. What is kept is kept as it came: most stories are never told."""

    __slots__ = ("_moments", "cached", "over", "prompt_tokens", "since_s", "step", "tagged", "weighed")

    def __init__(self, step: StepReady, now_s: float) -> None:
        self.step = _Names(step)
        self.prompt_tokens = step.prompt_tokens
        self.since_s = now_s
        self.over = False
        self._moments: list[tuple[str, float, int, WorkerId, Mapping[str, Fact]]] = []
        self.weighed: Callable[[], tuple[Weighed, ...]] | None = None  # asked when it is told
        self.cached: Cached | None = None
        self.tagged = False

    def add(
        self, what: str, now_s: float, attempt: int, worker: WorkerId, facts: Mapping[str, Fact] = NO_FACTS
    ) -> None:
        """Something happened. Facts that are empty or negative will be left out: they say that nothing is known."""
        if len(self._moments) >= MAX_MOMENTS:
            del self._moments[MAX_MOMENTS // 2]
        self._moments.append((what, now_s, attempt, worker, facts))

    @property
    def last(self) -> tuple[str, int]:
        """(what happened last, in which attempt)."""
        return (self._moments[-1][0], self._moments[-1][2]) if self._moments else ("", 0)

    def said(self, what: str, attempt: int) -> bool:
        """Whether this is among what is kept of this attempt."""
        return any(moment[0] == what and moment[2] == attempt for moment in self._moments)

    def _moment(self, what: str, at_s: float, attempt: int, worker: WorkerId, facts: Mapping[str, Fact]) -> Moment:
        known = {
            name: _short(fact) for name, fact in facts.items() if fact != "" and (isinstance(fact, str) or fact >= 0)
        }
        return Moment(what=what, at_s=round(at_s - self.since_s, 6), attempt=attempt, worker=worker, facts=known)

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
            moments=tuple(self._moment(*moment) for moment in self._moments),
            weighed=self.weighed() if self.weighed is not None else (),
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


def _short(fact: Fact) -> Fact:
    return round(fact, 6) if isinstance(fact, float) else fact


def _says(fact: Fact) -> bool:
    return fact != "" if isinstance(fact, str) else fact >= 0
