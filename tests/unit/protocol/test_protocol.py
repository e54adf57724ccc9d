"""The step protocol where one thing goes wrong at a time: no step hangs or fails for it, none runs twice, none leaks.

What is checked after each event, and in the end, is in `fault_invariants` and `fault_run`; much at once: `fault_seeds`.
"""

import pytest
from fault_run import run_under
from fault_schedule import KINDS, Cut, Kill, Noise, Pause, Skew

SEED = 3


def survived(*faults):
    """The run under these faults, which must break nothing."""
    told = run_under(tuple(sorted(faults, key=lambda fault: fault.at_s)), SEED)
    assert told.problems == []
    return told


def test_a_good_network_answers_every_step_at_the_first_attempt():
    told = survived()

    assert set(told.ends) == {"answered", "client gone"}
    assert told.seen["LeaseReturned"] == told.seen["ResendSteps"] == told.seen["step's end told again"] == 0


@pytest.mark.parametrize("service", ["admission", "placement", "graph"])
def test_a_death_in_the_middle_delays_steps_and_fails_none(service):
    told = survived(Kill(3.0, service, 1.0, silent=False))

    assert set(told.ends) == {"answered", "client gone"}


def test_an_agents_death_is_seen_by_nobody():
    told = survived(Kill(3.0, "w0", 1.0, silent=False))

    assert set(told.ends) == {"answered", "client gone"}
    assert told.seen["LeaseReturned"] == 0


@pytest.mark.parametrize("silent", [False, True], ids=["its process", "its machine"])
def test_an_engines_death_moves_its_steps_elsewhere(silent):
    told = survived(Kill(3.0, "e0", 4.0, silent=silent))

    assert told.seen["LeaseReturned"] > 0
    assert set(told.ends) <= {"answered", "client gone", "failed: not resumable"}


@pytest.mark.parametrize("silent", [False, True], ids=["its process", "its machine"])
def test_a_gateways_death_ends_its_own_steps_alone(silent):
    told = survived(Kill(3.0, "g0", 4.0, silent=silent))

    assert told.ends["gateway died"] > 0
    assert set(told.ends) == {"answered", "client gone", "gateway died"}
    assert told.seen["LeaseReleased"] > 0


@pytest.mark.parametrize("victim", ["admission", "placement", "g0", "w0", "e0", "graph"])
def test_ten_seconds_without_a_process_that_then_goes_on(victim):
    survived(Pause(3.0, 10.0, victim))


@pytest.mark.parametrize(
    ("one", "other"),
    [("*", "bus"), ("admission", "bus"), ("g0", "bus"), ("w0", "bus"), ("*", "store"), ("placement", "admissions"),
     ("g0", "placements"), ("g0", "w0"), ("g0", "e0"), ("w0", "e0"), ("w0", "placements")],
)  # fmt: skip
def test_eight_seconds_in_which_nothing_passes_between_two(one, other):
    told = survived(Cut(3.0, 8.0, one, other), Kill(5.0, "admission", 1.0, silent=False))

    assert set(told.ends) <= {"answered", "client gone", "failed: not resumable"}


def test_wall_clocks_decide_nothing():
    victims = ("admission", "placement", "g0", "w0", "w1", "graph")
    wrong = [Skew(0.5, victim, wall_s) for victim, wall_s in zip(victims, (-86_400.0, 3_600.0) * 3, strict=True)]
    deaths = [Kill(2.0 + number, victim, 0.5, silent=False) for number, victim in enumerate(victims)]

    survived(*wrong, *deaths)


@pytest.mark.parametrize("kind", KINDS)
def test_any_kind_of_message_may_be_lost_for_a_while_in_which_leaders_and_engines_die(kind):
    told = survived(
        Noise(0.5, 9.0, "*", "*", kind, lose=1.0, double=0.0, late=0.0, latest_s=0.0, reorder=False),
        Kill(2.0, "placement", 1.0, silent=False),
        Kill(3.0, "e0", 2.0, silent=False),
        Kill(4.0, "admission", 1.0, silent=False),
    )

    assert set(told.ends) <= {"answered", "client gone", "failed: not resumable"}
