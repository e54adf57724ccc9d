import pytest

from saga.sim.service_gap import ServiceGap


def test_one_that_is_served_while_another_waits_makes_a_gap():
    gap = ServiceGap({"a": 1.0, "b": 1.0})
    gap.submitted("a")
    gap.submitted("b")
    for _ in range(3):
        gap.submitted("a")
        gap.ended("a", 2.0)
    assert gap.worst_s == pytest.approx(6.0)


def test_service_before_the_other_came_does_not_count():
    gap = ServiceGap({"a": 1.0, "b": 1.0})
    gap.submitted("a")
    gap.submitted("a")
    gap.ended("a", 100.0)
    gap.submitted("b")
    gap.ended("a", 1.0)
    assert gap.worst_s == pytest.approx(1.0)


def test_a_pause_of_one_begins_the_count_anew():
    gap = ServiceGap({"a": 1.0, "b": 1.0})
    for _ in range(5):
        gap.submitted("a")
    gap.submitted("b")
    gap.ended("a", 3.0)
    gap.ended("b", 0.0)
    gap.submitted("b")
    gap.ended("a", 3.0)
    assert gap.worst_s == pytest.approx(3.0)


def test_turns_that_alternate_stay_within_the_largest_step():
    gap = ServiceGap({"a": 1.0, "b": 1.0})
    gap.submitted("a")
    gap.submitted("b")
    for _ in range(50):
        for tenant in ("a", "b"):
            gap.submitted(tenant)
            gap.ended(tenant, 2.0)
    assert gap.worst_s == pytest.approx(2.0)


def test_weights_say_what_is_equal():
    gap = ServiceGap({"heavy": 3.0, "light": 1.0})
    gap.submitted("heavy")
    gap.submitted("light")
    for _ in range(10):
        gap.submitted("heavy")
        gap.ended("heavy", 3.0)
        gap.submitted("light")
        gap.ended("light", 1.0)
    assert gap.worst_s == pytest.approx(1.0)


def test_a_tenant_that_nobody_named_is_left_out():
    gap = ServiceGap({})
    gap.submitted("x")
    gap.ended("x", 1.0)
    assert gap.worst_s == 0.0
