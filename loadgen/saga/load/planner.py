"""Turns sessions into a replay plan: chooses, drops and cuts, works out think times and the starts of sub-agents.

Pure and seeded, so that every system is measured on the same tasks. Not the text (content) and not the clock (replay).
Called by bench_live with the limits of the engines.
"""

from collections.abc import Sequence
from random import Random

from msgspec import Struct

from saga.load.plan import LeftOut, Plan, PlannedAgent, PlannedStep, PlannedTask
from saga.load.trace import MAIN_AGENT, Session, Step, SubAgent
from saga.load.traces.prompts import common_blocks


class PlanError(ValueError):
    """The asked-for plan makes no sense or leaves nothing to replay."""


class PlanSettings(Struct, frozen=True):
    """What to replay. Limits are those before shrinking; `None` means no limit.

    `limit`: sessions; `max_steps`: first steps of each; `min_steps`: shorter sessions are not chosen; `gap_cap_s`:
    recorded seconds.
    """

    context_tokens: int
    kv_tokens: int
    limit: int | None = None
    max_steps: int | None = None
    min_steps: int = 1
    gap_cap_s: float | None = None
    shrink: int = 1
    seed: int = 0


def build_plan(sessions: Sequence[Session], settings: PlanSettings) -> Plan:
    """Choose, drop and cut sessions. Raises PlanError when the shrink divides no block evenly or nothing is left to
    replay.
    """
    block_tokens = _block_tokens(sessions, settings.shrink)
    over_context = over_kv = too_short = 0
    fitting: list[tuple[int, Session]] = []
    for ordinal, session in enumerate(sessions):
        peak_tokens = session.peak_tokens(settings.shrink)
        if peak_tokens > settings.context_tokens:
            over_context += 1
        elif peak_tokens > settings.kv_tokens // 2:
            over_kv += 1
        elif len(session.steps) < max(1, settings.min_steps):
            too_short += 1
        else:
            fitting.append((ordinal, session))
    chosen = fitting
    if settings.limit is not None and settings.limit < len(fitting):
        chosen = sorted(Random(settings.seed).sample(fitting, settings.limit), key=lambda pair: pair[0])
    if not chosen:
        raise PlanError(
            f"no session left to replay: of {len(sessions)}, {over_context} exceed the context of "
            f"{settings.context_tokens} tokens, {over_kv} exceed half a worker's KV "
            f"({settings.kv_tokens // 2} tokens), {too_short} are too short"
        )
    drafts = [_draft(ordinal, session, settings) for ordinal, session in chosen]
    cut_gaps = [gap for _, gaps in drafts for gap in gaps]
    tasks = tuple(task for task, _ in drafts)
    kept_steps = sum(task.steps for task in tasks)
    kept_agents = sum(len(task.agents) for task in tasks)
    left_out = LeftOut(
        sessions_in_file=len(sessions),
        dropped_over_context=over_context,
        dropped_over_half_kv=over_kv,
        dropped_too_short=too_short,
        not_chosen=len(fitting) - len(chosen),
        steps_cut=sum(len(session.steps) for _, session in chosen) - kept_steps,
        subagents_cut=sum(len({step.agent for step in session.steps}) for _, session in chosen) - kept_agents,
        gaps_capped=len(cut_gaps),
        gap_seconds_cut=sum(cut_gaps),
    )
    return Plan(tasks, left_out, settings.shrink, block_tokens, block_tokens // settings.shrink)


def _block_tokens(sessions: Sequence[Session], shrink: int) -> int:
    sizes = {session.block_tokens for session in sessions}
    if len(sizes) != 1:
        raise PlanError(f"expected one block size in all sessions, got {sorted(sizes)}")
    block_tokens = sizes.pop()
    if shrink < 1 or block_tokens % shrink:
        # Only then is every block a whole number of characters, and equal block prefixes are equal text prefixes.
        known = [divisor for divisor in range(1, block_tokens + 1) if block_tokens % divisor == 0]
        raise PlanError(f"shrink {shrink}: expected a divisor of the {block_tokens}-token block: {known}")
    return block_tokens


def _draft(ordinal: int, session: Session, settings: PlanSettings) -> tuple[PlannedTask, list[float]]:
    """A task, and by how many seconds each capped gap was cut."""
    kept = session.steps[: settings.max_steps]
    cut_gaps: list[float] = []

    def capped(gap_s: float) -> float:
        if settings.gap_cap_s is None or gap_s <= settings.gap_cap_s:
            return gap_s
        cut_gaps.append(gap_s - settings.gap_cap_s)
        return settings.gap_cap_s

    def steps_of(agent: str, key: tuple[int, int]) -> tuple[PlannedStep, ...]:
        own = steps_by_agent.get(agent, [])
        shared = sum(key) // session.block_tokens
        # The first step's gap lies before the task or is replaced by the sub-agent's start.
        return tuple(
            _planned(
                step,
                own[at - 1] if at else None,
                own[0],
                shared,
                capped(step.think_s) if at else 0.0,
                session,
                settings,
            )
            for at, step in enumerate(own)
        )

    steps_by_agent: dict[str, list[Step]] = {}
    for step in kept:
        steps_by_agent.setdefault(step.agent, []).append(step)
    main = steps_by_agent.get(MAIN_AGENT, [])
    key = (session.tool_tokens, session.system_tokens)
    agents = []
    if main:
        agents.append(PlannedAgent(session.id, None, key, steps_of(MAIN_AGENT, key)))
    for sub in session.subagents:
        sub_key = (sub.tool_tokens, sub.system_tokens)
        steps = steps_of(sub.agent, sub_key)
        if steps:
            after, start_s = _start(sub, main)
            name = f"{session.id}.{sub.agent}"
            agents.append(PlannedAgent(name, session.id, sub_key, steps, after, capped(start_s)))
    return PlannedTask(session.id, ordinal, tuple(agents)), cut_gaps


def _start(sub: SubAgent, main: Sequence[Step]) -> tuple[int | None, float]:
    """The last main step that ended before the sub-agent's start, and the recorded seconds between the two."""
    ended = [(step.end_s, index) for index, step in enumerate(main) if step.end_s <= sub.start_s]
    if not ended:
        return None, max(0.0, sub.start_s - (main[0].start_s if main else sub.start_s))
    end_s, index = max(ended)
    return index, sub.start_s - end_s


def _planned(
    step: Step, before: Step | None, first: Step, shared: int, think_s: float, session: Session, settings: PlanSettings
) -> PlannedStep:
    tail_tokens = step.input_tokens % session.block_tokens // settings.shrink
    whole_tokens = step.input_tokens // session.block_tokens * (session.block_tokens // settings.shrink)
    extends = (
        before is not None
        and step.input_tokens - before.input_tokens >= before.output_tokens
        and common_blocks(before.blocks, step.blocks) == before.input_tokens // session.block_tokens
    )
    if whole_tokens + tail_tokens == 0:
        tail_tokens = 1  # an empty prompt is no request
    return PlannedStep(
        blocks=step.blocks,
        recorded_input_tokens=step.input_tokens,
        prompt_tokens=whole_tokens + tail_tokens,
        tail_tokens=tail_tokens,
        max_tokens=max(1, step.output_tokens // settings.shrink),
        think_s=think_s,
        extends=extends,
        # Ids settle equality inside a session, so the shared prefix ends where this step leaves the first.
        shared_blocks=min(shared, common_blocks(first.blocks, step.blocks)),
    )
