"""Many workflows at once, against a gateway that answers, refuses and fails."""

from itertools import pairwise

from aiohttp import web

from saga.load.client import GatewayClient
from saga.load.crowd import Crowd, Shape

SHAPE = Shape(workflows=6, steps=3, first_tokens=256, new_tokens=64, output_tokens=5, gap_s=0.001)


async def outcome_at(gateway):
    async with GatewayClient(gateway.url) as client:
        return await Crowd(client, "m", SHAPE, seed=1).run()


async def test_each_workflow_sends_steps_that_extend_one_another(gateway):
    outcome = await outcome_at(gateway)

    assert (outcome.completed, outcome.steps, outcome.errors, outcome.most_open) == (6, 18, {}, 6)
    by_workflow = {}
    for headers, body in gateway.requests:
        by_workflow.setdefault(headers["X-Saga-Workflow"], []).append((headers, body["prompt"]))
    assert len(by_workflow) == 6
    for sent in by_workflow.values():
        prompts = [prompt for _, prompt in sent]
        assert [len(prompt) for prompt in prompts] == [256, 325, 394]
        assert all(later.startswith(earlier + "abcab") for earlier, later in pairwise(prompts))
        assert ["X-Saga-Final" in headers for headers, _ in sent] == [False, False, True]
    assert len({prompts[0][1] for prompts in by_workflow.values()}) == 6, "no two share a prompt"


async def test_a_refusal_is_waited_out_and_counted(gateway):
    async def refuse(_request, _body):
        return web.json_response({"error": {"message": "later"}}, status=429, headers={"Retry-After": "0.01"})

    gateway.script = [refuse, *gateway.script]

    outcome = await outcome_at(gateway)

    assert (outcome.completed, outcome.refused_steps) == (6, 1)


async def test_a_failure_ends_its_workflow_and_is_told(gateway):
    async def fail(_request, _body):
        return web.Response(status=500, text="broken")

    gateway.script = [fail, *gateway.script]

    outcome = await outcome_at(gateway)

    assert (outcome.completed, outcome.steps) == (5, 15)
    assert outcome.errors == {"HTTP 500: broken": 1}
