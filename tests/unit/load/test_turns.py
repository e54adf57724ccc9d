"""Prompts as messages, and the APIs that they go out in and come back through."""

import json

import pytest

from saga.kv.tokens import encode_text, render_chat, token_count
from saga.load.apis import Turn, body_of, read_event, sequence_of
from saga.load.turns import Talk


def test_what_was_said_stays_said():
    talk = Talk(system_chars=3)
    assert talk.asked("SYSask") == (Turn("system", "SYS"), Turn("user", "ask"))
    talk.answered("answer")
    longer = talk.asked("SYSaskanswermore")
    assert longer == (Turn("system", "SYS"), Turn("user", "ask"), Turn("assistant", "answer"), Turn("user", "more"))


def test_a_prompt_that_leaves_the_last_one_keeps_what_is_still_true():
    talk = Talk(system_chars=3)
    talk.asked("SYSask")
    talk.answered("answer")
    talk.asked("SYSaskanswermore")
    talk.answered("again")
    assert talk.asked("SYSaskanswerother")[2:] == (Turn("assistant", "answer"), Turn("user", "other"))
    assert talk.asked("SYScompacted") == (Turn("system", "SYS"), Turn("user", "compacted"))
    assert talk.asked("else") == (Turn("system", "els"), Turn("user", "e"))


def test_a_failed_step_leaves_no_answer_and_no_two_messages_of_the_user():
    talk = Talk(0)
    talk.asked("ask")
    assert talk.asked("askmore") == (Turn("user", "askmore"),)


TURNS = (Turn("system", "S"), Turn("user", "U"), Turn("assistant", "A"), Turn("user", "V"))


def test_each_api_gets_the_same_talk_in_its_own_form():
    bodies = {
        api: body_of(api, "m", TURNS, 7, ignore_eos=True) for api in ("completions", "chat", "messages", "responses")
    }
    assert (bodies["completions"]["prompt"], bodies["completions"]["max_tokens"]) == ("SUAV", 7)
    assert [message["content"] for message in bodies["chat"]["messages"]] == ["S", "U", "A", "V"]
    assert (bodies["messages"]["system"], len(bodies["messages"]["messages"])) == ("S", 3)
    assert (bodies["responses"]["instructions"], bodies["responses"]["max_output_tokens"]) == ("S", 7)
    assert [api for api, body in bodies.items() if "ignore_eos" in body] == ["completions", "chat"]
    assert "ignore_eos" not in body_of("chat", "m", TURNS, 7, ignore_eos=False)


def test_a_sequence_is_as_long_as_the_prompt_that_the_template_makes():
    messages = [{"role": turn.role, "content": turn.text} for turn in TURNS]
    assert len(sequence_of("chat", TURNS)) == token_count(encode_text(render_chat(messages)))


@pytest.mark.parametrize(
    ("event", "text", "ended", "counted"),
    [
        ({"choices": [{"text": "a"}]}, "a", False, (-1, -1, -1)),
        ({"choices": [{"delta": {"role": "assistant", "content": "a"}}]}, "a", False, (-1, -1, -1)),
        ({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}, "", False, (5, 2, -1)),
        ({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "a"}}, "a", False, (-1, -1, -1)),
        (
            {"type": "message_start", "message": {"usage": {"input_tokens": 2, "cache_read_input_tokens": 3}}},
            "",
            False,
            (5, -1, 3),
        ),
        ({"type": "message_stop"}, "", True, (-1, -1, -1)),
        ({"type": "response.output_text.delta", "delta": "a"}, "a", False, (-1, -1, -1)),
        ({"type": "response.function_call_arguments.delta", "delta": "{"}, "", False, (-1, -1, -1)),
        (
            {
                "type": "response.completed",
                "response": {
                    "status": "completed",
                    "error": None,
                    "usage": {"input_tokens": 5, "output_tokens": 2, "input_tokens_details": {"cached_tokens": 4}},
                },
            },
            "",
            True,
            (5, 2, 4),
        ),
    ],
)
def test_events_of_all_apis(event, text, ended, counted):
    said = read_event(json.dumps(event).encode())
    assert (said.text, said.ended, said.error) == (text, ended, "")
    assert (said.prompt_tokens, said.completion_tokens, said.cached_tokens) == counted


@pytest.mark.parametrize(
    "event",
    [
        {"error": {"message": "no"}},
        {"type": "error", "message": "no", "error": {"message": "no"}},
        {"type": "response.failed", "response": {"status": "failed", "error": {"message": "no"}}},
    ],
)
def test_errors_of_all_apis(event):
    assert "no" in read_event(json.dumps(event).encode()).error
