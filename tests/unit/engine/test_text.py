"""The engine's text: continues across engines, ends by chance, is ASCII; and tool calls that fit their schema."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.engine.output import FixedSpeech, FreeSpeech, LiveOutput
from saga.engine.text import Babble
from saga.engine.tool_call import make_call
from saga.kv.pages import PageChain
from saga.kv.tokens import decode_tokens, encode_text, token_count


@given(st.text(min_size=1), st.integers(0, 200), st.integers(1, 100), st.integers())
def test_a_broken_stream_continues_exactly_on_another_engine(prompt, said, more, seed):
    whole = Babble(seed, encode_text(prompt), 30).first(said + more)
    rest = Babble(seed, encode_text(prompt + whole[:said].decode()), 30)
    assert rest.first(more) == whole[said:]


@given(st.text(min_size=1), st.integers(1, 60))
def test_a_continued_stream_ends_where_it_would_have_ended(prompt, broken_at):
    first = Babble(0, encode_text(prompt), 20)
    length, reason = FreeSpeech(first, 400, ignore_eos=False).plan(399)
    if reason != "stop" or length <= broken_at:
        return
    said = first.first(broken_at).decode()
    rest = FreeSpeech(Babble(0, encode_text(prompt + said), 20), 400 - broken_at, ignore_eos=False)
    assert rest.plan(399 - broken_at) == (length - broken_at, "stop")


def test_text_depends_on_prompt_and_seed_from_the_first_tokens_on():
    texts = {Babble(seed, encode_text(prompt), 30).first(16) for seed in (0, 1) for prompt in ("a", "b")}
    assert len(texts) == 4


def test_text_is_ascii_and_one_token_per_byte():
    text = Babble(3, encode_text("p"), 30).first(5000).decode("ascii")
    assert token_count(encode_text(text)) == 5000
    assert '"' not in text
    assert "\\" not in text
    assert text.isprintable()


def test_lengths_have_the_mean_of_the_profile():
    lengths = []
    for number in range(300):
        speech = FreeSpeech(Babble(0, encode_text(str(number)), 50), 10_000, ignore_eos=False)
        known, reason = 0, ""
        while not reason:
            known, reason = speech.plan(known)
        lengths.append(known)
    assert 42 < sum(lengths) / len(lengths) < 58


def test_ignore_eos_says_exactly_max_tokens():
    speech = FreeSpeech(Babble(0, encode_text("p"), 2), 500, ignore_eos=True)
    assert speech.plan(1) == (500, "length")
    assert len(speech.first(500)) == 500


def test_max_tokens_ends_what_does_not_end_itself():
    assert FreeSpeech(Babble(0, encode_text("p"), 1e9), 30, ignore_eos=False).plan(1) == (30, "length")


@given(st.text(min_size=1, max_size=40), st.integers(0, 60), st.integers(0, 90))
def test_output_hashes_and_tokens_are_those_of_prompt_plus_answer(prompt, said, first_token):
    output = LiveOutput(
        encode_text(prompt), 4, "salt", FreeSpeech(Babble(0, encode_text(prompt), 9), 99, ignore_eos=True)
    )
    text = prompt + output.text(0, said).decode()
    prompt_tokens = token_count(encode_text(prompt))
    assert output.page_hashes(prompt_tokens + said) == PageChain(4, "salt").extended(encode_text(text)).hashes
    both = encode_text(text)
    tokens = max(0, prompt_tokens + said - first_token)
    assert output.token_bytes(first_token, tokens) == (both[first_token * 4 :] if tokens else b"")
    assert decode_tokens(output.token_bytes(0, prompt_tokens)) == prompt.encode("utf-8", "replace").decode()


SCHEMA = {
    "type": "object",
    "properties": {
        "path": {"type": "string"},
        "mode": {"enum": ["fast", "slow"]},
        "lines": {"type": "integer", "minimum": 7},
        "ratio": {"type": "number"},
        "force": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
        "where": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
        "maybe": {"anyOf": [{"type": "null"}, {"type": "string"}]},
        "left_out": {"type": "string"},
    },
    "required": ["path", "mode", "lines", "ratio", "force", "tags", "where", "maybe"],
}


def test_a_call_satisfies_its_schema():
    call = make_call("edit", SCHEMA, "some words ")
    arguments = json.loads(call.arguments)
    assert isinstance(arguments["path"], str)
    assert arguments["path"]
    assert (arguments["mode"], arguments["lines"], arguments["force"]) == ("fast", 7, True)
    assert len(arguments["tags"]) == 2
    assert arguments["where"] == {"x": 1}
    assert arguments["maybe"] is None
    assert "left_out" not in arguments
    assert json.loads(call.text) == [{"name": "edit", "parameters": arguments}]


@pytest.mark.parametrize("fill_tokens", [0, 120, 800])
def test_a_call_grows_to_the_wanted_length(fill_tokens):
    schema = {"properties": {"a": {"type": "string"}}, "required": ["a"]}
    call = make_call("f", schema, "words ", fill_tokens)
    assert len(call.text) == max(fill_tokens, len(make_call("f", schema, "w").text))
    json.loads(call.arguments)


def test_a_call_that_does_not_fit_is_cut_off():
    assert FixedSpeech(b"abcdef", 4, "tool_calls").plan(1) == (4, "length")
    assert FixedSpeech(b"abcdef", 6, "tool_calls").plan(1) == (6, "tool_calls")
    assert make_call("f", {}, "w").arguments == "{}"
