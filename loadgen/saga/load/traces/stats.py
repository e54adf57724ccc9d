"""What a trace is like: its size, quantiles of its lengths and gaps, and the hit rate no cache exceeds. Pure.

Called by `saga trace stats` and by the fit of the synthetic sessions.
"""

from collections.abc import Sequence
from itertools import pairwise

from msgspec import Struct

from saga.load.traces.prompts import common_blocks, following
from saga.load.traces.session import END_TURN, MAIN_AGENT, TOOL_USE, FormatName, Session, Sessions, Step


class Quantiles(Struct, frozen=True):
    """Nearest-rank quantiles of `count` values; None where there are none."""

    count: int
    p50: float | None
    p90: float | None
    p99: float | None


class TraceStats(Struct, frozen=True):
    """Figures of one trace. Lengths in tokens, gaps in seconds; quantiles are over main agents.

    New tokens: of a prompt, what lies beyond the whole blocks it shares with the agent's last prompt; first steps are
    not counted. `drops`: prompts shorter than the last one. `ideal_hit_rate`: share of all prompt tokens, sub-agents
    included, that an infinite cache of whole prompt blocks holds, each session with a cache of its own unless the trace
    says what sessions share.
    """

    format: FormatName
    block_tokens: tuple[int, ...]
    sessions: int
    turns: int
    steps: int
    prompt_tokens: int
    output_tokens: int
    subagents: int
    sessions_with_subagents: int
    subagent_steps: int
    drops: int
    steps_per_session: Quantiles
    turns_per_session: Quantiles
    steps_per_turn: Quantiles
    input_tokens_per_step: Quantiles
    new_tokens_per_step: Quantiles
    output_tokens_per_step: Quantiles
    gap_after_tool_s: Quantiles
    gap_after_turn_s: Quantiles
    ideal_hit_rate: float | None
    skipped_lines: int = 0


def trace_stats(sessions: Sessions) -> TraceStats:
    """The figures of these sessions."""
    mains = [[step for step in session.steps if step.agent == MAIN_AGENT] for session in sessions]
    turns = [_turns(steps) for steps in mains]
    pairs = [(s, *pair) for s, steps in zip(sessions, mains, strict=True) for pair in pairwise(steps)]
    every = [step for session in sessions for step in session.steps]
    main_steps = [step for steps in mains for step in steps]
    agents = [len({step.agent for step in session.steps} - {MAIN_AGENT}) for session in sessions]
    return TraceStats(
        format=sessions.format,
        block_tokens=tuple(sorted({session.block_tokens for session in sessions})),
        sessions=len(sessions),
        turns=sum(map(len, turns)),
        steps=len(every),
        prompt_tokens=sum(step.input_tokens for step in every),
        output_tokens=sum(step.output_tokens for step in every),
        subagents=sum(agents),
        sessions_with_subagents=sum(count > 0 for count in agents),
        subagent_steps=len(every) - len(main_steps),
        drops=sum(after.input_tokens < before.input_tokens for _, before, after in pairs),
        steps_per_session=quantiles([len(steps) for steps in mains]),
        turns_per_session=quantiles([len(lengths) for lengths in turns]),
        steps_per_turn=quantiles([length for lengths in turns for length in lengths]),
        input_tokens_per_step=quantiles([step.input_tokens for step in main_steps]),
        new_tokens_per_step=quantiles([new_tokens(before, after, s.block_tokens) for s, before, after in pairs]),
        output_tokens_per_step=quantiles([step.output_tokens for step in main_steps]),
        gap_after_tool_s=quantiles([after.think_s for _, before, after in pairs if before.stop == TOOL_USE]),
        gap_after_turn_s=quantiles([after.think_s for _, before, after in pairs if before.stop == END_TURN]),
        ideal_hit_rate=ideal_hit_rate(sessions),
        skipped_lines=sessions.skipped,
    )


def quantiles(values: Sequence[float]) -> Quantiles:
    """P50, P90, P99 of these values."""
    ordered = sorted(values)
    if not ordered:
        return Quantiles(0, None, None, None)
    p50, p90, p99 = (ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.50, 0.90, 0.99))
    return Quantiles(len(ordered), p50, p90, p99)


def new_tokens(before: Step, after: Step, block_tokens: int) -> int:
    """Of a prompt, what lies beyond the whole blocks it shares with the last one."""
    return after.input_tokens - common_blocks(before.blocks, after.blocks) * block_tokens


def ideal_hit_rate(sessions: Sequence[Session]) -> float | None:
    """Token-weighted hit rate of an infinite cache over the prompts' whole blocks, in the order of the file.

    The same as `saga.load.ideal.recorded_ideal`, which takes a plan; here only blocks that differ from the agent's
    last prompt are looked at. None without tokens.
    """
    cached = total = 0
    common_known: set[tuple[int, int]] = set()
    for session in sessions:
        known = common_known if session.common_ids else set()
        chains: dict[str, tuple[Step, list[int]]] = {}
        for step in session.steps:
            before, keys = chains.get(step.agent, (None, []))
            same = common_blocks(before.blocks, step.blocks) if before is not None else 0
            del keys[same:]
            key = keys[-1] if keys else 0
            hits, missed = same, False
            for first, count in following(step.blocks, same):
                for block in range(first, first + count):
                    link = (key, block)
                    if not missed and link in known:
                        hits += 1
                    else:
                        missed = True
                        known.add(link)
                    key = hash(link)
                    keys.append(key)
            chains[step.agent] = (step, keys)
            cached += hits * session.block_tokens
            total += step.input_tokens
    return cached / total if total else None


def _turns(steps: Sequence[Step]) -> list[int]:
    """Steps of each turn: one ends with an answer that says so, or with the session."""
    lengths = [0]
    for step in steps:
        lengths[-1] += 1
        if step.stop == END_TURN:
            lengths.append(0)
    return [length for length in lengths if length]
