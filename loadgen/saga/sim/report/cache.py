"""Prefill that caches of several policies and sizes had to repeat, beside a Belady oracle: the chart."""

from collections.abc import Sequence
from typing import Final

from saga.sim.report.cache_results import CacheResult
from saga.sim.report.compare import KV_BOUND, SAGA
from saga.sim.report.drawing import chart
from saga.sim.report.lines import Line, draw, log_at, panel
from saga.sim.report.palette import SPARE, Look, look

WIDTH, HEIGHT = 620, 380
ORACLE: Final = "Belady oracle"
CAUSAL: Final = "best causal"
LOOKS: Final = {SAGA: look(SAGA), "lru": Look("blue", "-", "s"), "walru": Look("green", "-", "D")}


def regenerated(results: Sequence[CacheResult]) -> str:
    """Regenerated tokens over capacity, one line for each policy, the oracle below all."""
    sizes = sorted({result.capacity_tokens for result in results})
    causal = {r.capacity_tokens: r.best_causal_regenerated_tokens for r in results}
    oracle = {result.capacity_tokens: result.oracle_regenerated_tokens for result in results}
    most = max(result.regenerated_tokens for result in results)
    with chart("cache", WIDTH, HEIGHT) as drawn:
        axes = panel(drawn, "Tokens prefilled again")
        log_at(axes, [size / 1e6 for size in sizes])
        axes.set_ylim(0.0, max(1.0, most * 1.06) / 1e6)
        axes.set_xlabel("cache capacity (million tokens, log scale)")
        axes.set_ylabel("regenerated (million tokens)")
        lines = [
            _line(ORACLE, look(KV_BOUND), sorted(oracle.items())),
            _line(CAUSAL, Look("ink", ":", ""), sorted((size, n) for size, n in causal.items() if n is not None)),
        ]
        for number, policy in enumerate(dict.fromkeys(result.policy for result in results)):
            at = sorted((r.capacity_tokens, r.regenerated_tokens) for r in results if r.policy == policy)
            lines.append(_line(policy, LOOKS.get(policy, Look(SPARE[number % len(SPARE)], "-", "o")), at))
        draw(drawn, axes, [line for line in lines if line.xs])
        return drawn.svg("Tokens prefilled again over cache capacity, by policy")


def _line(name: str, style: Look, at: Sequence[tuple[int, int]]) -> Line:
    return Line(
        name=name,
        look=style,
        xs=tuple(size / 1e6 for size, _ in at),
        ys=tuple(tokens / 1e6 for _, tokens in at),
        tips=tuple(f"{name}, {size:,} tokens of KV: {tokens:,} tokens prefilled again" for size, tokens in at),
        bold=name in {SAGA, ORACLE, CAUSAL},
    )
