"""What came of the faults, as Markdown for people and JSON for programs. Pure."""

from typing import Final

import msgspec
from msgspec import Struct

from saga.chaos.invariants import Trial, Verdict, judged, pause_quantiles_s
from saga.chaos.transcript import calm_pause_s, usual_wait_s

COLUMNS: Final = ("lost", "doubled", "leaked", "one leader", "affinity", "shares", "crash loop", "memory")


class Result(Struct, frozen=True, kw_only=True):
    """Of one fault. Pauses in seconds. `skipped`: why it was not done; empty: it was."""

    fault: str
    what: str
    seed: int = 0
    skipped: str = ""
    steps: int = 0
    attempts: dict[str, int] = {}
    usual_wait_s: float = 0.0  # of a step in calm, median
    calm_max_s: float = 0.0  # of any client in calm, less that
    pause_p50_s: float = 0.0
    pause_p99_s: float = 0.0
    pause_max_s: float = 0.0
    pause_limit_s: float | None = None
    verdicts: list[Verdict] = []

    @property
    def held(self) -> bool:
        """Whether everything did that could be judged."""
        return all(verdict.held is not False for verdict in self.verdicts)

    @property
    def safe(self) -> bool:
        """Whether what no busy machine can excuse did: nothing lost, doubled or leaked, one leader, no crash loop."""
        wanted = ("lost", "doubled", "leaked", "one leader", "crash loop")
        return all(verdict.held for verdict in self.verdicts if verdict.name in wanted)


def result_of(trial: Trial, seed: int) -> Result:
    """The figures and verdicts of a trial."""
    attempts: dict[str, int] = {}
    for story in trial.stories:
        for attempt in story.attempts:
            attempts[attempt.outcome] = attempts.get(attempt.outcome, 0) + 1
    p50, p99, longest = pause_quantiles_s(trial)
    return Result(
        fault=trial.fault.name,
        what=trial.fault.what,
        seed=seed,
        steps=len(trial.stories),
        attempts=attempts,
        usual_wait_s=round(usual_wait_s(trial.stories, trial.calm), 3),
        calm_max_s=round(calm_pause_s(trial.stories, trial.calm), 3),
        pause_p50_s=round(p50, 3),
        pause_p99_s=round(p99, 3),
        pause_max_s=round(longest, 3),
        pause_limit_s=trial.fault.pause_limit_s,
        verdicts=judged(trial),
    )


def as_json(results: list[Result]) -> bytes:
    """A list of results."""
    return msgspec.json.format(msgspec.json.encode(results), indent=1) + b"\n"


def as_markdown(results: list[Result]) -> str:
    """A table, one row a fault. Pauses in seconds, cells as short as can be: the JSON has every word."""
    head = ("fault", "what was done", "what clients saw", "pause P50", "P99", "max", "calm", *COLUMNS)
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for result in results:
        if result.skipped:
            cells = [f"skipped: {result.skipped}", *[""] * (len(head) - 3)]
        else:
            by_name = {verdict.name: verdict for verdict in result.verdicts}
            limited = result.pause_limit_s is not None and result.pause_p99_s > result.pause_limit_s
            p99 = f"**{result.pause_p99_s:.2f}**" if limited else f"{result.pause_p99_s:.2f}"
            pauses = (f"{result.pause_p50_s:.2f}", p99, f"{result.pause_max_s:.2f}", f"{result.calm_max_s:.2f}")
            cells = [_seen(result), *pauses, *(_cell(by_name[name]) for name in COLUMNS)]
        lines.append(f"| {' | '.join((f'`{result.fault}`', result.what, *cells))} |")
    return "\n".join(lines) + "\n"


def _seen(result: Result) -> str:
    """By clients, beside answers and the wait for them."""
    words = {"cut": "connections broke", "retryable": "told to ask again", "wrong": "other errors"}
    seen = [f"{result.attempts[kind]} {text}" for kind, text in words.items() if result.attempts.get(kind)]
    return f"{result.steps} answers" + "".join(f", {one}" for one in seen)


def as_line(result: Result) -> str:
    """One line, and one for each invariant that did not hold."""
    if result.skipped:
        return f"{result.fault:<20} skipped: {result.skipped}"
    pauses = (result.calm_max_s, result.pause_p50_s, result.pause_p99_s, result.pause_max_s)
    pause = "pause in calm {:.2f}, then P50 {:.2f}, P99 {:.2f}, max {:.2f} s".format(*pauses)
    lines = [f"{result.fault:<20} {'ok    ' if result.held else 'FAILED'} {result.steps:5d} steps  {pause}"]
    lines += [f"    {verdict.name}: {verdict.told}" for verdict in result.verdicts if verdict.held is False]
    return "\n".join(lines)


def _cell(verdict: Verdict) -> str:
    if verdict.held is None:
        return "not judged"
    return "held" if verdict.held else f"**{verdict.told.replace('|', '/')}**"
