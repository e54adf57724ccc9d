"""A step refused for a quota: 429 in the shape of each API, with Retry-After and the limit by name and value."""

import msgspec
import pytest

from saga.contract.messages import Refused

DETAIL = "tenant red: quota waiting_steps=10, and 10 of its steps wait"
CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hello"}]}
REQUESTS = [
    ("/v1/chat/completions", CHAT),
    ("/v1/completions", {"model": "tiny", "prompt": "Hello"}),
    ("/v1/responses", {"model": "tiny", "input": "Hello"}),
    ("/v1/messages", {**CHAT, "max_tokens": 8}),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), REQUESTS)
@pytest.mark.parametrize(
    ("reason", "code"), [("quota", "quota_exceeded"), ("too_many_workflows", "too_many_workflows")]
)
async def test_a_quota_is_told_as_each_api_tells_a_rate_limit(mesh, path, body, stream, reason, code):
    mesh.leaders.refusal = Refused(step_id="", attempt=0, fence=1, reason=reason, detail=DETAIL, retry_after_s=4.2)

    response = await mesh.client.post(path, data=msgspec.json.encode({**body, "stream": stream}))

    answer = await response.json()
    assert (response.status, response.headers["Retry-After"]) == (429, "5")
    error = answer["error"]
    assert (error["type"], error["message"]) == ("rate_limit_error", DETAIL)
    if path == "/v1/messages":
        assert answer["type"] == "error"
    else:
        assert error["code"] == code
    assert mesh.desk.state.waiting == 0


async def test_a_retry_with_the_same_idempotency_key_is_taken_once_the_refused_one_is_over(mesh):
    mesh.leaders.refusal = Refused(step_id="", attempt=0, fence=1, reason="quota", detail=DETAIL, retry_after_s=1.0)
    body = {"model": "tiny", "prompt": "Hello", "max_tokens": 2}
    assert (await mesh.ask(body, Idempotency_Key="k")).status == 429

    mesh.leaders.refusal = None
    again = await mesh.ask(body, Idempotency_Key="k")

    assert again.status == 200
    first, second = mesh.leaders.steps
    assert first.step_id != second.step_id
