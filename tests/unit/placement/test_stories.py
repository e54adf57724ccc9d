"""What placement tells of a step: where it waited, where it went and what was weighed, what was cached and why not."""

from random import Random

import pytest
from msgspec import Struct
from placement_story import POOL, Story, admitted, hello, step_id

from saga.contract.ids import GatewayId, TenantId
from saga.contract.messages import (
    CostModel,
    Grant,
    Heartbeat,
    PagesRemoved,
    PagesStored,
    ResidencyDelta,
    StepFinished,
    StepStarted,
    WhyAsk,
)
from saga.contract.subjects import Subjects
from saga.contract.why_messages import StepTold
from saga.kernel.effects import Answer, Decision, Promoted, Received, Tick
from saga.placement.policy import CheapestStart
from saga.placement.state import PlacementState
from saga.placement.stealing import IdleAndUneven, SavedWait

PAGES = b"".join(number.to_bytes(8, "big") for number in range(1, 61))
OTHER = b"".join(number.to_bytes(8, "big") for number in range(101, 161))


class Told(Story):
    """A placement that remembers."""

    def __init__(self, policy=None, stealing=None, **fields) -> None:
        super().__init__(workers=0)
        policy = policy or CheapestStart()
        self.core = PlacementState("p0", Subjects(), policy, stealing, lookahead=0, now_s=10.0, stories=True)

        self.tell(Promoted(7))
        for number in range(2):
            self.hear(hello(f"w{number}", **fields))

    def of(self, number: int) -> StepTold:
        effects = self.core.handle(Received(WhyAsk(step_id=step_id(number))), self.now_s)
        (answer,) = [effect.message for effect in effects if isinstance(effect, Answer)]
        (step,) = answer.steps
        return step

    def holds(self, worker: str, seq: int, *changes) -> None:
        self.hear(ResidencyDelta(worker_id=worker, epoch=1, seq=seq, changes=changes))

    def ran(self, number: int, cached_tokens: int, prompt: int = 1_000, **fields) -> Grant:
        (grant,) = [
            m for m in self.hear(admitted(number, session="s", prompt=prompt, **fields)) if isinstance(m, Grant)
        ]
        self.take(grant)
        self.hear(StepStarted(step_id=grant.step_id, attempt=0, lease_id=grant.lease_id, worker_id=grant.worker_id))
        self.now_s += 1.5
        self.hear(
            StepFinished(
                step_id=grant.step_id, attempt=0, lease_id=grant.lease_id, worker_id=grant.worker_id,
                gateway_id=GatewayId("g0"), tenant=TenantId("t"), root=grant.root, session=grant.session, pool=POOL,
                prompt_tokens=prompt, output_tokens=100, cached_tokens=cached_tokens, finish_reason="tool_calls",
            )
        )  # fmt: skip
        return grant


def words(step: StepTold) -> list[str]:
    return [moment.what for moment in step.moments]


def test_a_step_is_told_from_its_admission_to_its_end():
    story = Told()
    grant = story.ran(1, 0, new_hashes=PAGES, new_session=True)

    step = story.of(1)

    assert words(step) == ["admitted", "granted", "taken", "started", "finished"]
    assert step.over
    assert step.moments[-1].at_s == 1.5
    assert step.moments[1].facts["reason"] == "cheapest_start"
    chosen, other = step.weighed
    assert (chosen.worker, chosen.chosen, other.chosen) == (grant.worker_id, True, False)
    assert chosen.terms.keys() == other.terms.keys() >= {"cached_tokens", "running", "queued_engine_s", "homed_tokens"}


class Price(Struct, frozen=True):
    worker_id: str
    wait_s: float
    prefill_s: float


class Priced(Decision[str], frozen=True):
    prices: tuple[Price, ...] = ()


class ByPrice:
    """A policy that says by which prices it decides."""

    engine_queues = False
    stays_home = True

    def choose(self, step, candidates):
        del step, candidates
        return Priced("w1", "cheapest", (Price("w1", 0.25, 0.5), Price("w0", 1.5, 0.0)))


def test_prices_that_a_policy_tells_are_the_terms_of_its_choice():
    story = Told(ByPrice())
    story.ran(1, 0)

    chosen, other = story.of(1).weighed

    assert (chosen.worker, chosen.terms["wait_s"], chosen.terms["prefill_s"]) == ("w1", 0.25, 0.5)
    assert (other.worker, other.terms["wait_s"], other.terms["running"]) == ("w0", 1.5, 0)


def test_a_new_session_misses_all_as_nothing_was_there():
    story = Told()
    story.ran(1, 0, new_hashes=PAGES, new_session=True)

    cached = story.of(1).cached

    assert (cached.expected_tokens, cached.cached_tokens, cached.missed_tokens) == (0, 0, {"cold": 992})
    assert cached.loss is None


def test_what_was_expected_and_evicted_is_asked_of_its_worker():
    story = Told()
    home = story.ran(1, 0, new_hashes=PAGES, new_session=True).worker_id
    story.holds(home, 1, PagesStored(PAGES))
    (grant,) = [m for m in story.hear(admitted(2, session="s", new_hashes=PAGES)) if isinstance(m, Grant)]
    story.take(grant)
    story.holds(home, 2, PagesRemoved(PAGES[8 * 20 :]))
    story.finish(grant)

    cached = story.of(2).cached

    assert (cached.expected_tokens, cached.cached_tokens) == (960, 0)
    assert (cached.loss.worker_id, cached.loss.tokens) == (home, 960)
    assert cached.missed_tokens == {}, "its worker knows"


def test_a_prompt_that_was_rewritten_misses_what_came_after_the_change():
    story = Told()
    home = story.ran(1, 0, new_hashes=PAGES, new_session=True).worker_id
    story.holds(home, 1, PagesStored(PAGES))
    story.ran(2, 160, new_hashes=PAGES[: 8 * 10] + OTHER[: 8 * 50])

    assert story.of(2).cached.missed_tokens == {"prefix_changed": 800}


def test_a_step_that_waits_for_its_home_says_behind_whom():
    story = Told(max_running=1)
    story.grant(1, session="a", home="w0")
    story.hear(admitted(2, session="b", home="w0"))
    story.hear(admitted(3, session="c", home="w0"))

    step = story.of(3)

    assert words(step) == ["admitted", "waits"]
    assert not step.over
    waits = step.moments[-1]
    assert (waits.worker, waits.facts["cause"], waits.facts["others_wait"], waits.facts["running"]) == (
        "w0",
        "home",
        1,
        1,
    )


@pytest.mark.parametrize(("stealing", "reason"), [(SavedWait(), "saves_wait"), (IdleAndUneven(Random(1)), "stolen")])
def test_a_step_that_moves_tells_what_both_places_would_have_cost(stealing, reason):
    story = Told(CheapestStart(), stealing, max_running=1, cost=CostModel(output_s_per_token=1e-2))
    for number in range(3):
        story.hear(admitted(number, session=f"s{number}", home="w0"))
    story.now_s += 0.2
    story.tell(Tick())

    step = story.of(1)

    assert words(step) == ["admitted", "waits", "granted"]
    assert (step.moments[-1].worker, step.moments[-1].facts["reason"]) == ("w1", reason)
    there, here = step.weighed
    assert (there.worker, there.chosen, here.worker, here.chosen) == ("w1", True, "w0", False)
    assert there.terms["wait_s"] == 0.0 < here.terms["wait_s"]


def test_workers_that_are_given_nothing_are_named_with_the_reason():
    story = Told()
    beat = Heartbeat(
        worker=hello("w1"), healthy=True, running=0, waiting=0, used_tokens=0, residency_seq=0, draining=True
    )
    story.hear(beat)
    story.ran(1, 0)

    assert [(one.worker, one.barred) for one in story.of(1).weighed] == [("w0", ""), ("w1", "draining")]


def test_a_step_whose_engine_died_tells_both_attempts():
    story = Told()
    grant = story.grant(1, session="s")
    story.take(grant)
    (again,) = story.give_back(grant, "engine_died", next_attempt=1)
    story.take(again)

    step = story.of(1)

    assert words(step) == ["admitted", "granted", "taken", "returned", "granted", "taken"]
    assert [m.worker for m in step.moments if m.what == "granted"] == [grant.worker_id, again.worker_id]
    assert step.moments[-2].facts["moved_from"] == grant.worker_id
    assert next(m for m in step.moments if m.what == "returned").facts == {"reason": "engine_died"}


def test_a_step_that_nobody_names_any_more_is_over():
    story = Told()
    story.grant(1, session="s")
    story.now_s += 20.0

    story.tell(Tick())
    story.now_s += 20.0
    story.tell(Tick())

    assert story.of(1).over
