"""Scanning a stream, remembering what it said, and going on with it."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenized import tokenized

from saga.gateway import resume, sse
from saga.gateway.api_errors import ApiError, from_engine, status_in
from saga.gateway.dialects.completion_stream import ChunkSplice
from saga.gateway.dialects.dialect import understood
from saga.gateway.dialects.table import DIALECTS
from saga.gateway.relay import Relay
from saga.gateway.transcript import Transcript
from saga.kv.tokens import decode_ids, encode_text


def event(choice=None, *, rid="r-00", created=7, **more):
    choices = [] if choice is None else [{"index": 0, **choice}]
    chunk = {"id": rid, "created": created, "choices": choices, **more}
    return b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n"


def said(text, **more):
    return event({"delta": {"content": text}, "finish_reason": None}, **more)


ROLE = event({"delta": {"role": "assistant", "content": ""}})
CHAT_API, COMPLETIONS_API = DIALECTS["chat"], DIALECTS["completions"]
screened = CHAT_API.screened
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}


def chat(**more):
    return tokenized(understood(CHAT_API, json.dumps(CHAT | more).encode()))


def completion(**more):
    body = {"model": "m", "prompt": "abc", "stream": True} | more
    return tokenized(understood(COMPLETIONS_API, json.dumps(body).encode()))


def transcript(*events, limit_bytes=1000):
    sent = Transcript(limit_bytes, CHAT_API, words=encode_text)
    for one in events:
        sent.add(one)
    sent.fold()
    return sent


@given(st.lists(st.sampled_from([ROLE, said("a"), said("\n\n"), sse.DONE, sse.comment("x")])), st.data())
def test_cut_anywhere_only_whole_events_pass(events, data):
    whole = b"".join(events)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)))))
    passed, held = [], b""
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        done, held = sse.split_whole(held + whole[start:stop])
        assert done == b"".join(sse.each(done))
        assert done == b"" or done.endswith(b"\n\n")
        passed.append(done)
    assert b"".join(passed) == whole
    assert held == b""


def test_text_of_the_model_is_never_a_marker():
    assert not CHAT_API.needs_care(said('"choices":[] "abort" "error"'))
    assert CHAT_API.needs_care(event(usage={}))
    assert CHAT_API.needs_care(event({"text": "", "finish_reason": "abort"}))
    assert CHAT_API.needs_care(b'data: {"error":{"message":"x"}}\n\n')


def test_a_transcript_knows_what_was_said():
    sent = transcript(ROLE, said("Hel"), said("lo"), event({"delta": {}, "finish_reason": "stop"}))
    assert (sent.text, sent.text_tokens, sent.events) == ("Hello", 5, 4)
    assert (sent.id, sent.created, sent.role_sent, sent.finish_reason) == ("r-00", 7, True, "stop")
    assert not transcript(ROLE).begun
    assert transcript(said("x")).begun


def test_long_streams_are_folded_on_the_way():
    sent = Transcript(10_000_000, CHAT_API)
    for _ in range(3000):
        sent.add(said("abc"))
    assert sent.text_bytes > 0
    sent.fold()
    assert sent.text == "abc" * 3000


def test_the_end_of_a_stream_is_read_alone():
    sent = Transcript(1000, CHAT_API)
    for one in [ROLE, *[said("a")] * 20, event({"delta": {}, "finish_reason": "length"}), sse.DONE]:
        sent.add(one)
    sent.fold_end()
    assert sent.finish_reason == "length"
    tools = Transcript(1000, CHAT_API)
    call = {"delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}}
    more = {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}}
    for one in [ROLE, event(call), *[event(more)] * 9, event({"delta": {}, "finish_reason": "tool_calls"}), sse.DONE]:
        tools.add(one)
    tools.fold_end()
    assert (tools.tools, tools.finish_reason) == (("f",), "tool_calls")


@pytest.mark.parametrize("first_events", [0, 8])
def test_the_opening_is_what_came_first_or_nothing(first_events):
    sent = Transcript(1000, CHAT_API, first_events)
    letters = "abcdefghijklmnopqrstuvwxyz"
    for one in [ROLE, *map(said, letters), event({"delta": {}, "finish_reason": "length"}), sse.DONE]:
        sent.add(one)
    sent.fold_end()
    assert sent.opening == ("abcdefg" if first_events else "")


def test_what_cannot_be_given_to_another_engine():
    call = event({"delta": {"tool_calls": [{"function": {"name": "f"}}]}})
    assert "tool" in resume.why_not(CHAT_API, chat(), transcript(ROLE, call))
    assert "reasoning" in resume.why_not(CHAT_API, chat(), transcript(event({"delta": {"reasoning_content": "hm"}})))
    assert "too much" in resume.why_not(CHAT_API, chat(), transcript(said("abcdef"), limit_bytes=3))
    assert resume.why_not(CHAT_API, chat(logprobs=True), transcript(ROLE)) == ""
    assert resume.why_not(CHAT_API, chat(logprobs=True), transcript(said("a"))) == "logprobs"
    assert resume.why_not(CHAT_API, chat(), transcript(said("a"))) == ""


def test_prompts_of_token_ids_go_on_as_token_ids():
    asked = completion(prompt=[5, 6, 7], max_tokens=10)
    changed = resume.changes(COMPLETIONS_API, asked, transcript(event({"text": "ab"})))
    assert changed["prompt"] == [5, 6, 7, *decode_ids(encode_text("ab"))]
    assert changed["max_tokens"] == 8


def test_an_answer_that_is_complete():
    ended = event({"delta": {}, "finish_reason": "stop"})
    assert resume.complete(CHAT_API, chat(), transcript(said("a"), ended))
    assert not resume.complete(CHAT_API, chat(n=2), transcript(said("a"), ended))
    assert resume.complete(CHAT_API, chat(max_tokens=2), transcript(said("ab")))
    assert not resume.complete(CHAT_API, chat(max_tokens=3), transcript(said("ab")))
    assert not resume.complete(CHAT_API, chat(), transcript(said("ab")))


def test_a_spliced_stream_has_one_id_one_time_and_one_role():
    splice = ChunkSplice(transcript(ROLE, said("a")))
    first = splice.apply(event({"delta": {"role": "assistant", "content": ""}}, rid="r-01", created=9))
    assert first == b""
    assert splice.apply(said("b", rid="r-01", created=9)) == said("b")
    assert splice.apply(said('"id":"r-01"', rid="r-01", created=9)) == said('"id":"r-01"')


def test_a_role_with_text_is_kept():
    splice = ChunkSplice(transcript(ROLE))
    both = {"delta": {"role": "assistant", "content": "x"}}
    assert splice.apply(event(both, rid="r-01")) == event(both)


def usage(prompt_tokens, output_tokens, cached_tokens=0):
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": prompt_tokens + output_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def test_usage_is_stripped_unless_asked_for():
    events = said("a") + event(usage=usage(3, 1)) + sse.DONE
    sent = Transcript(100, CHAT_API)
    assert screened(events, chat(), sent, 0) == (said("a") + sse.DONE, "")
    assert sent.usage is not None
    assert sent.usage.prompt_tokens == 3
    wants = chat(stream_options={"include_usage": True})
    assert screened(events, wants, Transcript(100, CHAT_API), 0) == (events, "")


def test_usage_of_a_continued_answer_is_that_of_the_whole():
    wants = chat(stream_options={"include_usage": True})
    sent = Transcript(100, CHAT_API)
    prompt_tokens = wants.prompt_tokens
    kept, lost = screened(event(usage=usage(prompt_tokens + 5, 2, prompt_tokens + 4)), wants, sent, 5)
    assert not lost
    assert json.loads(sse.payload(kept))["usage"] == usage(prompt_tokens, 7, prompt_tokens)
    assert sent.usage is not None
    assert sent.usage.output_tokens == 7


def test_an_abort_or_a_server_error_loses_the_engine_and_keeps_what_came_before():
    aborted = said("a") + event({"delta": {}, "finish_reason": "abort"}) + sse.DONE
    assert screened(aborted, chat(), Transcript(100, CHAT_API), 0) == (said("a"), "it aborted the request")
    broke = said("a") + b'data: {"error":{"message":"out of memory","code":500}}\n\n'
    assert screened(broke, chat(), Transcript(100, CHAT_API), 0) == (said("a"), "out of memory")
    with pytest.raises(ApiError, match="bad regex"):
        screened(b'data: {"error":{"message":"bad regex","code":400}}\n\n', chat(), Transcript(100, CHAT_API), 0)


def test_an_owed_end():
    asked = completion(stream_options={"include_usage": True}, max_tokens=1)
    sent = transcript(event({"text": "a"}))
    events = sse.each(COMPLETIONS_API.ending(asked, sent, "length", 1))
    assert json.loads(sse.payload(events[0]))["choices"][0]["finish_reason"] == "length"
    assert json.loads(sse.payload(events[1]))["usage"]["total_tokens"] == 4
    assert events[2] == sse.DONE
    assert (
        COMPLETIONS_API.ending(completion(), transcript(event({"text": "", "finish_reason": "stop"})), "stop", 1)
        == sse.DONE
    )


def test_an_event_that_is_none_of_its_api_loses_the_engine():
    api = DIALECTS["responses"]
    asked = understood(api, b'{"model":"m","input":"Hi","stream":true}')
    relay = Relay(api, asked, Transcript(1000, api), splice=None, sent_tokens=0)
    assert relay.take(b'event: response.failed\ndata: {"response":"no object"}\n\n') == b""
    assert "no event of this API" in relay.lost


def test_an_event_that_is_no_utf8_is_relayed_as_it_came_and_not_understood():
    broken = b'data: {"choices":[{"index":0,"delta":{"content":"\xff"}}],"error":null}\n\n'
    assert screened(broken, chat(), Transcript(100, CHAT_API), 0) == (broken, "")
    assert transcript(ROLE, said("a"), broken).text == "a"


def test_an_engines_error_that_is_no_utf8_is_shown_as_far_as_it_can_be():
    error = from_engine(500, b'{"message":"out of \xff memory"}')
    assert "out of" in str(error)
    assert status_in(msgspec.Raw(b'{"code":"\xff"}')) == 500
