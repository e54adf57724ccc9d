"""The printed ideal is what an engine with unlimited KV really does with the very text a replay sends."""

import itertools
import time
from random import Random

import pytest

from saga.engine.core import EngineCore
from saga.engine.events import Arrive, Finished, FixedOutput, Tick, WakeAt
from saga.engine.profile import load_profile
from saga.kv.pages import hash_pages
from saga.kv.tokens import encode_text
from saga.load.client import StepAnswer
from saga.load.planner import PlanSettings, build_plan
from saga.load.replay import Replay, ReplaySettings
from saga.load.swe_bench import generate
from saga.load.trace import Session, Step, SubAgent

PAGE_TOKENS = 16


class EngineClient:
    """Runs each step on an EngineCore in its own virtual time, one after another, and answers with seeded letters."""

    def __init__(self, shrink):
        profile = load_profile("h100x1-llama3-8b").with_page_tokens(PAGE_TOKENS).shrunk(shrink)
        self._core = EngineCore(profile.with_kv_tokens(10**9), progress=False)
        self._random = Random(5)
        self._rids = itertools.count()
        self._now_s = 0.0
        self.prompt_tokens = self.cached_tokens = 0

    async def complete(self, request, on_first):
        on_first()
        text = "".join(self._random.choices("abcdefgh ", k=request.max_tokens))
        hashes = hash_pages(encode_text(request.prompt + text), PAGE_TOKENS)
        rid = str(next(self._rids))
        arrive = Arrive(rid, len(request.prompt), request.max_tokens, FixedOutput(request.max_tokens, hashes))
        finished = self._run(arrive)
        assert finished.output_tokens == request.max_tokens
        self.prompt_tokens += finished.prompt_tokens
        self.cached_tokens += finished.cached_tokens
        answer = StepAnswer(time.monotonic(), completion_tokens=request.max_tokens, text=text)
        answer.cached_tokens = finished.cached_tokens
        return answer

    def _run(self, event):
        while True:
            effects = self._core.handle(event, self._now_s)
            for effect in effects:
                if isinstance(effect, Finished):
                    return effect
            event = Tick()
            self._now_s = next(effect.at_s for effect in effects if isinstance(effect, WakeAt))


def recorded_like(seed):
    """Sessions that do what recorded ones do: shared prefixes, compaction, side calls, sub-agents, lost answers."""
    random = Random(seed)
    sessions = []
    for number in range(12):
        tool, system = random.choice([(900, 300), (700, 150)])
        ids = itertools.count(1)
        prompt = [next(ids) for _ in range(30)]
        steps = []
        for _ in range(15):
            output = random.choice([0, 20, 150, 700])
            steps.append((list(prompt), random.randrange(64), output))
            kind = random.random()
            keep = len(prompt) if kind < 0.8 else random.randrange(5, len(prompt))
            prompt = prompt[:keep] + [next(ids) for _ in range(random.randrange(0, 25))]
            if kind > 0.95:
                prompt = [next(ids) for _ in range(8)]
        main = tuple(
            Step("main", float(at), 64 * len(blocks) + tail, output, tuple((block, 1) for block in blocks))
            for at, (blocks, tail, output) in enumerate(steps)
        )
        sub = tuple(Step("s", 3.5 + at, 64 * (25 + 9 * at), 200, ((9000, 25 + 9 * at),)) for at in range(4))
        sessions.append(Session(f"s{number}", 64, main + sub, tool, system, (SubAgent("s", 3.5, 640, 64),)))
    return sessions


@pytest.mark.parametrize("shrink", [1, 16])
@pytest.mark.parametrize("splice", [True, False])
@pytest.mark.parametrize("workload", ["recorded-like", "swe-bench"])
async def test_unlimited_kv_reaches_the_ideal_within_a_point(workload, splice, shrink):
    sessions = recorded_like(3) if workload == "recorded-like" else generate(6, seed=3)
    plan = build_plan(sessions, PlanSettings(10**6, 10**9, max_steps=20, gap_cap_s=0.0, shrink=shrink))
    client = EngineClient(shrink)
    settings = ReplaySettings("m", 10**6, PAGE_TOKENS, splice=splice)
    run = await Replay(plan, sessions, client, settings, lambda _: None).run()
    ideal = sum(record.ideal_tokens for record in run.steps) / client.prompt_tokens
    actual = client.cached_tokens / client.prompt_tokens
    assert len(run.steps) == plan.steps
    assert 0.5 < actual < 1
    assert actual == pytest.approx(ideal, abs=0.01)
