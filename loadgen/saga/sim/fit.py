"""Parameters of a family of synthetic coding sessions, fitted to a trace; TOML in `fits/`, read and drawn from here.

`bench/offline/fit_coding_sessions.py` makes the file from a trace; nothing of the trace is in it but these numbers.
Lengths in tokens, times in seconds. Called by `fitted`.
"""

import math
from bisect import bisect_right
from functools import cache
from importlib import resources

import msgspec
from msgspec import Struct

PROBABILITIES = (0.0, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
Table = tuple[float, ...]  # values at PROBABILITIES


class AgentFit(Struct, frozen=True, forbid_unknown_fields=True):
    """How the steps of one agent go. A table is a quantile function."""

    first_prompt_tokens: Table
    output_tokens: Table  # of answers that call a tool, where the next prompt keeps them
    observation_tokens: Table  # after a tool, where the prompt keeps the last one and its answer
    tool_gap_s: Table


class MainFit(AgentFit, frozen=True, forbid_unknown_fields=True):
    """What only main agents have: turns, humans, revised and compacted prompts.

    `revision_chance`: of a prompt to keep neither the whole last one nor its answer, though it is no compaction: after
    an answer of `revised_output_tokens` it is the last prompt and `revised_growth_tokens`; `revised_tokens` are new.
    A share `compacting` of the sessions compacts at a length drawn once a session from `compaction_tokens`, to the
    share `compacted_share` of it, of which `compacted_kept` is the old beginning.
    """

    steps_per_session: Table
    turns_per_session: Table
    steps_and_turns: float  # correlation of the two as normal scores
    steps_and_first_prompt: float  # the same
    steps_per_turn: Table
    final_output_tokens: Table
    message_tokens: Table  # a human's, with what else the prompt grew by
    human_gap_s: Table
    revision_chance: float
    revised_output_tokens: Table
    revised_growth_tokens: Table
    revised_tokens: Table
    compacting: float
    compaction_tokens: Table
    compacted_share: Table
    compacted_kept: Table


class SubAgentFit(AgentFit, frozen=True, forbid_unknown_fields=True):
    """What only sub-agents have. A share `sessions` of the sessions has some."""

    sessions: float
    per_session: Table
    steps: Table
    prefix_tokens: int  # that all of them share


class Fit(Struct, frozen=True, forbid_unknown_fields=True):
    """The family. Two sessions share their tools and system prompt with chance 1 / `prefix_classes`."""

    trace: str
    sessions: int
    prefix_classes: int
    prefix_tokens: Table
    main: MainFit
    sub: SubAgentFit


@cache
def load_fit(name: str = "coding-sessions") -> Fit:
    """The fit of that name."""
    text = (resources.files("saga.sim") / "fits" / f"{name}.toml").read_bytes()
    return msgspec.toml.decode(text, type=Fit)


def value_at(table: Table, probability: float) -> float:
    """The quantile function: through the points of the table, straight in the logarithm of one more than the value."""
    at = min(bisect_right(PROBABILITIES, probability), len(PROBABILITIES) - 1)
    low, high = math.log1p(table[at - 1]), math.log1p(table[at])
    part = (probability - PROBABILITIES[at - 1]) / (PROBABILITIES[at] - PROBABILITIES[at - 1])
    return math.expm1(low + (high - low) * part)
