"""How full workers are planned follows what it costs: engines' time spent on prefilling what had been there."""

import msgspec
import pytest
from admission_story import POOL, Story, hello, ready, step_id
from forecasts import forecast

from saga.admission.margin import FIRST_SHARE, LEAST_SHARE, MOST_SHARE, Margin
from saga.admission.needs import LONGEST_HELD_S
from saga.admission.roster import Pool, Roster
from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.ids import RootId, SessionId
from saga.contract.messages import Forecast


def forecast_of(p50_s: float, p90_s: float) -> Forecast:
    return forecast(
        root=RootId("root-1"),
        session=SessionId("root-1"),
        step_id=step_id(1),
        gap_p50_s=p50_s,
        gap_p90_s=p90_s,
        gap_p95_s=2 * p90_s,
        gap_p99_s=3 * p90_s,
    )


def returns(story: Story, number: int, *, gap_s: float, cached_tokens: int) -> None:
    """A session whose last prompt left 2,944 tokens of whole pages comes back and finds so many of them."""
    story.now_s += gap_s
    story.hear(ready(number, "root", base_pages=184))
    story.take(number, "root")
    story.finish(number, "root", cached_tokens=cached_tokens)


def begun() -> Story:
    story = Story(WorkerBudgets())
    story.hear(ready(1, "root"))
    story.take(1, "root")
    story.finish(1, "root")
    return story


def lost_s(story: Story) -> float:
    return story.core.roster.pool(POOL).lost_s


def test_what_a_session_finds_is_not_lost():
    story = begun()

    returns(story, 2, gap_s=1.0, cached_tokens=2_944)

    assert lost_s(story) == 0.0
    assert story.core.roster.pool(POOL).spent_s > 0.0


def test_what_it_had_a_claim_to_and_does_not_find_is():
    story = begun()

    returns(story, 2, gap_s=1.0, cached_tokens=944)

    assert lost_s(story) == pytest.approx(2_000 * 1e-3)


def test_nothing_is_lost_that_nobody_had_a_claim_to():
    story = begun()

    returns(story, 2, gap_s=500.0, cached_tokens=0)

    assert lost_s(story) == 0.0


def pool(spent_s: float, lost_s: float) -> Pool:
    told = Roster(lambda _: 0.0).pool(POOL)
    told.spent_s, told.lost_s = spent_s, lost_s
    return told


def test_the_share_falls_with_what_is_lost_whoever_waits():
    margin = Margin()

    margin.learn(pool(100.0, 50.0), 1.0, crowded=False)

    assert margin.share < FIRST_SHARE


def test_it_rises_with_little_lost_while_somebody_waits_for_room():
    idle, crowded = Margin(), Margin()
    for seconds in (100.0, 200.0):
        idle.learn(pool(seconds, 0.0), seconds, crowded=False)
        crowded.learn(pool(seconds, 0.0), seconds, crowded=True)

    assert idle.share == FIRST_SHARE < crowded.share


def test_it_counts_each_second_once():
    margin = Margin()
    margin.learn(pool(100.0, 50.0), 1.0, crowded=True)
    share = margin.share

    margin.learn(pool(100.0, 50.0), 1.0, crowded=True)

    assert margin.share == share


@pytest.mark.parametrize(("lost", "bound"), [(1.0, LEAST_SHARE), (0.0, MOST_SHARE)])
def test_it_stays_within_bounds(lost, bound):
    margin = Margin()
    for hours in range(1, 100):
        margin.learn(pool(3_600.0 * hours, 3_600.0 * hours * lost), 3_600.0 * hours, crowded=True)

    assert margin.share == bound


def beside_a_tier(under_way: int, in_a_gap: int = 0) -> Pool:
    """One worker of 10,000 tokens of KV and a tier of 30,000; members of 3,100 tokens each."""
    story = Story(WorkerBudgets(learns=False), workers=0)
    story.hear(hello(host_kv_tokens=30_000, load_s_per_token=1e-4))
    for number in range(under_way + in_a_gap):
        story.hear(ready(number))
        story.take(number)
        if number >= under_way:
            story.finish(number)
    told = story.core.roster.pool(POOL)
    assert len(told.inside) == under_way + in_a_gap
    return told


def learnt(told: Pool, *, crowded: bool = True) -> float:
    """The share after some minutes in which nothing was lost."""
    margin = Margin()
    for seconds in range(0, 400, 2):
        told.spent_s = float(seconds)
        margin.learn(told, float(seconds), crowded=crowded)
    return margin.share


def test_beside_a_host_tier_the_share_falls_while_more_steps_are_under_way_than_the_device_holds():
    assert learnt(beside_a_tier(under_way=8)) < 0.7 * FIRST_SHARE


def test_it_rises_while_too_few_of_those_inside_have_a_step_to_fill_the_device():
    quiet = beside_a_tier(under_way=1, in_a_gap=6)

    assert learnt(quiet, crowded=False) == FIRST_SHARE < learnt(quiet)


def test_it_leaves_a_device_of_kv_to_join_however_many_want_it():
    told = beside_a_tier(under_way=8)
    margin = Margin()
    for hours in range(1, 100):
        told.spent_s = 3_600.0 * hours
        margin.learn(told, 3_600.0 * hours, crowded=True)

    assert margin.share * 30_000 == pytest.approx(LEAST_SHARE * 10_000)


def test_without_a_tier_who_runs_says_nothing():
    story = Story(WorkerBudgets(learns=False))
    for number in range(3):
        story.hear(ready(number))
    told = story.core.roster.pool(POOL)

    assert learnt(told, crowded=False) == FIRST_SHARE


def test_a_place_is_held_for_a_minute_or_not_at_all():
    hold_s = WorkerBudgets().held_s

    assert hold_s(forecast_of(1.0, 2.0)) == LONGEST_HELD_S
    assert hold_s(forecast_of(200.0, 3_000.0)) == 0.0


def test_no_place_is_held_for_a_session_that_has_most_likely_ended():
    forecast = msgspec.structs.replace(forecast_of(1.0, 2.0), samples=20)
    hold_s = WorkerBudgets().held_s

    assert hold_s(msgspec.structs.replace(forecast, returns=0.1)) == 0.0
    assert hold_s(msgspec.structs.replace(forecast, returns=0.1, samples=0)) == LONGEST_HELD_S, "nobody has learnt that"
    assert hold_s(msgspec.structs.replace(forecast, returns=0.9)) == LONGEST_HELD_S


def test_the_hold_is_that_of_the_policy():
    told = [Story(), Story(WorkerBudgets())]
    for story in told:
        story.hear(ready(1, "root-1"))
        story.take(1)
        story.finish(1)
        story.hear(forecast_of(1.0, 2.0))

    sessions = [next(iter(story.core.roster.workflows[RootId("root-1")].sessions.values())) for story in told]
    assert [session.dormant_at_s for session in sessions] == [102.0, 100.0 + LONGEST_HELD_S]


@pytest.mark.parametrize(("speed", "gap_s"), [(1.0, 2.0), (10.0, 0.2)])
def test_where_all_goes_ten_times_as_fast_places_are_held_a_tenth_as_long(speed, gap_s):
    story = Story(WorkerBudgets(), speed=speed)
    story.hear(ready(1, "root-1"))
    story.take(1)
    story.finish(1)
    story.hear(forecast_of(gap_s, 2 * gap_s))

    (session,) = story.core.roster.workflows[RootId("root-1")].sessions.values()
    assert session.dormant_at_s == 100.0 + LONGEST_HELD_S / speed


def test_a_gap_of_a_second_is_a_long_one_where_all_goes_a_hundred_times_as_fast():
    story = Story(WorkerBudgets(), speed=100.0)
    story.hear(ready(1, "root-1"))
    story.take(1)
    story.finish(1)
    story.hear(forecast_of(1.0, 2.0))

    (session,) = story.core.roster.workflows[RootId("root-1")].sessions.values()
    assert session.dormant_at_s == 100.0


def test_engine_seconds_are_told_as_the_engines_count_them():
    told = [Story(speed=speed) for speed in (1.0, 10.0)]
    for story in told:
        story.hear(ready(1, "root"))
        story.take(1, "root")
        story.finish(1, "root")

    slow, fast = (story.core.roster.pool(POOL).spent_s for story in told)
    assert slow > 0.0
    assert fast == pytest.approx(10.0 * slow)
