"""The live benchmark's plan in virtual time: same tasks, same lengths, same starts, at any speed."""

import pytest
from msgspec.structs import replace

from saga.engine.profile import load_profile
from saga.load.content import Numbering, Speller, TaskText
from saga.load.plan import Plan
from saga.load.planner import PlanSettings, build_plan
from saga.load.swe_bench import generate
from saga.load.trace import Session, SubAgent
from saga.sim.conversation import HASH_BYTES
from saga.sim.planned import Planned, PlannedRun, simulate_plan
from saga.sim.world import NO_DELAYS

PROFILE = load_profile("h100x1-llama3-8b").with_page_tokens(16).shrunk(16)
RUN = PlannedRun(
    system="session-affinity", profile=PROFILE, workers=2, speed=1.0, delays=NO_DELAYS, client_s=0.0, seed=3
)


def planned(tasks: int, steps: int = 6) -> tuple[Plan, list[Session]]:
    """Synthetic sessions; the first has a sub-agent that starts 0.5 s after its second step."""
    sessions = generate(tasks, seed=1)
    first, *others = sessions
    sub = [replace(step, agent="sub", start_s=first.steps[1].start_s + 0.5) for step in first.steps[:2]]
    child = SubAgent("sub", sub[0].start_s)
    sessions = [replace(first, steps=(*first.steps[:steps], *sub), subagents=(child,)), *others]
    settings = PlanSettings(context_tokens=131_072, kv_tokens=400_000, max_steps=steps + 2, shrink=16, gap_cap_s=10.0)
    return build_plan(sessions, settings), sessions


def test_every_step_of_the_plan_is_taken_once() -> None:
    plan, sessions = planned(8)

    for system in ("session-affinity", "saga"):
        result = simulate_plan(plan, sessions, replace(RUN, system=system))
        assert (result.steps, result.failures, len(result.tct_s)) == (plan.steps, 0, 8)
        assert 0.5 < result.hit_rate < 1.0
        assert simulate_plan(plan, sessions, replace(RUN, system=system)) == result


def test_task_times_in_engine_seconds_do_not_depend_on_the_speed() -> None:
    plan, sessions = planned(8)

    slow, fast = (simulate_plan(plan, sessions, replace(RUN, speed=speed)) for speed in (1.0, 7.0))

    assert fast.tct_s == pytest.approx(slow.tct_s, rel=1e-6)
    assert fast.hit_rate == slow.hit_rate
    assert fast.seconds == pytest.approx(slow.seconds / 7, rel=1e-6)


def test_what_a_step_costs_outside_counts_once_a_step_in_real_seconds() -> None:
    plan, sessions = planned(2)
    plan = replace(plan, tasks=plan.tasks[1:])
    steps = plan.tasks[0].steps

    without, with_client = (
        simulate_plan(plan, sessions, replace(RUN, speed=4.0, client_s=client_s)) for client_s in (0.0, 0.01)
    )

    assert with_client.mean_tct_s - without.mean_tct_s == pytest.approx(0.01 * 4.0 * steps)


def test_tasks_start_when_they_started_live_or_when_a_place_is_free() -> None:
    plan, sessions = planned(3)
    starts_s = {task.session_id: 1_000.0 * number for number, task in enumerate(plan.tasks)}

    apart = simulate_plan(plan, sessions, replace(RUN, starts_s=starts_s))
    one_by_one = simulate_plan(plan, sessions, replace(RUN, concurrency=1))

    assert apart.seconds == pytest.approx(2_000.0 + apart.tct_s[-1])
    assert one_by_one.seconds == pytest.approx(sum(one_by_one.tct_s))
    assert apart.tct_s == pytest.approx(one_by_one.tct_s, rel=0.05)


def test_pages_are_those_of_the_text_that_the_live_generator_sends() -> None:
    plan, sessions = planned(2)
    workload = Planned(plan, sessions, RUN)
    task = plan.tasks[1]
    agent = task.agents[0]
    conversation = workload.draw(1)
    pages = workload.pages(1, 0)
    text = TaskText(task, plan, Numbering(sessions), Speller(plan.block_chars, RUN.seed))

    known_before = 0
    for index, (step, sim_step) in enumerate(zip(agent.steps, conversation.agents[0].steps, strict=True)):
        assert len(text.prompt(agent, step)) == sim_step.prompt_tokens
        hashes, known = pages.advance(index, sim_step)
        assert len(hashes) // HASH_BYTES == (sim_step.prompt_tokens + sim_step.output_tokens) // 16
        if index and step.extends:
            assert known == known_before, "prompt and answer of the step before, to the last full page"
        known_before = (sim_step.prompt_tokens + sim_step.output_tokens) // 16
