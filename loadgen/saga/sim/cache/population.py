"""The true distributions: after how long a page is needed again, given what can be seen, over all recorded sessions.

Taken from every session once and known beforehand; of the session at hand nothing is known but its past. What can be
seen: how the call ended, main agent or sub-agent, the agent's gap before, whether the page is of the prompt or of the
answer; and of pages that their agent's last prompt no longer had, how much of the prompt before it kept.
"""

from bisect import bisect_right
from collections.abc import Iterator

from saga.sim.cache.access import AccessTrace

EDGES_S = (0.0, *(0.1 * 1.2**power for power in range(90)))
"""Gaps are told apart by these bounds: 20 % steps up to two weeks."""
_PACES_S = (3.0, 15.0, 120.0)

Key = tuple[str | bool | int, ...]
"""A situation that can be told apart."""


class Spread:
    """Pages by the gap until they are needed again, and those that never are."""

    __slots__ = ("by_bin", "never")

    def __init__(self) -> None:
        self.by_bin = [0.0] * len(EDGES_S)
        self.never = 0.0

    def add(self, gap_s: float, pages: int) -> None:
        """So many pages were needed again after this gap; infinity: never."""
        if gap_s == float("inf"):
            self.never += pages
        else:
            self.by_bin[bin_of(gap_s)] += pages


def bin_of(gap_s: float) -> int:
    """The last bound that is not above the gap."""
    return bisect_right(EDGES_S, gap_s) - 1


class Watch:
    """What can be seen of the agents of a trace. Told of starts and ends in order."""

    def __init__(self, trace: AccessTrace) -> None:
        self._trace = trace
        self._pace = [-1] * len(trace.agents)
        self._last = [-1] * len(trace.agents)  # calls that ended

    def started(self, call: int) -> tuple[list[int], Key]:
        """The segments that this prompt no longer has of the agent's last chain, and their situation from now on."""
        the = self._trace.calls[call]
        last = self._last[the.agent]
        if last < 0:
            return [], ()
        before = self._trace.calls[last]
        self._pace[the.agent] = bisect_right(_PACES_S, the.start_s - before.end_s)
        segments = self._trace.segments
        kept = set(segments.path(the.prompt))
        left = []
        segment = before.full
        while segment and segment not in kept:
            left.append(segment)
            segment = segments.parent[segment]
        share = segments.depth_pages[segment] / max(1, segments.depth_pages[before.prompt])
        return left, ("left", 0 if share < 0.05 else 1 if share < 0.5 else 2 if share < 0.95 else 3)

    def ended(self, call: int) -> tuple[Key, Key]:
        """Situations of the pages of its prompt and of its answer, from now on."""
        the = self._trace.calls[call]
        self._last[the.agent] = call
        seen = (the.turn, self._trace.agents[the.agent].is_main, self._pace[the.agent])
        return ("prompt", *seen), ("answer", *seen)


def population(trace: AccessTrace) -> dict[Key, Spread]:
    """How pages are needed again in each situation; `trace` has every session once."""
    spreads: dict[Key, Spread] = {}
    for situation, gap_s, pages in _seen(trace):
        spreads.setdefault(situation, Spread()).add(gap_s, pages)
    return spreads


def prefix_shares(trace: AccessTrace) -> dict[tuple[int, int], float]:
    """Share of the sessions that begin with each prefix."""
    mains = [agent.prefix for agent in trace.agents if agent.is_main]
    counts: dict[tuple[int, int], float] = {}
    for prefix in mains:
        counts[prefix] = counts.get(prefix, 0.0) + 1.0 / len(mains)
    return counts


def _seen(trace: AccessTrace) -> Iterator[tuple[Key, float, int]]:
    """(situation, gap until the next need in the same session, pages), for each segment whenever it changes."""
    calls, pages = trace.calls, trace.segments.pages
    draws = 1 + max((agent.draw for agent in trace.agents), default=0)
    needs: list[dict[int, list[float]]] = [{} for _ in range(draws)]  # in descending order: the next one is last
    for event in reversed(trace.events):
        if not event.is_end:
            needed = needs[trace.agents[calls[event.call].agent].draw]
            for segment in trace.segments.path(calls[event.call].prompt):
                needed.setdefault(segment, []).append(event.at_s)
    watch = Watch(trace)
    for event in trace.events:
        call = calls[event.call]
        needed = needs[trace.agents[call.agent].draw]
        if not event.is_end:
            for segment in trace.segments.path(call.prompt):
                needed[segment].pop()
            left, situation = watch.started(event.call)
            for segment in left:
                yield situation, _gap_s(needed, segment, event.at_s), pages[segment]
            continue
        of_prompt, of_answer = watch.ended(event.call)
        depth = trace.segments.depth_pages
        for segment in trace.segments.path(call.full):
            situation = of_prompt if depth[segment] <= call.prompt_pages else of_answer
            yield situation, _gap_s(needed, segment, event.at_s), pages[segment]


def _gap_s(needed: dict[int, list[float]], segment: int, now_s: float) -> float:
    ahead = needed.get(segment)
    return ahead[-1] - now_s if ahead else float("inf")
