"""Requests with anything anywhere: understood, or refused with an ApiError; never another exception."""

import json
import random

import pytest
from multidict import CIMultiDict

from saga.contract.ids import TenantId
from saga.gateway.api_errors import ApiError
from saga.gateway.dialects.dialect import prints_of, understood
from saga.gateway.dialects.table import DIALECTS
from saga.gateway.engine_body import engine_body
from saga.gateway.identity import Identities, told_of
from saga.gateway.recognisers import Evidence

CASES = 2_500  # of each API
PART = {"type": "text", "text": "words", "cache_control": {"type": "ephemeral"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:,x"}}
USED = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"a": [1]}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": [PART, {"type": "image", "source": {"data": ""}}]}
IDS = {
    "session_id": "s", "prompt_cache_key": "k", "program_id": "p", "conversation": {"id": "c"},
    "metadata": {"session_id": "m", "user_id": '{"session_id":"u"}'}, "nvext": {"agent_context": {"session_id": "n"}},
}  # fmt: skip
BODIES = {
    "chat": {
        "model": "m", "messages": [{"role": "system", "content": "S"}, {"role": "user", "content": [PART, IMAGE]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"name": "f"}}]},
        {"role": "tool", "content": "r"}], "tools": [{"type": "function", "function": {"name": "f"}}],
        "max_tokens": 5, "stream": True, "stream_options": {"include_usage": True}, "n": 1,
        "response_format": {"type": "text"},
    },
    "completions": {"model": "m", "prompt": ["words"], "max_tokens": 5, "echo": False, "logprobs": None},
    "messages": {
        "model": "m", "max_tokens": 5, "system": [PART], "messages": [{"role": "user", "content": [PART]},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "t"}, USED]},
        {"role": "user", "content": [RESULT, PART]}], "tools": [{"name": "f", "input_schema": {}}],
    },
    "responses": {
        "model": "m", "instructions": "I", "input": [{"role": "developer", "content": "D"},
        {"role": "user", "content": [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": "u"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "r"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "o"}]}],
    },
}  # fmt: skip
HEADERS = [
    "X-Saga-Workflow", "X-Saga-Session", "X-Saga-Parent", "X-Saga-Final", "X-Saga-Deadline-S", "X-Dynamo-Session-ID",
    "X-Dynamo-Session-Final", "X-Claude-Code-Session-Id", "X-Claude-Code-Agent-Id", "session-id", "thread-id",
    "x-codex-turn-metadata", "x-session-id", "x-parent-session-id", "Helicone-Session-Id", "Helicone-Session-Path",
    "traceparent", "baggage",
]  # fmt: skip


def junk(rng):
    return rng.choice([
        None, True, 0, -1, 2**70, 1e308, "", "x" * 200, "\x00", "\ud800", "é" * 50, [], {}, [[]], [None], {"type": 5},
        [{"role": "user"}], {"content": {"content": []}}, "assistant", "text",
    ])  # fmt: skip


def mutated(rng, value):
    """A copy with one place changed, left out or doubled."""
    copy = json.loads(json.dumps(value))
    node, places = copy, rng.randint(1, 6)
    for _ in range(places):
        keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
        if not keys:
            break
        key = rng.choice(keys)
        if rng.random() < 0.3 or not isinstance(node[key], (dict, list)) or not node[key]:
            if rng.random() < 0.2:
                del node[key]
            elif rng.random() < 0.2 and isinstance(node, list):
                node.append(node[key])
            else:
                node[key] = junk(rng)
            break
        node = node[key]
    return copy


@pytest.mark.parametrize("api", BODIES)
def test_anything_anywhere(api):
    rng, dialect, identities = random.Random(api), DIALECTS[api], Identities()
    taken = 0
    for number in range(CASES):
        body = BODIES[api] | (IDS if number % 2 else {})
        for _ in range(rng.randint(1, 3)):
            body = mutated(rng, body)
        headers = CIMultiDict((rng.choice(HEADERS), str(junk(rng))) for _ in range(rng.randint(0, 3)))
        data = json.dumps(body).encode()
        if rng.random() < 0.1:
            at = rng.randrange(len(data))
            data = data[:at] + rng.randbytes(2) + data[at + 1 :]
        refused = None
        try:
            asked = understood(dialect, data)
            whose = identities.identify(
                Evidence(headers, asked.raw),
                tenant=TenantId("t"),
                prints=lambda asked=asked: prints_of(dialect, asked),
                fresh=f"f{number}",
            )
        except ApiError as error:
            refused = error
        if refused is not None:
            assert 400 <= refused.status < 500
            json.loads(dialect.error(refused))
            continue
        taken += 1
        assert told_of(whose)["X-Saga-Identity"].isascii()
        sent = engine_body(asked.raw, rid_field=dialect.rid_field, rid="r", session_tag="", priority=0, cache_salt="",
                           changes=dialect.always(asked))  # fmt: skip
        assert json.loads(sent)[dialect.rid_field] == "r"
    assert 0.1 * CASES < taken < 0.9 * CASES
