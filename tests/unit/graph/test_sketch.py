"""Quantiles within 2 %, bounded, and a tail that stays."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.graph.sketch import (
    LARGEST_S,
    MAX_BUCKETS,
    MAX_WEIGHT,
    RELATIVE_ERROR,
    SMALLEST_S,
    UNIT,
    Sketch,
    blended,
    bucket_of,
    quantiles,
    value_of,
)


def sketch_of(values):
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


@given(st.lists(st.floats(SMALLEST_S, 1e5), min_size=1, max_size=300), st.floats(0.0, 1.0))
def test_a_quantile_is_within_the_error_of_a_sample_of_that_rank(values, share):
    [found] = quantiles(sketch_of(values), (share,))
    ordered = sorted(values)
    rank = min(max(int(-(-share * len(values) // 1)) - 1, 0), len(values) - 1)
    near = ordered[max(rank - 1, 0) : rank + 2]
    assert any(abs(found - value) <= RELATIVE_ERROR * 1.001 * value for value in near)


@given(st.floats(SMALLEST_S, 1e6))
def test_a_bucket_stands_for_what_is_in_it(value):
    assert abs(value_of(bucket_of(value)) - value) <= RELATIVE_ERROR * 1.001 * value


def test_zero_and_absurd_durations_have_a_bucket():
    sketch = sketch_of([0.0, 1e12])
    assert quantiles(sketch, (0.5,)) == [SMALLEST_S]
    assert bucket_of(1e12) == bucket_of(1e300)


def test_the_tail_is_kept_while_it_recurs():
    rng = Random(1)
    sketch = sketch_of(300.0 if n % 25 == 0 else rng.uniform(0.5, 2.0) for n in range(20_000))
    p50, p95, p99 = quantiles(sketch, (0.5, 0.95, 0.99))
    assert 0.5 < p50 < 2.0
    assert p95 < 2.1
    assert abs(p99 - 300.0) < 300.0 * RELATIVE_ERROR * 1.01
    assert sketch.weight <= MAX_WEIGHT * 33 / 32 + 1
    assert sketch.samples == 20_000


def test_it_follows_slow_change():
    sketch = sketch_of([1.0, 8.0] * 2_500 + [2.0, 16.0] * 6_000)  # too near to be told from chance
    assert quantiles(sketch, (0.25, 0.75)) == pytest.approx([2.0, 16.0], rel=0.03)


@pytest.mark.parametrize("factor", [10.0, 0.1])
def test_a_jump_is_told_from_chance_and_what_came_before_counts_no_more(factor):
    rng = Random(2)
    sketch = sketch_of(rng.lognormvariate(0.0, 0.8) for _ in range(20_000))
    after = 0
    while abs(math.log(quantiles(sketch, (0.5,))[0] / factor)) > 0.25:
        sketch.add(factor * rng.lognormvariate(0.0, 0.8))
        after += 1
    assert after <= 150


def test_one_session_alone_takes_longer_to_be_believed():
    rng = Random(2)
    many, one = (sketch_of(rng.lognormvariate(0.0, 0.8) for _ in range(4_000)) for _ in range(2))
    for number in range(800):
        many.add(50.0, number + 1)
        one.add(50.0, 7)
    assert many.weight < 1_000
    assert one.weight > 2_000
    for _ in range(100):
        one.add(50.0, 7)
    assert one.weight < 1_000


def test_chance_is_not_taken_for_a_jump():
    rng = Random(3)
    sketch = Sketch()
    least = MAX_WEIGHT
    for number in range(60_000):
        sketch.add(rng.choice((0.2, 5.0, 5.0, 40.0)))
        if number > MAX_WEIGHT:
            least = min(least, sketch.weight)
    assert least >= MAX_WEIGHT / 2 - 1


def test_equal_durations_are_no_jump():
    sketch = sketch_of([1.0] * 1_000)
    assert sketch.weight == 1_000.0


def test_it_is_bounded():
    sketch = sketch_of(1.05**n for n in range(-400, 600))
    assert len(sketch.counts) <= MAX_BUCKETS
    assert quantiles(sketch, (1.0,))[0] == pytest.approx(LARGEST_S, rel=0.03)


def test_what_is_no_duration_counts_as_the_shortest():
    sketch = sketch_of([math.nan, -1.0, -math.inf])
    assert quantiles(sketch, (0.5,)) == [SMALLEST_S]
    assert bucket_of(math.inf) == bucket_of(LARGEST_S)


def test_a_prior_counts_as_so_many_samples():
    narrow, wide = sketch_of([1.0] * 10), sketch_of([100.0] * 1_000)
    alone = blended(None, (wide, 10.0))
    assert quantiles(alone, (0.5,)) == pytest.approx([100.0], rel=0.03)
    mix = blended(alone, (narrow, 10.0))
    assert quantiles(mix, (0.49, 0.51)) == pytest.approx([1.0, 100.0], rel=0.03)
    assert sum(mix.weights) == pytest.approx(mix.total)
    assert blended(None, (wide, 10.0), (narrow, 10.0)) == mix
    assert blended(mix, (Sketch(), 10.0)) is mix
    assert blended(None, (Sketch(), 10.0)) is None


@given(st.lists(st.floats(SMALLEST_S, 1e5), max_size=50), st.lists(st.floats(SMALLEST_S, 1e5), min_size=1, max_size=50))
def test_a_blend_is_the_weighted_sum_of_both(few, many):
    few, many = sketch_of(few), sketch_of(many)
    mix = blended(blended(None, (many, 1.0)), (few, 20.0))
    share = 20.0 / (20.0 + few.weight)
    assert sum(mix.weights) == pytest.approx(mix.total)
    for at in range(mix.low, mix.low + len(mix.weights)):
        parts = [dict(enumerate(sketch.counts, sketch.low)).get(at, 0) for sketch in (few, many)]
        expected = parts[1] / many.total * share + (parts[0] / few.total * (1 - share) if few.total else 0.0)
        assert mix.weights[at - mix.low] / mix.total == pytest.approx(expected)


def test_old_samples_are_dropped_in_the_end():
    sketch = sketch_of([500.0] + [1.0] * MAX_WEIGHT * 6)
    assert sketch.total == sum(sketch.counts)
    assert quantiles(sketch, (1.0,)) == pytest.approx([1.0], rel=0.03)
    assert sketch.total <= (MAX_WEIGHT * 33 // 32 + 2) * UNIT


def test_an_empty_sketch_has_no_quantiles():
    with pytest.raises(ValueError, match="empty"):
        quantiles(Sketch(), (0.5,))
