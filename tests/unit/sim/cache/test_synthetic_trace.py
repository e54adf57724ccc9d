"""Synthetic tasks as an access trace: what each call needs is what the simulation's clients would send."""

from itertools import pairwise
from statistics import mean

import pytest

from saga.sim.cache.access import Limits
from saga.sim.cache.bench import bench_cache, synthetic
from saga.sim.cache.fitting import fitted
from saga.sim.cache.runs import page_hashes
from saga.sim.cache.synthetic import drawn_tasks, other_tasks, preset_capacities
from saga.sim.clusters import load_cluster
from saga.sim.conversation import HASH_BYTES
from saga.sim.synthetic import Synthetic

LIMITS = Limits(sessions=6, starts_per_s=0.2, seed=3)


@pytest.mark.parametrize("workload", ["swe-bench", "webarena"])
def test_calls_reuse_what_the_clients_of_the_simulation_would(workload: str):
    trace = drawn_tasks(workload, LIMITS)
    _, profile = load_cluster("small")
    tasks = Synthetic(workload, LIMITS.seed, profile.context_tokens, profile.page_tokens)
    for number in range(LIMITS.sessions):
        (agent,) = tasks.draw(number).agents
        calls = [call for call in trace.calls if call.agent == number]
        assert [call.turn for call in calls] == [step.tool or "end_turn" for step in agent.steps]
        pages = tasks.pages(number, 0)
        before = b""
        for index, (step, call) in enumerate(zip(agent.steps, calls, strict=True)):
            _, known = pages.advance(index, step)
            prompt = page_hashes(trace.segments, call.prompt)
            assert len(prompt) == call.prompt_pages * HASH_BYTES
            assert call.prompt_pages == step.prompt_tokens // profile.page_tokens
            shared = next((at for at in range(0, len(prompt), 8) if prompt[at : at + 8] != before[at : at + 8]), None)
            assert (len(prompt) if shared is None else shared) // HASH_BYTES == min(known, call.prompt_pages)
            before = page_hashes(trace.segments, call.full)
        gaps_s = [after.start_s - call.end_s for call, after in pairwise(calls)]
        assert gaps_s == pytest.approx([step.think_s for step in agent.steps[1:]])


def test_at_the_preset_sizes_every_call_fits_and_the_smallest_makes_a_choice_necessary():
    trace = drawn_tasks("webarena", LIMITS)
    sizes = preset_capacities(trace)

    assert list(sizes) == sorted(sizes)
    assert all(fitted(trace, size // trace.page_tokens).unfit_calls == 0 for size in sizes)


def test_what_is_known_beforehand_is_of_other_tasks_of_the_same_kind(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("saga.sim.cache.synthetic.POPULATION", 50)
    trace, others = drawn_tasks("webarena", LIMITS), other_tasks("webarena", LIMITS)

    assert {call.turn for call in others.calls} >= {"web", "end_turn"}
    assert trace.calls[0].prompt_pages != others.calls[0].prompt_pages
    assert mean(call.prompt_pages for call in others.calls) > 100
    report = bench_cache(synthetic("webarena", LIMITS), (preset_capacities(trace)[0],), ("lru", "saga", "belady"))
    lru, saga, belady = (result.regenerated_tokens for result in report.results)
    assert belady <= min(lru, saga)
