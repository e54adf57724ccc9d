"""Access traces by hand: calls as (agent, start, end, prompt pages, answer pages, how it ended)."""

from collections.abc import Sequence
from typing import NamedTuple

from saga.sim.cache.access import AccessTrace, Agent, Call, Event
from saga.sim.cache.fitting import Stream, fitted
from saga.sim.cache.runs import TreeBuilder

PAGE_TOKENS = 64


class Made(NamedTuple):
    """One call. Pages are ids; equal ids after equal pages are one page."""

    agent: int
    start_s: float
    end_s: float
    prompt: Sequence[int]
    answer: Sequence[int] = ()
    turn: str = "tool_use"


def trace_of(made: Sequence[Made]) -> AccessTrace:
    """Each agent is a draw of its own."""
    tree = TreeBuilder()
    ends = []
    for call in made:
        prompt = tree.extend(tree.root, [(page, 1) for page in call.prompt])
        ends.append((prompt, tree.extend(prompt, [(page, 1) for page in call.answer])))
    segments, numbers = tree.freeze()
    calls = [
        Call(
            call.agent,
            call.start_s,
            call.end_s,
            numbers[prompt],
            numbers[full],
            len(call.prompt),
            len(call.prompt) + len(call.answer),
            0,
            call.turn,
        )
        for call, (prompt, full) in zip(made, ends, strict=True)
    ]
    events = [Event(c.end_s if e else c.start_s, i, e) for i, c in enumerate(calls) for e in (False, True)]
    events.sort(key=lambda event: event.at_s)
    agents = [Agent(number, is_main=True, prefix=(0, 0)) for number in range(1 + max(c.agent for c in made))]
    return AccessTrace(PAGE_TOKENS, segments, agents, calls, events)


def stream_of(made: Sequence[Made], capacity_pages: int) -> Stream:
    """The calls of `made` that fit."""
    return fitted(trace_of(made), capacity_pages)
