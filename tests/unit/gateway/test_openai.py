"""What we read of a request."""

import json

import msgspec
import pytest

from saga.gateway.api_errors import ApiError
from saga.gateway.dialects.dialect import understood
from saga.gateway.dialects.table import DIALECTS
from saga.gateway.engine_body import CONTROL_FIELDS, engine_body
from saga.gateway.prompt_tokens import BYTES
from saga.kv.tokens import encode_ids, encode_text, render_chat

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
CHAT_API, COMPLETIONS_API = DIALECTS["chat"], DIALECTS["completions"]
CHAT = {"model": "m", "messages": MESSAGES}


def chat(**more):
    return understood(CHAT_API, json.dumps(CHAT | more).encode())


def completion(**more):
    return understood(COMPLETIONS_API, json.dumps({"model": "m", "prompt": "abc"} | more).encode())


def token_bytes(asked):
    return BYTES.prompted(asked, None).encoded.token_bytes


def test_prompts_are_tokenized_as_the_engine_does():
    assert token_bytes(chat()) == encode_text(render_chat(MESSAGES))
    parts = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert token_bytes(chat(messages=parts)) == encode_text(render_chat(parts))
    assert token_bytes(completion()) == encode_text("abc")
    assert token_bytes(completion(prompt=["abc"])) == encode_text("abc")
    assert token_bytes(completion(prompt=[5, 6, 7])) == encode_ids([5, 6, 7])


def test_limits():
    assert chat().max_tokens is None
    assert chat(max_tokens=5).max_tokens == 5
    assert chat(max_tokens=5, max_completion_tokens=7).max_tokens == 7
    assert completion().max_tokens == 16
    assert chat(stream=None, max_tokens=None).stream is False


def test_the_agent_class_is_system_prompt_and_tools():
    tools = [{"type": "function", "function": {"name": "f"}}]
    other_user = [MESSAGES[0], {"role": "user", "content": "Something else"}]
    assert chat().agent_class == chat(messages=other_user).agent_class != ""
    assert chat().agent_class != chat(tools=tools).agent_class
    assert chat().agent_class != chat(messages=MESSAGES[1:]).agent_class
    assert completion().agent_class == ""


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, ""),
        ({"n": 2}, "n above 1"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "grammar"),
        ({"response_format": {"type": "text"}}, ""),
        ({"ebnf": "root ::= x"}, "grammar"),
    ],
)
def test_what_fixes_an_answer_to_its_engine(more, why):
    assert chat(**more).fixed_because == why


@pytest.mark.parametrize(
    ("more", "why"), [({"echo": True}, "echo"), ({"suffix": "x"}, "suffix"), ({"best_of": 2}, "best_of above 1")]
)
def test_the_same_for_completions(more, why):
    assert completion(**more).fixed_because == why


def test_the_engine_gets_the_rest_as_it_came():
    given = dict.fromkeys(CONTROL_FIELDS, 1) | {"temperature": 0.1234567890123, "unknown": {"a": [1, None]}}
    asked = chat(**{name: value for name, value in given.items() if name not in ("session_id", "prompt_cache_key")})
    body = json.loads(
        engine_body(
            asked.raw,
            rid_field="rid",
            rid="r-00",
            session_tag="",
            priority=3,
            cache_salt="",
            changes={"model": None, "x": 1},
        )
    )
    assert body == {
        "messages": MESSAGES,
        "temperature": 0.1234567890123,
        "unknown": {"a": [1, None]},
        "rid": "r-00",
        "priority": 3,
        "x": 1,
    }
    tagged = json.loads(
        engine_body(
            asked.raw, rid_field="rid", rid="r-00", session_tag="tag", priority=0, cache_salt="salt", changes={}
        )
    )
    assert (tagged["session_id"], tagged["cache_salt"]) == ("tag", "salt")


@pytest.mark.parametrize("options", [None, {"include_usage": False}, {"continuous_usage_stats": True}])
def test_usage_is_always_asked_for(options):
    changed = msgspec.json.encode(CHAT_API.always(chat(stream=True, stream_options=options)))
    expected = {"continuous_usage_stats": True} if options and "continuous_usage_stats" in options else {}
    assert json.loads(changed) == {"stream_options": expected | {"include_usage": True}}


def test_invalid_fields_are_named_with_their_path():
    with pytest.raises(ApiError) as raised:
        chat(messages=[{"role": "user", "content": [{"type": 5}]}])
    assert raised.value.param == "messages[0].content[0].type"
    assert "expected `str`, got `int`" in raised.value.message
