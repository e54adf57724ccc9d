"""Replaying a plan: order, think times, sub-agents, concurrency, splicing and records, against a client in memory."""

import asyncio
import time

from saga.load.client import StepAnswer
from saga.load.planner import PlanSettings, build_plan
from saga.load.replay import Replay, ReplaySettings
from saga.load.trace import Session, Step, SubAgent


class FakeClient:
    """Answers at once, or when `gate` opens; counts what is open at the same time."""

    def __init__(self, *, fail=()):
        self.requests = []
        self.most_workflows_open = 0
        self.gate = None
        self._open = {}
        self._fail = fail

    async def complete(self, request, on_first):
        self.requests.append(request)
        answer = StepAnswer(time.monotonic())
        self._open[request.workflow] = self._open.get(request.workflow, 0) + 1
        self.most_workflows_open = max(self.most_workflows_open, len(self._open))
        if self.gate is not None:
            await self.gate.wait()
        await asyncio.sleep(0)
        on_first()
        if len(self.requests) in self._fail:
            answer.error = "HTTP 500"
        answer.text = "y" * request.max_tokens
        answer.cached_tokens = 0
        answer.first_s = answer.last_s = time.monotonic()
        self._open[request.workflow] -= 1
        if not self._open[request.workflow]:
            del self._open[request.workflow]
        return answer


def step(whole, output=10, *, agent="main", t=0.0, gap=0.0, first=1):
    return Step(agent, t, 64 * whole, output, ((first, whole),), "tool_use", 1.0, gap)


async def replayed(client, *sessions, **settings):
    plan = build_plan(sessions, PlanSettings(context_tokens=10**6, kv_tokens=10**7))
    done = []
    fields = {"model": "m", "speed": 100.0, "page_tokens": 16} | settings
    return await Replay(plan, sessions, client, ReplaySettings(**fields), done.append).run(), done


async def test_steps_follow_their_answers_and_none_says_that_it_is_the_last():
    client = FakeClient()
    run, done = await replayed(client, Session("a", 64, (step(2), step(4, gap=2.0), step(6))))
    assert [len(request.prompt) for request in client.requests] == [128, 256, 384]
    assert not any(request.final for request in client.requests), "an agent learns that from the answer"
    assert {(request.workflow, request.session, request.parent) for request in client.requests} == {("a", "a", None)}
    first, second, _ = run.steps
    assert second.answer.sent_s - first.answer.last_s >= 0.02
    assert done == [True] * 3
    assert len(run.late_s) == 1


async def test_real_answers_go_into_the_next_prompt_unless_told_not_to():
    session = Session("a", 64, (step(2), step(4)))
    for splice in (True, False):
        client = FakeClient()
        run, _ = await replayed(client, session, splice=splice)
        assert client.requests[1].prompt.startswith(client.requests[0].prompt + "y" * 10) == splice
        # 128 prompt tokens and 9 of 10 answer tokens: 8 pages either way.
        assert [record.ideal_tokens for record in run.steps] == [0, 128]


async def test_a_failed_step_is_recorded_its_answer_dropped_and_the_task_goes_on():
    client = FakeClient(fail=(1,))
    run, done = await replayed(client, Session("a", 64, (step(2), step(4))))
    assert not client.requests[1].prompt.startswith(client.requests[0].prompt + "y")
    assert done == [False, True]
    assert run.tasks[0].failed_steps == 1


async def test_a_subagent_waits_for_its_main_step_and_its_parent_does_not_wait():
    subagents = (SubAgent("x", 1.5),)
    steps = (step(2, t=0.0), step(4, t=1.0), step(2, agent="x", t=1.5, first=50), step(6, t=3.0))
    client = FakeClient()
    client.gate = asyncio.Event()
    running = asyncio.create_task(replayed(client, Session("a", 64, steps, 0, 0, subagents)))
    for _ in range(20):
        await asyncio.sleep(0)
    assert [request.session for request in client.requests] == ["a"]
    client.gate.set()
    run, _ = await running
    assert {(request.session, request.parent) for request in client.requests} == {("a", None), ("a.x", "a")}
    times = {(record.session, record.index): record.answer for record in run.steps}
    assert times["a.x", 0].sent_s - times["a", 0].last_s >= 0.005
    assert run.tasks[0].answered_s >= times["a.x", 0].last_s


async def test_no_more_sessions_open_than_allowed():
    sessions = [Session(str(index), 64, (step(2), step(3))) for index in range(6)]
    narrow, wide = FakeClient(), FakeClient()
    await replayed(narrow, *sessions, concurrency=2)
    await replayed(wide, *sessions)
    assert narrow.most_workflows_open == 2
    assert wide.most_workflows_open == 6


async def test_what_is_held_comes_and_goes():
    run, _ = await replayed(FakeClient(), Session("a", 64, (step(2), step(4))))
    assert [change for _, change in run.held] == [128, 10, 256 - 138, -256]
