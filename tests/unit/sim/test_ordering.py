"""Two measurements of the same systems: do they agree on which is faster?"""

import pytest

from saga.sim.ordering import pairs_apart, told

LABORATORY = {"round-robin": 400.0, "session-affinity": 200.0, "saga": 150.0, "prefix-aware": 204.0}


def test_pairs_that_lie_within_noise_say_nothing():
    pairs = pairs_apart(LABORATORY, LABORATORY)

    assert [(pair.faster, pair.slower) for pair in pairs] == [
        ("saga", "session-affinity"),
        ("saga", "prefix-aware"),
        ("saga", "round-robin"),
        ("session-affinity", "round-robin"),
        ("prefix-aware", "round-robin"),
    ]
    assert all(pair.agrees for pair in pairs)


def test_a_pair_that_comes_the_other_way_round_disagrees():
    live = LABORATORY | {"saga": 210.0}

    wrong = [pair for pair in pairs_apart(LABORATORY, live) if not pair.agrees]

    assert [(pair.faster, pair.slower) for pair in wrong] == [("saga", "session-affinity"), ("saga", "prefix-aware")]
    assert wrong[0].ratio == pytest.approx(4 / 3)
    assert wrong[0].other_ratio == pytest.approx(200 / 210)


def test_systems_are_told_fastest_first():
    assert told(LABORATORY) == "saga 150 s, session-affinity 200 s, prefix-aware 204 s, round-robin 400 s"
