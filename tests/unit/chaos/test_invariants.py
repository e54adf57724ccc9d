"""Each invariant notices what it is there for, and nothing else."""

from collections import Counter

import msgspec
import pytest
from chaos_trials import AFTER, CALM, IDLE, STRUCK, attempt, story

from saga.chaos import invariants
from saga.chaos.faults import Blow
from saga.chaos.stage import LeaseCount
from saga.chaos.transcript import Silence, answer_of


def idle(**fields):
    return msgspec.structs.replace(IDLE, **fields)


def test_a_trial_in_which_all_is_well_holds_everywhere(trial):
    stories = [story(client, at_s) for client in range(8) for at_s in (105.0, 112.0, 125.0)]
    assert [v.name for v in invariants.judged(trial(*stories)) if v.held is False] == []


def test_a_step_without_an_answer_is_lost(trial):
    verdict = invariants.nothing_lost(trial(story(attempts=[attempt(outcome="retryable", detail="503")])))
    assert (verdict.held, verdict.told) == (False, "s0.0 has no answer")


def test_a_typed_error_that_says_to_ask_again_loses_nothing_when_one_does(trial):
    verdict = invariants.nothing_lost(trial(story(attempts=[attempt(outcome="retryable"), attempt()])))
    assert (verdict.held, verdict.told) == (True, "0 of 1, 1 attempts retryable")


def test_an_untyped_error_is_a_loss_even_if_asking_again_helped(trial):
    verdict = invariants.nothing_lost(trial(story(attempts=[attempt(outcome="wrong", detail="500 oops"), attempt()])))
    assert not verdict.held
    assert "500 oops" in verdict.told


@pytest.mark.parametrize(("dead", "held"), [(0, True), (1, False)])
def test_a_connection_may_break_only_if_its_own_gateway_was_hit(trial, dead, held):
    cut = story(attempts=[attempt(outcome="cut", gateway=0), attempt(gateway=1)])
    assert invariants.nothing_lost(trial(cut, blow=Blow((), frozenset({dead})))).held is held


@pytest.mark.parametrize("text", ["", answer_of("p", 3), answer_of("p", 4) + "a", "x" + answer_of("p", 3)])
def test_a_token_missing_doubled_or_different_shows(trial, text):
    assert not invariants.nothing_twice(trial(story(text=text))).held


def test_what_came_before_a_stream_broke_off_must_be_the_beginning_of_the_answer(trial):
    begun = attempt(outcome="cut", text=answer_of("p", 2))
    doubled = attempt(outcome="cut", text=answer_of("p", 1) * 2 + answer_of("p", 2))
    assert invariants.nothing_twice(trial(story(attempts=[begun, attempt()]))).held
    assert not invariants.nothing_twice(trial(story(attempts=[doubled, attempt()]))).held


def test_a_step_that_finishes_twice_shows(trial):
    verdict = invariants.nothing_twice(trial(story(), finished=Counter({"a": 1, "b": 2})))
    assert (verdict.held, verdict.told) == (False, "b finished 2 times")


@pytest.mark.parametrize(
    "left",
    [
        idle(leases={"placement-0": LeaseCount(9, 8, 1)}),
        idle(leases={"placement-0": LeaseCount(9, 8, 0)}),
        idle(agent_leases={"worker-0": 1}),
        idle(steps_at_admission=1),
    ],
    ids=["out", "uncounted", "agent", "admission"],
)
def test_whatever_is_left_over_in_silence_is_a_leak(trial, left):
    assert not invariants.nothing_leaked(trial(story(), left=left)).held


@pytest.mark.parametrize("names", [[], ["placement-0", "placement-1"]])
def test_none_and_two_leaders_are_too_few_and_too_many(trial, names):
    left = idle(leading={"admission": ["admission-0"], "placement": names})
    assert not invariants.one_leader(trial(story(), left=left)).held


def test_an_attempt_under_two_leases_is_two_leaders_work(trial):
    assert invariants.one_leader(trial(story(), late_grants=3)).held
    assert not invariants.one_leader(trial(story(), taken_twice=1)).held


def test_a_pause_is_the_longest_silence_of_a_client_less_what_a_step_waits_in_calm(trial):
    calm = [story(client, CALM.begin_s + 1, silent_s=0.5) for client in range(4)]
    struck = [story(client, STRUCK.begin_s + 1, silent_s=0.5) for client in range(3)]
    short = story(3, STRUCK.begin_s + 1, silent_s=2.4)
    long = story(3, STRUCK.begin_s + 1, silent_s=2.6)

    assert invariants.short_pause(trial(*calm, *struck, short)).held
    assert not invariants.short_pause(trial(*calm, *struck, long)).held
    assert invariants.pause_quantiles_s(trial(*calm, *struck, long)) == pytest.approx((0.0, 2.1, 2.1))


def test_a_silence_that_began_before_the_blow_counts_whole(trial):
    calm = [story(0, CALM.begin_s + number, silent_s=0.0) for number in range(3)]
    waits = story(1, CALM.end_s - 1.0, silent_s=0.0, silences=[Silence(CALM.end_s - 1.0, CALM.end_s + 3.0)])
    assert invariants.pause_quantiles_s(trial(*calm, waits))[2] == pytest.approx(4.0)


def test_a_fault_without_a_limit_has_its_pause_measured_and_not_judged(trial):
    assert invariants.short_pause(trial(story(0, STRUCK.begin_s, silent_s=9.0), fault="kill-nats")).held is None


@pytest.mark.parametrize(("found", "held"), [(96, True), (80, False), (0, False)])
def test_sessions_must_find_their_kv_again_as_before(trial, found, held):
    before = story(0, CALM.begin_s, expected_cached_tokens=100, cached_tokens=100)
    after = story(0, AFTER.begin_s, expected_cached_tokens=100, cached_tokens=found)
    assert invariants.affinity_back(trial(before, after)).held is held


def test_tenants_must_get_the_same_to_within_the_theorem(trial):
    """Four slots, ten clients: (4 + 1 + 3) of each tenant."""
    even = [story(client, AFTER.begin_s + 1) for client in range(10)]
    more = [story(0, AFTER.begin_s + 2 + 0.1 * number) for number in range(16)]
    assert invariants.shares_back(trial(*even, *more)).held
    assert not invariants.shares_back(trial(*even, *more, story(0, AFTER.begin_s + 5))).held


def test_where_nobody_waits_there_is_nothing_to_share(trial):
    assert invariants.shares_back(trial(story(0), story(1))).held is None


def test_a_process_that_nobody_hit_must_not_die_and_one_that_was_must_come_back_to_stay(trial):
    kills = Counter({"placement-0": 1})
    assert invariants.no_crash_loop(trial(story(), restarts=Counter({"placement-0": 3}), kills=kills)).held
    assert not invariants.no_crash_loop(trial(story(), restarts=Counter({"placement-0": 4}), kills=kills)).held
    assert not invariants.no_crash_loop(
        trial(story(), restarts=Counter({"placement-0": 1, "graph": 1}), kills=kills)
    ).held


def test_a_process_that_grows_shows_unless_it_is_a_new_one(trial):
    grown = idle(resident_bytes={"graph": 80 << 20})
    assert not invariants.no_growth(trial(story(), left=grown)).held
    assert invariants.no_growth(trial(story(), left=msgspec.structs.replace(grown, pids={"graph": 8}))).held
