"""What must hold while a fault lasts and after it, from what clients saw and what processes say. Pure.

Design section 8: a client sees its answer, a typed error that says to ask again, or its own gateway's death.
"""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from saga.chaos.faults import Blow, Fault
from saga.chaos.stage import Idle
from saga.chaos.transcript import StepStory, Window, affinity, delivered, pauses_s

AFFINITY_LOSS: Final = 0.05  # of the calm share of expected tokens that may be missing when all is well again
RESTARTS: Final = 2  # lives of one process that may end beside those that we ended: NATS may be away when it starts
GROWTH_BYTES: Final = 24 << 20  # of a process that was not restarted, over one trial
MOST_TOLD: Final = 3


class Verdict(Struct, frozen=True):
    """Whether one invariant held, and the figures. `held` None: there was nothing to judge by."""

    name: str
    held: bool | None
    told: str


class Trial(Struct, frozen=True, kw_only=True):
    """All that is known of one fault done once."""

    fault: Fault
    blow: Blow
    slots: int  # of all engines together
    stories: list[StepStory]
    calm: Window
    struck: Window  # from the fault until all should be well again
    after: Window  # from then on
    before: Idle
    left: Idle
    finished: Counter[str]  # by step
    late_grants: int = 0  # of leaders that had been replaced
    taken_twice: int = 0  # attempts of steps that ran under two leases
    restarts: Counter[str]  # lives that ended during the trial, by process
    kills: Counter[str]  # of those, by us


def judged(trial: Trial) -> list[Verdict]:
    """Every invariant, in the order of the table."""
    return [
        nothing_lost(trial),
        nothing_twice(trial),
        nothing_leaked(trial),
        one_leader(trial),
        short_pause(trial),
        affinity_back(trial),
        shares_back(trial),
        no_crash_loop(trial),
        no_growth(trial),
    ]


def nothing_lost(trial: Trial) -> Verdict:
    """Every step is answered in the end; what failed on the way was typed, or its gateway's death."""
    bad = []
    for story in trial.stories:
        if not story.answered:
            bad.append(f"{story.session}.{story.number} has no answer")
        for attempt in story.attempts:
            if attempt.outcome == "wrong":
                bad.append(f"{story.session}.{story.number}: {attempt.detail}")
            elif attempt.outcome == "cut" and attempt.gateway not in trial.blow.gateways:
                bad.append(f"{story.session}.{story.number}: cut off, its gateway lives: {attempt.detail}")
    attempts = [attempt for story in trial.stories for attempt in story.attempts]
    outcomes = Counter(attempt.outcome for attempt in attempts if attempt.outcome != "answered")
    again = "".join(f", {count} attempts {outcome}" for outcome, count in sorted(outcomes.items()))
    return Verdict("lost", not bad, _first(bad) or f"0 of {len(trial.stories)}{again}")


def nothing_twice(trial: Trial) -> Verdict:
    """No token is doubled, missing or different in any stream, no step finishes twice."""
    bad = [f"{story.session}.{story.number}: another text" for story in trial.stories if not story.right]
    bad += [f"{step_id} finished {count} times" for step_id, count in trial.finished.items() if count > 1]
    streams = sum(len(story.attempts) for story in trial.stories)
    return Verdict("doubled", not bad, _first(bad) or f"0 in {streams} streams")


def nothing_leaked(trial: Trial) -> Verdict:
    """With nobody asking, no lease is out anywhere, and each that was granted has ended."""
    granted = sum(count.granted for count in trial.left.leases.values())
    if not trial.left.leaked:
        return Verdict("leaked", held=True, told=f"0 of {granted}")
    left = trial.left
    return Verdict("leaked", held=False, told=f"{left.leases}, {left.agent_leases}, {left.steps_at_admission}")


def one_leader(trial: Trial) -> Verdict:
    """Of each service one process leads at the end, and no more; nothing ran under the grants of two."""
    said = trial.left.leading
    held = all(len(names) == 1 for names in said.values()) and not trial.taken_twice
    twice = f", {trial.taken_twice} ATTEMPTS TAKEN TWICE" if trial.taken_twice else ""
    late = f", {trial.late_grants} late grants" if trial.late_grants else ""
    return Verdict("one leader", held, _names(said) + late + twice)


def short_pause(trial: Trial) -> Verdict:
    """Clients wait no longer than the limit, where there is one."""
    p50, p99, longest = pause_quantiles_s(trial)
    limit_s = trial.fault.pause_limit_s
    held = None if limit_s is None else p99 <= limit_s
    return Verdict("pause", held, f"P50 {p50:.2f}, P99 {p99:.2f}, max {longest:.2f} s")


def pause_quantiles_s(trial: Trial) -> tuple[float, float, float]:
    """P50, P99 and largest of what clients were kept waiting; nearest rank."""
    pauses = pauses_s(trial.stories, trial.calm, trial.struck) or [0.0]
    return _rank(pauses, 0.5), _rank(pauses, 0.99), pauses[-1]


def affinity_back(trial: Trial) -> Verdict:
    """Afterwards sessions find their KV as they did before."""
    before, after = affinity(trial.stories, trial.calm), affinity(trial.stories, trial.after)
    if before is None or after is None:
        return Verdict("affinity", None, "no session went on")
    return Verdict("affinity", after >= before - AFFINITY_LOSS, f"{before:.2f}, then {after:.2f}")


def shares_back(trial: Trial) -> Verdict:
    """Afterwards two tenants of equal weight, both with steps waiting, get the same, to within docs/fairness.md's
    theorem 2: for each, what runs at once, one step more, and those that wait where they cannot start."""
    counts = sorted(delivered(trial.stories, trial.after).values())
    clients = len({story.client for story in trial.stories})
    waiting = clients - trial.slots
    if len(counts) < 2 or waiting <= 0:
        return Verdict("shares", None, "nobody waits: there is nothing to share")
    bound = sum(min(trial.slots, clients // 2) + 1 + waiting // 2 for _ in range(2))
    apart = counts[-1] - counts[0]
    return Verdict("shares", apart <= bound, f"{counts[0]} and {counts[-1]} steps, bound {bound}")


def no_crash_loop(trial: Trial) -> Verdict:
    """A process that we ended comes back to stay; no other ends."""
    more = trial.restarts - trial.kills
    beyond = {name: count for name, count in more.items() if count > RESTARTS or name not in trial.blow.processes}
    told = f"{sum(trial.kills.values())} killed, {sum(trial.restarts.values())} restarts"
    return Verdict("crash loop", not beyond, f"{told}: {beyond}" if beyond else told)


def no_growth(trial: Trial) -> Verdict:
    """No process that lived through it holds much more memory than before."""
    before, left = trial.before, trial.left
    grown = {
        name: left.resident_bytes[name] - before.resident_bytes[name]
        for name, pid in left.pids.items()
        if before.pids.get(name) == pid
    }
    most = max(grown, key=grown.__getitem__, default="")
    told = f"{most} {grown[most] / (1 << 20):+.1f} MiB" if most else "all were restarted"
    return Verdict("memory", not most or grown[most] <= GROWTH_BYTES, told)


def _first(bad: Iterable[str]) -> str:
    found = list(bad)
    more = f" and {len(found) - MOST_TOLD} more" if len(found) > MOST_TOLD else ""
    return "; ".join(found[:MOST_TOLD]) + more


def _names(said: dict[str, list[str]]) -> str:
    return ", ".join(" and ".join(names) or f"nobody at {service}" for service, names in said.items())


def _rank(ascending: list[float], share: float) -> float:
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]
