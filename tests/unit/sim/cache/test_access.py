"""Recorded sessions as an access trace, and what of it a pool can hold."""

from cache_drive import Made, stream_of

from saga.load.trace import Session, Step, SubAgent
from saga.sim.cache.access import UNKNOWN_API_S, AccessTrace, Limits, drawn, each_once
from saga.sim.cache.runs import first_pages, page_hashes, without_first


def step(
    blocks: list[tuple[int, int]],
    output: int = 64,
    agent: str = "main",
    *,
    t: float = 0.0,
    api_s: float | None = None,
    gap_s: float | None = None,
) -> Step:
    pages = sum(count for _, count in blocks)
    return Step(agent, t, pages * 64, output, tuple(blocks), "tool_use", api_s=api_s, gap_s=gap_s)


def session(name: str, *steps: Step, shared_tokens: int = 128, subs: tuple[SubAgent, ...] = ()) -> Session:
    return Session(name, 64, steps, tool_tokens=shared_tokens, system_tokens=0, subagents=subs)


def hashes(trace: AccessTrace, end: int) -> list[bytes]:
    found = page_hashes(trace.segments, end)
    return [found[at : at + 8] for at in range(0, len(found), 8)]


GROWING = session("a", step([(0, 4)], api_s=2.0), step([(0, 6)], api_s=None, gap_s=3.0), step([(0, 2), (50, 1)]))


def test_times_are_the_recorded_ones_end_to_start() -> None:
    calls = each_once([GROWING]).calls
    assert [(c.start_s, c.end_s) for c in calls] == [
        (0.0, 2.0),
        (5.0, 5.0 + UNKNOWN_API_S),
        (5.0 + UNKNOWN_API_S, 5.0 + 2 * UNKNOWN_API_S),
    ]


def test_an_answer_is_what_the_next_prompt_goes_on_with() -> None:
    trace = each_once([GROWING])
    first, second, third = trace.calls
    # 256 + 64 tokens, of which the last was never fed back: no fifth page yet.
    assert (first.prompt_pages, first.full_pages) == (4, 4)
    assert hashes(trace, second.prompt)[:4] == hashes(trace, first.full)
    assert hashes(trace, third.prompt)[:2] == hashes(trace, first.prompt)[:2]
    assert hashes(trace, third.prompt)[2] not in hashes(trace, second.full)


def test_an_answer_that_no_prompt_repeats_has_pages_of_its_own() -> None:
    trace = each_once([session("a", step([(0, 4)], output=200), step([(0, 5)]))])
    first, second = trace.calls
    assert first.full_pages == 7
    assert hashes(trace, second.prompt)[4] not in hashes(trace, first.full)


def test_sessions_share_the_prefix_of_equal_lengths_and_nothing_else() -> None:
    same, other = session("b", step([(0, 4)])), session("c", step([(0, 4)]), shared_tokens=192)
    trace = each_once([GROWING, same, other])
    mine, theirs, others = (hashes(trace, trace.calls[call].prompt) for call in (0, 3, 4))
    assert mine[:2] == theirs[:2]
    assert not set(mine[2:]) & set(theirs[2:])
    assert not set(mine) & set(others)


def test_a_sub_agent_starts_after_the_step_that_it_followed() -> None:
    sub = SubAgent("s", 4.0)
    parts = (step([(0, 4)], api_s=2.0), step([(90, 2)], agent="s", t=4.0), step([(0, 5)], api_s=1.0, gap_s=9.0, t=11.0))
    trace = each_once([session("a", *parts, subs=(sub,))])
    assert sorted((c.start_s, trace.agents[c.agent].is_main) for c in trace.calls) == [
        (0.0, True),
        (4.0, False),
        (11.0, True),
    ]


def test_draws_are_seeded_and_share_only_the_prefix() -> None:
    limits = Limits(sessions=5, starts_per_s=0.05, seed=1)
    one, again = drawn([GROWING], limits), drawn([GROWING], limits)
    assert one == again
    assert one != drawn([GROWING], Limits(sessions=5, starts_per_s=0.05, seed=2))
    chains = [set(hashes(one, call.prompt)) for call in one.calls[::3]]
    assert len(chains) == 5
    assert len(set.union(*chains)) == 5 * 2 + 2


def test_what_is_in_use_is_never_given_away() -> None:
    made = [
        Made(0, 0.0, 10.0, [1, 2, 3]),
        Made(1, 1.0, 2.0, [4, 5]),  # no room beside the first
        Made(2, 3.0, 20.0, [1, 2, 6]),  # shares two of its pages
        Made(3, 11.0, 12.0, [8], [9]),  # the first has ended: room for one page, not for the answer
        Made(1, 21.0, 22.0, [1, 2, 4]),
    ]
    stream = stream_of(made, 4)
    assert (stream.unfit_calls, stream.unfit_tokens, stream.unfit_answers) == (1, 128, 1)
    assert [e.call for e in stream.events] == [0, 2, 0, 3, 3, 2, 4, 4]
    assert stream.known_pages == [0, 0, 2, 0, 2]
    assert stream.prompt_pages == 3 + 3 + 1 + 3


def test_runs_are_cut_at_pages() -> None:
    runs = [(0, 3), (10, 2)]
    assert first_pages(runs, 4) == [(0, 3), (10, 1)]
    assert without_first(runs, 4) == [(11, 1)]
    assert without_first(runs, 1) == [(1, 2), (10, 2)]
