"""S5 `coding-fitted` as sessions of the recorded format, for `saga bench live`: the main agents of `fitted`, in blocks.

Pure conversion of what `Fitted` draws. Sub-agents (in 3 % of the sessions) are left out. As in recorded sessions block
ids mean something within one session only; what sessions have in common is the prefix of their class, which their
equal lengths of tools and system prompt say. Handed to bench_live by the command line: `saga.load` knows no laboratory.
"""

from collections.abc import Sequence

from saga.load.trace import MAIN_AGENT, Session, Step
from saga.load.traces.prompts import BLOCK_TOKENS, Prompts
from saga.load.traces.session import END_TURN, TOOL_USE
from saga.sim.conversation import SharedPrefix, SimStep
from saga.sim.fit import load_fit
from saga.sim.fitted import Fitted

CONTEXT_TOKENS = 262_144
"""As in the laboratory's cluster `long`, where the family was compared with the recorded sessions. Not that of the
engines that replay: sessions that outgrow those are dropped by the planner, as recorded ones are; cut to fit instead,
they would be compacted where no recorded one was."""

DRAWN_FOR_EACH = 4  # wanted session: four in ten have at least five steps and stay within a context of 128K


def generate(wanted: int | None, seed: int) -> list[Session]:
    """As many sessions as were recorded, or more where so many are wanted that too few of those might fit.

    Session i is the same whatever their number.
    """
    fitted = Fitted(seed, CONTEXT_TOKENS, BLOCK_TOKENS)
    count = max(load_fit().sessions, DRAWN_FOR_EACH * (wanted or 0))
    return [as_session(number, fitted.draw(number).agents[0].steps, fitted.prefix(number)) for number in range(count)]


def as_session(number: int, drawn: Sequence[SimStep], prefix: SharedPrefix) -> Session:
    """One agent's steps, each with the gap before it and the stop reason that says whose gap follows: after `tool_use`
    a tool's, after `end_turn` a human's.
    """
    prompts = Prompts()
    steps: list[Step] = []
    start_s = 0.0
    before: SimStep | None = None
    for step in drawn:
        kept_tokens = 0 if before is None else _kept_tokens(before, step, prefix)
        blocks = prompts.next(kept_tokens, step.prompt_tokens)
        start_s += step.think_s
        stop = TOOL_USE if step.tool else END_TURN
        steps.append(
            Step(MAIN_AGENT, start_s, step.prompt_tokens, step.output_tokens, blocks, stop, None, step.think_s)
        )
        before = step
    # The split between tools and system prompt is not known. This one tells classes of equal length apart.
    return Session(
        f"fitted-{number:05d}",
        BLOCK_TOKENS,
        tuple(steps),
        tool_tokens=prefix.tokens - prefix.number,
        system_tokens=prefix.number,
    )


def _kept_tokens(before: SimStep, step: SimStep, prefix: SharedPrefix) -> int:
    """Tokens of the last prompt whose blocks this one has; of the answer, which has no blocks, `Step` says nothing.

    All blocks of the last prompt and room for its answer mean that the answer is kept. Where it was drawn as dropped
    (one step in 20), the last block goes with it, unless that one is in the prefix: then the answer stays.
    """
    room = step.prompt_tokens >= before.prompt_tokens + before.output_tokens
    whole_tokens = before.prompt_tokens // BLOCK_TOKENS * BLOCK_TOKENS
    if room and whole_tokens <= step.kept_tokens < before.prompt_tokens + before.output_tokens:
        return max(prefix.tokens, whole_tokens - 1)
    return step.kept_tokens
