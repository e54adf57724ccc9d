"""The access trace of a synthetic workload: what S1 and S2 need of one worker's KV, at fixed times. Open loop.

Tasks start as a Poisson process. A step takes as long as it would on an idle worker with its KV at hand, a gap as long
as its tool, whatever a cache does: a policy changes what is prefilled again and never when. Called by `bench`.
"""

from collections.abc import Iterator
from random import Random

from msgspec.structs import replace

from saga.engine.timing import IterationTimer
from saga.load.traces.session import END_TURN
from saga.sim.alone import step_alone_s
from saga.sim.cache.access import AccessTrace, Agent, Call, Limits, in_order
from saga.sim.cache.runs import Growing, Run, TreeBuilder, first_pages, without_first
from saga.sim.clusters import load_cluster
from saga.sim.conversation import SimStep
from saga.sim.synthetic import Synthetic

CLUSTER = "small"
ROOM_SHARES = (0.25, 0.5, 1.0)  # of the mean KV of live sessions in a gap, beside the most that is in use at once
POPULATION = 1_000  # tasks of which the true distributions are taken, of another seed:
_OTHER_SEED = 1_000_003
_STREAM_PAGES = 1 << 24  # more than any context has
_STREAMS = 1 << 10  # more than any task has compactions


def drawn_tasks(workload: str, limits: Limits) -> AccessTrace:
    """So many tasks with Poisson starts."""
    rng = Random(limits.seed)
    starts = []
    at_s = 0.0
    for _ in range(limits.sessions):
        at_s += rng.expovariate(limits.starts_per_s)
        starts.append(at_s)
    return _trace(workload, limits.seed, starts)


def other_tasks(workload: str, limits: Limits) -> AccessTrace:
    """Tasks that say what the workload is like, none of them in `drawn_tasks`; all from time 0."""
    return _trace(workload, limits.seed + _OTHER_SEED, [0.0] * POPULATION)


def preset_capacities(trace: AccessTrace) -> tuple[int, ...]:
    """Sizes that make sense for a trace, in tokens: what is in use at once fits, and some of what is in a gap."""
    in_use = peak = 0
    idle_page_s = 0.0
    last_end: dict[int, tuple[float, int]] = {}
    for event in trace.events:
        call = trace.calls[event.call]
        in_use += -call.full_pages if event.is_end else call.full_pages
        peak = max(peak, in_use)
        if event.is_end:
            last_end[call.agent] = event.at_s, call.full_pages
        elif call.agent in last_end:
            since_s, pages = last_end[call.agent]
            idle_page_s += (event.at_s - since_s) * pages
    mean_idle = idle_page_s / trace.events[-1].at_s
    return tuple(round(peak + share * mean_idle) * trace.page_tokens for share in ROOM_SHARES)


def _trace(workload: str, seed: int, starts: list[float]) -> AccessTrace:
    _, profile = load_cluster(CLUSTER)
    tasks = Synthetic(workload, seed, profile.context_tokens, profile.page_tokens)
    timer, tree = IterationTimer(profile), TreeBuilder()
    made: list[tuple[Call, Growing, Growing]] = []
    for number, start_s in enumerate(starts):
        at_s = start_s
        (agent,) = tasks.draw(number).agents
        for step, (prompt, answer) in zip(agent.steps, _chains(number, agent.steps, profile.page_tokens), strict=True):
            begin_s = at_s + step.think_s
            at_s = begin_s + step_alone_s(step, profile, timer)
            end = tree.extend(tree.root, prompt)
            prompt_pages = sum(count for _, count in prompt)
            full_pages = prompt_pages + sum(count for _, count in answer)
            call = Call(number, begin_s, at_s, 0, 0, prompt_pages, full_pages, 0, step.tool or END_TURN)
            made.append((call, end, tree.extend(end, answer)))
    segments, numbers = tree.freeze()
    calls = [replace(call, prompt=numbers[prompt], full=numbers[full]) for call, prompt, full in made]
    agents = [Agent(number, is_main=True, prefix=(0, 0)) for number in range(len(starts))]
    return AccessTrace(profile.page_tokens, segments, agents, calls, in_order(calls))


def _chains(number: int, steps: tuple[SimStep, ...], page_tokens: int) -> Iterator[tuple[list[Run], list[Run]]]:
    """Prompt and answer of each step as runs of pages: one stream, and a new one where a prompt leaves the last."""
    stream = number * _STREAMS
    chain: list[Run] = []
    tokens = 0
    for step in steps:
        # The last token of an answer is never fed back: it has no KV.
        known = min(step.kept_tokens, max(0, tokens - 1)) // page_tokens
        chain = first_pages(chain, known)
        if step.kept_tokens < tokens:
            stream += 1
        prompt_pages = step.prompt_tokens // page_tokens
        tokens = step.prompt_tokens + step.output_tokens
        full_pages = max(prompt_pages, (tokens - 1) // page_tokens)
        if full_pages > known:
            chain.append((stream * _STREAM_PAGES + known, full_pages - known))
        yield first_pages(chain, prompt_pages), without_first(chain, prompt_pages)
