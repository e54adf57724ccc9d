"""Fits the `coding-fitted` workload to a trace: writes the quantile tables of `loadgen/saga/sim/fits/`.

    python bench/offline/fit_coding_sessions.py ../shared/traces/coding-sessions.jsonl.gz

Each table holds the empirical quantiles at eleven probabilities, rounded to three digits. A prompt that is at least
10 % shorter than the last one is a compaction; one that keeps neither all blocks of the last prompt nor room for its
answer is a revision; of all others the growth beyond the answer is an observation, or a message where the answer ended
a turn.
"""

import argparse
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist, correlation
from typing import Any

import msgspec

from saga.load.trace import MAIN_AGENT, Session, Step, read_sessions
from saga.load.traces.prompts import kept_tokens
from saga.load.traces.session import END_TURN, TOOL_USE
from saga.sim.fit import PROBABILITIES, AgentFit, Fit, MainFit, SubAgentFit, Table

FOLDER = Path(__file__).parents[2] / "loadgen/saga/sim/fits"
COMPACTED_BELOW = 0.9  # of the last prompt
NORMAL = NormalDist()


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description="Fit the coding-fitted workload to a trace.")
    parser.add_argument("sessions", type=Path)
    parser.add_argument("--out", type=Path, default=FOLDER / "coding-sessions.toml")
    flags = parser.parse_args()
    sessions = read_sessions(flags.sessions)
    fit = fitted(sessions, flags.sessions.name)
    head = f"# Written by bench/offline/fit_coding_sessions.py; tables at the probabilities {list(PROBABILITIES)}.\n"
    flags.out.write_bytes((head + as_toml(msgspec.to_builtins(fit))).encode())
    print(f"{flags.out}: fitted to {len(sessions)} sessions")


def as_toml(fields: dict[str, Any], name: str = "") -> str:
    """Numbers, strings, lists of numbers and one level of tables."""
    lines = [f"\n[{name}]"] if name else []
    for key, value in fields.items():
        if isinstance(value, str):
            lines.append(f'{key} = "{value}"')
        elif not isinstance(value, dict):
            lines.append(f"{key} = {list(value) if isinstance(value, tuple) else value}")
    text = "\n".join(lines) + "\n"
    return text + "".join(as_toml(value, key) for key, value in fields.items() if isinstance(value, dict))


def fitted(sessions: Sequence[Session], name: str) -> Fit:
    """The family that these sessions are from."""
    keys = Counter((session.tool_tokens, session.system_tokens) for session in sessions)
    alike = sum(count * count for count in keys.values()) / len(sessions) ** 2
    return Fit(
        trace=name,
        sessions=len(sessions),
        prefix_classes=round(1 / alike),
        prefix_tokens=table(session.tool_tokens + session.system_tokens for session in sessions),
        main=main_fit(sessions),
        sub=sub_fit(sessions),
    )


def main_fit(sessions: Sequence[Session]) -> MainFit:
    """Tables of the main agents."""
    mains = [[step for step in session.steps if step.agent == MAIN_AGENT] for session in sessions]
    turns = [turn_lengths(steps) for steps in mains]
    pairs = [(s.block_tokens, *pair) for s, steps in zip(sessions, mains, strict=True) for pair in pairwise(steps)]
    drops = [pair for pair in pairs if is_compaction(*pair[1:])]
    others = [pair for pair in pairs if not is_compaction(*pair[1:])]
    revised = [(block, a, b) for block, a, b in others if not extends(block, a, b)]
    dropping = sum(any(is_compaction(a, b) for a, b in pairwise(steps)) for steps in mains)
    return MainFit(
        **common(mains, [session.block_tokens for session in sessions]),
        steps_per_session=table(map(len, mains)),
        turns_per_session=table(map(len, turns)),
        steps_and_turns=rounded(correlation(scores(list(map(len, mains))), scores(list(map(len, turns))))),
        steps_and_first_prompt=rounded(
            correlation(scores(list(map(len, mains))), scores([steps[0].input_tokens for steps in mains]))
        ),
        steps_per_turn=table(length for lengths in turns for length in lengths),
        final_output_tokens=table(step.output_tokens for steps in mains for step in steps if step.stop == END_TURN),
        message_tokens=table(
            b.input_tokens - a.input_tokens - a.output_tokens
            for block, a, b in others
            if a.stop == END_TURN and extends(block, a, b)
        ),
        human_gap_s=table(b.think_s for _, a, b in pairs if a.stop == END_TURN),
        revision_chance=rounded(len(revised) / len(others)),
        revised_output_tokens=table(a.output_tokens for _, a, _ in revised),
        revised_growth_tokens=table(b.input_tokens - a.input_tokens for _, a, b in revised),
        revised_tokens=table(b.input_tokens - kept_tokens(a, b, block) for block, a, b in revised),
        compacting=rounded(dropping / len(mains)),
        compaction_tokens=table(a.input_tokens for _, a, _ in drops),
        compacted_share=table(b.input_tokens / a.input_tokens for _, a, b in drops),
        compacted_kept=table(kept_tokens(a, b, block) / b.input_tokens for block, a, b in drops),
    )


def sub_fit(sessions: Sequence[Session]) -> SubAgentFit:
    """Tables of the sub-agents."""
    having = [session for session in sessions if any(step.agent != MAIN_AGENT for step in session.steps)]
    agents = [
        (session.block_tokens, steps)
        for session in having
        for agent, steps in session.agents().items()
        if agent != MAIN_AGENT
    ]
    prefixes = Counter(sub.tool_tokens + sub.system_tokens for session in having for sub in session.subagents)
    return SubAgentFit(
        **common([steps for _, steps in agents], [block for block, _ in agents]),
        sessions=rounded(len(having) / len(sessions)),
        per_session=table(len(session.agents()) - 1 for session in having),
        steps=table(len(steps) for _, steps in agents),
        prefix_tokens=prefixes.most_common(1)[0][0],
    )


def common(agents: Sequence[Sequence[Step]], blocks: Sequence[int]) -> dict[str, Table]:
    """The fields of AgentFit."""
    pairs = [(block, *pair) for block, steps in zip(blocks, agents, strict=True) for pair in pairwise(steps)]
    after_tool = [(block, a, b) for block, a, b in pairs if a.stop == TOOL_USE]
    fit = AgentFit(
        first_prompt_tokens=table(steps[0].input_tokens for steps in agents),
        output_tokens=table(a.output_tokens for block, a, b in after_tool if extends(block, a, b)),
        observation_tokens=table(
            b.input_tokens - a.input_tokens - a.output_tokens for block, a, b in after_tool if extends(block, a, b)
        ),
        tool_gap_s=table(b.think_s for _, _, b in after_tool),
    )
    return msgspec.structs.asdict(fit)


def extends(block_tokens: int, before: Step, after: Step) -> bool:
    """Whether a prompt keeps the last one and its answer."""
    return kept_tokens(before, after, block_tokens) == before.input_tokens + before.output_tokens


def is_compaction(before: Step, after: Step) -> bool:
    """Whether the context was cut."""
    return after.input_tokens < COMPACTED_BELOW * before.input_tokens


def turn_lengths(steps: Sequence[Step]) -> list[int]:
    """Steps of each turn."""
    lengths = [0]
    for step in steps:
        lengths[-1] += 1
        if step.stop == END_TURN:
            lengths.append(0)
    return [length for length in lengths if length]


def scores(values: Sequence[int]) -> list[float]:
    """Normal scores of the ranks; equal values get their mean rank."""
    counts = Counter(values)
    below = 0
    score = {}
    for value in sorted(counts):
        score[value] = NORMAL.inv_cdf((below + counts[value] / 2) / len(values))
        below += counts[value]
    return [score[value] for value in values]


def table(values: Iterable[float]) -> Table:
    """Nearest-rank quantiles at PROBABILITIES; what is below 0 counts as 0."""
    ordered = sorted(max(0, value) for value in values)
    return tuple(rounded(ordered[min(len(ordered) - 1, int(p * len(ordered)))]) for p in PROBABILITIES)


def rounded(value: float) -> float:
    """To three digits."""
    if value == 0:
        return 0.0
    return round(value, 2 - math.floor(math.log10(abs(value))))


if __name__ == "__main__":
    main()
