"""Best baseline, bound and marks; places of labels; looks; the choice of runs to show."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from saga.sim.report.compare import best_baseline, bound_tct_s, by_condition, collapsed
from saga.sim.report.lines import log_steps, plain, spread
from saga.sim.report.palette import HUES, LOOKS, look
from saga.sim.report.shown import choose
from saga.sim.systems.registry import SYSTEMS


def test_conditions_tell_host_tiers_apart(report):
    conditions = by_condition(report.runs)
    assert len(conditions) == 6
    assert {condition.host_tier for condition in conditions} == {"off", "on"}
    assert all(len(runs) == 3 for systems in conditions.values() for runs in systems.values())


def test_neither_ours_nor_its_variants_nor_what_is_unstable_is_the_best_baseline(report):
    systems = dict(list(by_condition(report.runs).values())[-1])
    assert best_baseline(systems) == "affinity+cap"
    systems["saga-no-tags"] = systems["saga"]
    systems["affinity+cap"] = [replace(systems["affinity+cap"][0], unstable=True), *systems["affinity+cap"][1:]]
    assert best_baseline(systems) == "srpt+affinity"
    assert best_baseline({"saga": systems["saga"]}) == ""


def test_the_bound_is_the_same_for_all_systems_and_collapse_is_far_behind_the_best(report):
    systems = list(by_condition(report.runs).values())[4]
    assert abs((bound_tct_s(systems) or 0) - 774.0) < 1e-6
    assert collapsed(systems, "session-affinity")
    assert not collapsed(systems, "srpt+affinity")


@given(st.lists(st.floats(0, 100), max_size=8))
def test_labels_never_touch_and_stay_in_order_and_inside(wanted):
    places = spread(wanted, 10.0, 0.0, 100.0)
    ranked = sorted(places)
    assert all(b - a > 10.0 - 1e-6 for a, b in pairwise(ranked))
    assert all(-1e-6 <= place <= 100.0 + 1e-6 for place in places)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    assert [places[i] for i in order] == ranked


def test_labels_that_do_not_touch_stay_where_they_are():
    assert spread([50.0, 10.0, 80.0], 10.0, 0.0, 100.0) == [50.0, 10.0, 80.0]


def test_no_two_ticks_of_a_log_axis_have_the_same_name():
    for low, high in ((0.9, 9.0), (1.0, 200.0), (40.0, 12_000.0), (0.01, 0.05)):
        values = [step * 10.0**power for power in range(-3, 6) for step in log_steps(low, high)]
        shown = [plain(value) for value in values if low <= value <= high]
        assert len(shown) >= 2
        assert len(set(shown)) == len(shown)
    assert [plain(value) for value in (0.5, 1.5, 20.0, 1_500.0)] == ["0.5", "1.5", "20", "1,500"]


def test_every_system_has_a_look_of_its_own():
    assert set(SYSTEMS) <= set(LOOKS)
    assert len({(each.hue, each.line) for each in LOOKS.values()}) == len(LOOKS)
    assert {each.hue for each in LOOKS.values()} <= set(HUES)
    assert look("affinity+cap:0.65").hue == look("affinity+cap").hue
    assert look("nobody knows") == look("nobody knows")


def test_of_details_one_condition_of_each_host_tier_is_shown_with_its_best_baseline(report, details):
    harder = [replace(detail, pressure=pressure) for pressure in (4.0, 0.5, 1.0) for detail in details]
    tier = [replace(detail, host_tier="on") for detail in harder]
    shown = choose(report, [*harder, *details, *tier])
    assert [(each.condition.host_tier, each.condition.pressure) for each in shown] == [("off", 2.0), ("on", 1.0)]
    assert all([detail.system for detail in each.pair] == ["saga", "affinity+cap"] for each in shown)
    (alone,) = choose(report, [replace(details[2], pressure=4.0)])
    assert alone.condition.pressure == 4.0
    assert alone.pair == ()
