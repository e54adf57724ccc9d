"""Quantiles within 2 %, bounded, and a tail that stays."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.graph.sketch import (
    MAX_BUCKETS,
    MAX_WEIGHT,
    RELATIVE_ERROR,
    SMALLEST_S,
    Sketch,
    bucket_of,
    mixed,
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
    assert sketch.weight <= MAX_WEIGHT
    assert sketch.samples == 20_000


def test_it_follows_change():
    sketch = sketch_of([1.0] * 5_000 + [10.0] * 12_000)
    assert quantiles(sketch, (0.25,))[0] > 9.0


def test_it_is_bounded():
    sketch = sketch_of(1.05**n for n in range(-140, 300))
    assert len(sketch.weights) <= MAX_BUCKETS
    assert quantiles(sketch, (1.0,))[0] > 1.05**298


def test_a_mix_fills_up_from_wider_sketches():
    narrow, wide = sketch_of([1.0] * 10), sketch_of([100.0] * 1_000)
    mix = mixed([narrow, wide], enough=20.0)
    assert mix.weight == pytest.approx(20.0)
    assert quantiles(mix, (0.4, 0.9)) == pytest.approx([1.0, 100.0], rel=0.03)
    alone = mixed([wide, narrow], enough=20.0)
    assert alone.weight == 1_000.0
    assert mixed([Sketch(), narrow], enough=5.0).weight == 10.0


def test_buckets_stay_in_order_so_that_quantiles_need_no_sorting():
    sketch = sketch_of([5.0, 0.1, 300.0, 2.0, 0.1])
    assert list(sketch.weights) == sorted(sketch.weights)
    assert quantiles(sketch, (0.0, 0.4, 1.0)) == pytest.approx([0.1, 0.1, 300.0], rel=0.03)


def test_an_empty_sketch_has_no_quantiles():
    with pytest.raises(ValueError, match="empty"):
        quantiles(Sketch(), (0.5,))
