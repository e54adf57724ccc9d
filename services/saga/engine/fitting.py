"""Fits a profile's efficiencies and overhead to measured times, under `timing`'s own model of an iteration.

Three constants: shares of peak FLOPs (mfu) and bandwidth (mbu), and the overhead of an iteration. Least squares of the
relative error, each group weighing the same; an error beyond 10 % counts in proportion, not squared, so that a few bad
times do not pull. For a fixed ratio of the two efficiencies a time is linear in the rest, so only the ratio is
searched. All else in a profile is arithmetic or told by the server (`measurements`). Called by bench/gpu/fit_profile.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct

from saga.engine.measurements import Point
from saga.engine.profile import Profile
from saga.engine.timing import IterationTimer

GOAL = 0.10  # median of the relative error, of each group
FAR = 0.10  # relative error from which on a point counts in proportion
_UNBOUNDED = 1e300  # a rate that takes no time
_RATIOS = 160
_REFINEMENTS = 40
_REWEIGHTINGS = 25
_LEAST_EACH = 2  # points that compute, and points that memory must limit, for the two to be told apart
_GOLDEN = (math.sqrt(5) - 1) / 2


class FitError(ValueError):
    """Constants that these measurements cannot tell."""


class Residual(Struct, frozen=True):
    """A measured time and what the fitted profile says."""

    point: Point
    model_s: float

    @property
    def error(self) -> float:
        """Relative to the measured time; above 0: the model is too slow."""
        return self.model_s / self.point.seconds - 1


class GroupError(Struct, frozen=True):
    """Absolute relative errors of a group."""

    group: str
    points: int
    median: float
    p90: float
    worst: str
    worst_error: float


class Fit(Struct, frozen=True):
    """A profile and how well it tells the measured times."""

    profile: Profile
    residuals: tuple[Residual, ...]

    @property
    def groups(self) -> list[GroupError]:
        """In the order of their first points."""
        names = dict.fromkeys(residual.point.group for residual in self.residuals)
        return [_group_error(name, [r for r in self.residuals if r.point.group == name]) for name in names]

    @property
    def good(self) -> bool:
        """Whether each group's median meets the goal."""
        return all(group.median <= GOAL for group in self.groups)


class _Work(NamedTuple):
    """A point at full efficiency, relative to its measured time: (compute, memory, passes) of each kind of pass."""

    passes: tuple[tuple[float, float, float], ...]
    weight: float


class _Line(NamedTuple):
    """Relative time = memory_factor * what memory takes + overhead_s, at the best for a ratio."""

    loss: float
    ratio: float
    memory_factor: float
    overhead_s: float


def fit(points: Sequence[Point], base: Profile) -> Fit:
    """The profile whose iterations take as long as measured. Efficiencies and overhead of `base` do not matter.

    Efficiencies may come out above 1, when `base` has the wrong hardware or the wrong model: `check_physical` refuses
    that. Raises FitError when one of the constants makes no difference to any of these points.
    """
    works = _works(points, base)
    ridges = sorted(memory / compute for work in works for compute, memory, _ in work.passes)
    best = _search(works, math.log(ridges[0]), math.log(ridges[-1]))
    _refuse_unknown(works, best.ratio)
    fitted = msgspec.structs.replace(
        base,
        mbu=1 / best.memory_factor,
        mfu=1 / (best.memory_factor * best.ratio),
        overhead_s=best.overhead_s,
    )
    timer = IterationTimer(fitted)
    return Fit(fitted, tuple(Residual(point, _model_s(point, timer)) for point in points))


def _works(points: Sequence[Point], base: Profile) -> list[_Work]:
    """What `timing` says with one of the two limits taken away; its formulas are not written down twice."""
    bare = msgspec.structs.replace(base, mfu=1.0, mbu=1.0, overhead_s=0.0)
    compute = IterationTimer(msgspec.structs.replace(bare, mem_bytes_per_s=_UNBOUNDED))
    memory = IterationTimer(msgspec.structs.replace(bare, peak_flops=_UNBOUNDED))
    sizes: dict[str, int] = {}
    for point in points:
        sizes[point.group] = sizes.get(point.group, 0) + 1
    return [
        _Work(
            tuple(
                (
                    each.count * compute.iteration_s(each.load) / point.seconds,
                    each.count * memory.iteration_s(each.load) / point.seconds,
                    each.count / point.seconds,
                )
                for each in point.passes
            ),
            1 / (len(sizes) * sizes[point.group]),
        )
        for point in points
    ]


def _search(works: Sequence[_Work], low: float, high: float) -> _Line:
    """The best ratio: by steps over all that matter, then by golden section about the best of them."""
    step = max(high - low, 1e-9) / _RATIOS
    lines = [_line(works, low + number * step) for number in range(_RATIOS + 1)]
    best = min(range(len(lines)), key=lambda number: lines[number].loss)
    left, right = low + max(0, best - 1) * step, low + min(_RATIOS, best + 1) * step
    for _ in range(_REFINEMENTS):
        first, second = right - _GOLDEN * (right - left), left + _GOLDEN * (right - left)
        if _line(works, first).loss <= _line(works, second).loss:
            right = second
        else:
            left = first
    return min(lines[best], _line(works, (left + right) / 2), key=lambda line: line.loss)


def _line(works: Sequence[_Work], log_ratio: float) -> _Line:
    """Memory factor and overhead that are best at a ratio, reweighted until far points count in proportion."""
    ratio = math.exp(log_ratio)
    rows = [
        (sum(max(c * ratio, m) for c, m, _ in work.passes), sum(n for _, _, n in work.passes), work.weight)
        for work in works
    ]
    trust = [1.0] * len(rows)
    factor, overhead_s = 1.0, 0.0
    for _ in range(_REWEIGHTINGS):
        weighted = [(x, n, weight * part) for (x, n, weight), part in zip(rows, trust, strict=True)]
        factor, overhead_s = _least_squares(weighted)
        errors = [abs(factor * x + overhead_s * n - 1) for x, n, _ in rows]
        before, trust = trust, [min(1.0, FAR / error) if error else 1.0 for error in errors]
        if max(abs(one - other) for one, other in zip(before, trust, strict=True)) < 1e-9:
            break
    loss = 0.0
    for x, n, weight in rows:
        error = abs(factor * x + overhead_s * n - 1)
        loss += weight * (error * error if error <= FAR else FAR * (2 * error - FAR))
    return _Line(loss, ratio, factor, overhead_s)


def _least_squares(rows: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """(a, b) with the least weighted sum of (a x + b n - 1) squared; b is never negative."""
    xx = sum(w * x * x for x, _, w in rows)
    xn = sum(w * x * n for x, n, w in rows)
    nn = sum(w * n * n for _, n, w in rows)
    x1 = sum(w * x for x, _, w in rows)
    n1 = sum(w * n for _, n, w in rows)
    determinant = xx * nn - xn * xn
    if determinant > 1e-12 * xx * nn:
        factor, overhead_s = (x1 * nn - n1 * xn) / determinant, (n1 * xx - x1 * xn) / determinant
        if overhead_s >= 0 and factor > 0:
            return factor, overhead_s
    return x1 / xx, 0.0


def _refuse_unknown(works: Sequence[_Work], ratio: float) -> None:
    computed = sum(
        ratio * sum(compute for compute, _, _ in work.passes) > sum(memory for _, memory, _ in work.passes)
        for work in works
    )
    if computed < _LEAST_EACH:
        raise FitError(f"mfu cannot be told: {computed} points are limited by compute; measure longer prompts")
    if len(works) - computed < _LEAST_EACH:
        limited = len(works) - computed
        raise FitError(f"mbu cannot be told: {limited} points are limited by memory; measure decodes of more context")


def _model_s(point: Point, timer: IterationTimer) -> float:
    return sum(each.count * timer.iteration_s(each.load) for each in point.passes)


def _group_error(name: str, residuals: Sequence[Residual]) -> GroupError:
    errors = sorted(abs(residual.error) for residual in residuals)
    worst = max(residuals, key=lambda residual: abs(residual.error))
    return GroupError(
        group=name,
        points=len(errors),
        median=_quantile(errors, 0.5),
        p90=_quantile(errors, 0.9),
        worst=worst.point.name,
        worst_error=worst.error,
    )


def _quantile(ordered: Sequence[float], share: float) -> float:
    at = share * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])
