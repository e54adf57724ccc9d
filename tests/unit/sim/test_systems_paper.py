"""The published rules, pausing and resuming, and what idle sessions are worth to each."""

import pytest
from admission_story import Story, hello, ready
from forecasts import forecast
from msgspec.structs import replace
from placement_story import admitted

from saga.contract.ids import SessionId, WorkerId
from saga.contract.messages import SessionsReleased, StepAdmitted
from saga.placement.candidate import Candidate
from saga.sim.systems.paper import ThetaAffinity
from saga.sim.systems.pausing import PauseResume, Readiness
from saga.sim.systems.retention import FixedTtl, StepsToRun
from saga.worker.retention import Idle, Paper

FORECAST = forecast(gap_p95_s=4.0)
IDLE = Idle(ended_s=100.0, context_tokens=1_000)


def candidate(name: str, **fields) -> Candidate:
    given = {
        "cached_tokens": 0,
        "leases": 0,
        "leased_engine_s": 0.0,
        "queued_engine_s": 0.0,
        "homed_tokens": 0,
        "homed_sessions": 0,
        "kv_tokens": 10_000,
        "prompt_s_per_token": 1e-4,
    }
    return Candidate(worker_id=WorkerId(name), **(given | fields))


@pytest.mark.parametrize(("leased_tokens", "chosen"), [(5_000, "home"), (9_900, "idle")])
def test_a_session_leaves_home_at_theta(leased_tokens: int, chosen: str):
    home = candidate("home", is_home=True, leases=32, leased_tokens=leased_tokens)
    if chosen == "home":
        home = replace(home, leases=8)

    assert ThetaAffinity().choose(admitted(1).step, [home, candidate("idle")]).choice == chosen


def test_the_tool_ttl_halves_under_pressure_and_has_a_cap():
    rule = Paper()

    assert rule.keep_s(FORECAST, replace(IDLE, used_share=0.5)).choice == 4.0
    assert rule.keep_s(FORECAST, replace(IDLE, used_share=0.8)).choice == pytest.approx(3.0)
    assert rule.keep_s(FORECAST, replace(IDLE, used_share=1.0)).choice == 2.0
    assert rule.keep_s(replace(FORECAST, gap_p95_s=900.0), IDLE).choice == 300.0


def test_wa_lru_keeps_what_was_used_later_returns_likelier_and_is_smaller():
    rule = Paper()
    rule.value(FORECAST, replace(IDLE, context_tokens=10_000))
    before = rule.value(FORECAST, IDLE)

    assert rule.value(replace(FORECAST, returns=0.1), IDLE) < before
    assert rule.value(FORECAST, replace(IDLE, context_tokens=9_000)) < before
    assert rule.value(FORECAST, replace(IDLE, ended_s=101.0)) > before


def test_the_session_that_runs_sooner_is_worth_more_and_one_that_ends_is_not_kept():
    rule = StepsToRun()
    later = replace(FORECAST, gap_p50_s=30.0)

    assert rule.value(FORECAST, IDLE) > rule.value(later, IDLE)
    assert rule.value(later, IDLE) > rule.value(FORECAST, replace(IDLE, ended_s=140.0))
    assert rule.keep_s(replace(FORECAST, returns=0.0), IDLE).choice == 0.0
    assert rule.keep_s(later, IDLE).choice > 300.0


def test_a_fixed_time_is_fixed():
    assert FixedTtl(5.0).keep_s(replace(FORECAST, gap_p95_s=900.0), IDLE).choice == 5.0
    assert FixedTtl(5.0).keep_s(FORECAST, replace(IDLE, final=True)).choice == 0.0


def pausing(*, largest_first: bool = False, **settings) -> Story:
    """Two workers of 10,000 tokens with four workflows of 3,000, two on each."""
    story = Story(PauseResume(**settings), rank=Readiness(largest_first=largest_first), workers=0)
    for name in ("w0", "w1"):
        story.hear(hello(name))
    homes = {}
    for number in (1, 2, 3, 4):
        said = story.hear(ready(number))
        homes[number] = next(m.home for m in said if isinstance(m, StepAdmitted))
        story.take(number, worker=homes[number])
        story.now_s += 1.0
    assert sorted(homes.values()) == ["w0", "w0", "w1", "w1"]
    story.homes = homes
    return story


def test_newcomers_wait_while_no_worker_has_room():
    story = pausing()

    assert story.admitted(ready(5)) == []
    assert story.admitted(ready(6, prompt_tokens=1_000)) == ["6".rjust(32, "0")]


def test_the_smallest_of_an_overfull_worker_is_paused_and_resumes_where_there_is_room():
    story = pausing()
    first, second = (n for n in (1, 2, 3, 4) if story.homes[n] == "w0")
    story.finish(first, prompt_tokens=6_000, worker_id=WorkerId("w0"))

    said = story.finish(second, prompt_tokens=3_900, worker_id=WorkerId("w0"))

    (released,) = [m for m in said if isinstance(m, SessionsReleased)]
    assert (released.sessions, released.reason) == ((SessionId(f"root-{second}"),), "unbound")
    assert story.admitted(ready(7, f"root-{second}", prompt_tokens=4_000)) == []
    other = next(n for n in (1, 2, 3, 4) if story.homes[n] == "w1")
    resumed = [m for m in story.finish(other, worker_id=WorkerId("w1"), final=True) if isinstance(m, StepAdmitted)]
    assert [(m.step.root, m.home) for m in resumed] == [(f"root-{second}", "w1")]


def test_who_waits_longer_than_the_timeout_resumes_without_room():
    story = pausing(timeout_s=100.0)
    story.admitted(ready(5))
    story.now_s += 101.0

    said = story.finish(1, worker_id=WorkerId(story.homes[1]))

    assert [m.step.root for m in said if isinstance(m, StepAdmitted)] == ["root-5"]
