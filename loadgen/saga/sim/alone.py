"""One workflow run alone: how long it takes and how much KV it holds, human gaps left out.

Arithmetic over the engine's own timing model; no simulation. It fixes the users of a
pressure, a property of workload and hardware and not of a system.
"""

from collections.abc import Iterable

from msgspec import Struct

from saga.engine.profile import Profile
from saga.engine.timing import IterationLoad, IterationTimer, prefill_pairs
from saga.sim.conversation import Conversation, SimAgent, SimStep


class Alone(Struct, frozen=True):
    """Means over conversations: duration without human gaps, and time-mean of the KV held."""

    seconds: float
    kv_tokens: float


def alone(conversations: Iterable[Conversation], profile: Profile) -> Alone:
    """Each on an idle worker with its cache kept, sub-agents beside their parent. At least one conversation."""
    timer = IterationTimer(profile)
    seconds = area = 0.0
    count = 0
    for conversation in conversations:
        count += 1
        for index, agent in enumerate(conversation.agents):
            agent_s, agent_area = _agent(agent, profile, timer)
            area += agent_area
            seconds += agent_s if index == 0 else 0.0
    return Alone(seconds / count, area / seconds)


def users_for(pressure: float, pool_kv_tokens: int, kv_tokens: float) -> int:
    """Users whose workflows, each alone, would hold `pressure` times the pool's KV; at least one."""
    return max(1, round(pressure * pool_kv_tokens / kv_tokens))


def _agent(agent: SimAgent, profile: Profile, timer: IterationTimer) -> tuple[float, float]:
    """(seconds, KV token-seconds)."""
    seconds = area = 0.0
    held_tokens = 0
    for step in agent.steps:
        if not step.opens_turn:
            seconds += step.think_s
            area += step.think_s * held_tokens
        step_s = step_alone_s(step, profile, timer)
        held_tokens = step.prompt_tokens + step.output_tokens
        seconds += step_s
        area += step_s * _middle_tokens(step)
    return seconds, area


def step_alone_s(step: SimStep, profile: Profile, timer: IterationTimer) -> float:
    """Seconds of one step on an idle worker with what it keeps cached."""
    step_s = 0.0
    at = step.kept_tokens
    while at < step.prompt_tokens:
        chunk = min(profile.chunk_tokens, step.prompt_tokens - at)
        load = IterationLoad(chunk, prefill_pairs(at, chunk), at)
        step_s += timer.iteration_s(load)
        at += chunk
    return step_s + max(0, step.output_tokens - 1) * timer.decode_pass_s(1, _middle_tokens(step))


def _middle_tokens(step: SimStep) -> int:
    return step.prompt_tokens + step.output_tokens // 2
