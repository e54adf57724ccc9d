"""The steady stream: equal steps from sessions that take turns, in open and closed loop; and what a process cost."""

import os
from collections import Counter
from random import Random

from aiohttp import web

from saga.load.lean_client import LeanClient
from saga.load.process_cpu import cpu_s, per_step_ms
from saga.load.steady import OUTPUT_TOKENS, PROMPT_TOKENS, SESSION_STEPS, SHARED_TOKENS, Agents, Driver


async def test_both_loops_count_what_was_answered_in_full(gateway):
    client = LeanClient(gateway.url)
    driver = Driver(client, Agents("m", seed=1))
    open_loop = await driver.open_loop(rate=200.0, seconds=0.2, random=Random(2))
    closed_loop = await driver.closed_loop(inflight=4, seconds=0.2)
    client.close()
    assert open_loop.steps + closed_loop.steps == len(gateway.requests)
    assert open_loop.failed == closed_loop.failed == 0
    assert open_loop.steps > 10
    assert open_loop.waited_for_nothing == open_loop.steps
    assert closed_loop.control_ms.p99 == 1.25


async def test_sessions_keep_their_prefix_take_turns_and_end(gateway):
    client = LeanClient(gateway.url)
    await Driver(client, Agents("m", seed=1)).closed_loop(inflight=2, seconds=0.3)
    client.close()
    prompts = {}
    for headers, body in gateway.requests:
        assert (len(body["prompt"]), body["max_tokens"]) == (PROMPT_TOKENS, OUTPUT_TOKENS)
        prompts.setdefault(headers["X-Saga-Session"], []).append((body["prompt"], "X-Saga-Final" in headers))
    for sent in prompts.values():
        assert len({prompt[:SHARED_TOKENS] for prompt, _ in sent}) == 1
        assert len({prompt for prompt, _ in sent}) == len(sent) <= SESSION_STEPS
        assert [final for _, final in sent] == [at == SESSION_STEPS - 1 for at in range(len(sent))]


async def test_a_refused_step_is_a_failure(gateway):
    async def refuse(_request, _body):
        return web.json_response({}, status=503)

    gateway.script = [refuse]
    client = LeanClient(gateway.url)
    part = await Driver(client, Agents("m", seed=1)).closed_loop(inflight=1, seconds=0.05)
    client.close()
    assert part.failed == part.steps > 0


def test_cpu_is_added_up_by_service():
    spent = per_step_ms(
        {"engine-0": 1.0, "gateway": 5.0}, {"engine-0": 2.0, "engine-1": 1.0, "gateway": 5.5}, steps=100
    )
    assert spent == {"engine": 20.0, "gateway": 5.0}
    assert list(spent) == ["engine", "gateway"]
    mine = cpu_s({"me": os.getpid(), "gone": 2**22 + 1})
    assert Counter(mine.keys()) == Counter(["me", "generator"])
