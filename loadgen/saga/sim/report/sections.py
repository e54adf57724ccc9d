"""What the page is made of, in order: each section's title, how to read it, and its tables and charts."""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from saga.sim.detail import RunDetail
from saga.sim.figures import Report
from saga.sim.report.ablation import ablation_bars
from saga.sim.report.cache import regenerated
from saga.sim.report.cache_results import CacheReport, CacheResult
from saga.sim.report.cdf import distributions
from saga.sim.report.classes import classes_table
from saga.sim.report.compare import SAGA, by_condition
from saga.sim.report.curves import curves
from saga.sim.report.headline import NONE, condition_table, glance, seeds_table
from saga.sim.report.markup import Html, figure, join, row, table, tag
from saga.sim.report.moves import moves_timeline
from saga.sim.report.occupancy import MOST_WORKERS, occupancy
from saga.sim.report.shown import Shown, choose
from saga.sim.report.tenants import most_normalised_s, service
from saga.sim.report.timeline import timeline
from saga.sim.report.verdict import verdict_bars
from saga.sim.report.words import (
    ABLATION,
    CACHE,
    CACHE_HEADS,
    CDFS,
    CURVES,
    GLANCE,
    KV,
    MOVES,
    TABLES,
    TENANTS,
    WORDS,
    WORKFLOW,
)

MOST_TIMELINES = 4  # of runs in which steps moved


class Section(Struct, frozen=True):
    """`how`: one or two sentences that say how to read it."""

    anchor: str
    title: str
    how: str
    body: tuple[Html, ...]


def sections(
    report: Report, details: Sequence[RunDetail], *, cache: CacheReport | None, ablation: Report
) -> Iterator[Section]:
    """Those that have something to show."""
    if report.runs:
        yield Section("glance", "At a glance", GLANCE, tuple(_glance(report)))
        yield Section("curves", "Completion time against load", CURVES, tuple(_curves(report)))
        yield Section("tables", "All systems, all figures", TABLES, tuple(_tables(report)))
    shown = choose(report, details)
    if shown:
        yield Section("cdf", "Distribution over tasks", CDFS, tuple(_cdfs(shown)))
    if any(detail.samples for group in shown for detail in group.pair):
        yield Section("kv", "KV of each worker over time", KV, tuple(_kv(shown)))
    if any(detail.spans for group in shown for detail in group.pair):
        yield Section("workflow", "One workflow, step by step", WORKFLOW, tuple(_workflows(shown)))
    moved = [detail for detail in details if detail.moves and detail.samples]
    if moved:
        yield Section("moves", "Steps that started elsewhere", MOVES, tuple(_moves(moved)))
    if any(len(detail.tenants) > 1 and detail.samples for group in shown for detail in group.pair):
        yield Section("tenants", "Service of each tenant over time", TENANTS, tuple(_tenants(shown)))
    if bars := ablation_bars(ablation):
        yield Section("ablation", "What each part is worth", ABLATION, (_panels([figure(svg) for svg in bars]),))
    if cache is not None and cache.results:
        yield Section(
            "cache", "Caches against an oracle", CACHE, (_panels([figure(regenerated(cache.results))]), _cache(cache))
        )
    yield Section("words", "Words", "What the columns and lines are.", (_words(),))


def _glance(report: Report) -> Iterator[Html]:
    if svg := verdict_bars(report):
        yield _panels([figure(svg)])
    yield glance(report)


def _curves(report: Report) -> Iterator[Html]:
    for title, drawings in curves(report.runs):
        yield tag("h3", title)
        yield _panels([figure(svg) for svg in drawings])


def _tables(report: Report) -> Iterator[Html]:
    for condition, systems in by_condition(report.runs).items():
        yield condition_table(report, condition, systems)
        yield classes_table(systems)
        yield seeds_table(systems)


def _cdfs(shown: Sequence[Shown]) -> Iterator[Html]:
    for group in shown:
        yield tag("h3", group.title)
        yield _panels([figure(svg) for svg in distributions(f"cdf {group.title}", group.details, group.best)])


def _kv(shown: Sequence[Shown]) -> Iterator[Html]:
    for group in shown:
        pair = [detail for detail in group.pair if detail.samples]
        if pair:
            until_s = max(detail.samples[-1].at_s for detail in pair)
            more = max(len(detail.workers) for detail in pair) - MOST_WORKERS
            yield tag("h3", group.title)
            yield _panels([figure(occupancy(f"kv {group.title} {d.system}", d, until_s)) for d in pair])
            if more > 0:
                yield tag("p", f"The first {MOST_WORKERS} workers; {more} more are not shown.", class_="soft")


def _workflows(shown: Sequence[Shown]) -> Iterator[Html]:
    for group in shown:
        pair = [detail for detail in group.pair if detail.spans]
        if pair:
            yield tag("h3", f"{group.title}, conversation {pair[0].shown}")
            same = [detail for detail in pair if detail.shown == pair[0].shown]
            yield figure(timeline(f"workflow {group.title}", same))


def _moves(moved: Sequence[RunDetail]) -> Iterator[Html]:
    for detail in moved[:MOST_TIMELINES]:
        at = f"load {detail.load:g}" if detail.load is not None else f"pressure {detail.pressure:g}"
        title = f"{detail.workload} on {detail.cluster}, {at}, host tier {detail.host_tier}"
        yield tag("h3", title)
        yield figure(moves_timeline(f"moves {title} {detail.system}", detail))


def _tenants(shown: Sequence[Shown]) -> Iterator[Html]:
    for group in shown:
        pair = [detail for detail in group.pair if detail.samples and len(detail.tenants) > 1]
        if pair:
            until_s = max(detail.samples[-1].at_s for detail in pair)
            most_s = max(most_normalised_s(detail) for detail in pair)
            yield tag("h3", group.title)
            yield _panels([figure(service(f"tenants {group.title} {d.system}", d, until_s, most_s)) for d in pair])


def _cache(cache: CacheReport) -> Html:
    def cells(result: CacheResult) -> list[str]:
        ratio, closed = result.belady_ratio, result.causal_gap_closed
        return [
            f"{result.capacity_tokens / 1e6:,.2f}",
            f"{result.regenerated_tokens / 1e6:,.2f}",
            f"{result.oracle_regenerated_tokens / 1e6:,.2f}",
            NONE if ratio is None else f"{ratio:.2f}",
            NONE if closed is None else f"{100 * closed:.0f}",
        ]

    rows = [row(result.policy, cells(result), kind="ours" if result.policy == SAGA else "") for result in cache.results]
    return table(CACHE_HEADS, rows)


def _panels(figures: list[Html]) -> Html:
    return tag("div", *figures, class_="panels")


def _words() -> Html:
    return tag("dl", *(join(tag("dt", word), tag("dd", meaning)) for word, meaning in WORDS))
