"""The byte tokenizer against the tiny model's definition, and its chat template."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.kv.tokens import (
    EOS_ID,
    ID_OF_BYTE,
    SPECIALS,
    decode_ids,
    decode_tokens,
    encode_ids,
    encode_text,
    render_chat,
    token_count,
)


def byte_level_ids() -> list[int]:
    """The vocabulary of make_tiny_model.py, spelled out: specials, then GPT-2's byte alphabet in sorted order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    chars = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in chars:
            chars[byte] = chr(256 + len(chars) - len(printable))
    vocab = {token: i for i, token in enumerate([*SPECIALS, *sorted(chars.values())])}
    return [vocab[chars[byte]] for byte in range(256)]


def test_ids_are_those_of_the_tiny_model():
    assert list(ID_OF_BYTE) == byte_level_ids()
    assert decode_ids(encode_text("!a")) == [5, 69]
    assert decode_ids(encode_text("\n ")) == [5 + 188 + 10, 5 + 188 + 32]


def test_special_tokens_in_text_become_their_ids():
    text = "<|im_start|>user\nhi<|im_end|><|eos|>"
    ids = decode_ids(encode_text(text))
    assert ids[0] == 3
    assert ids[-2:] == [4, EOS_ID]
    assert len(ids) == len("user\nhi") + 3
    assert decode_tokens(encode_text(text)) == text


@given(st.text())
def test_text_survives_the_round_trip(text):
    readable = text.encode("utf-8", "replace").decode()
    encoded = encode_text(text)
    assert decode_tokens(encoded) == readable
    assert encode_ids(decode_ids(encoded)) == encoded


@given(st.binary())
def test_every_byte_is_one_token(data):
    text = data.decode("latin-1")
    assert token_count(encode_text(text)) == len(text.encode()) or any(name in text for name in SPECIALS)


def test_ids_without_a_meaning_decode_to_nothing():
    assert decode_tokens(encode_ids([69, 300, 70_000, 70])) == "ab"


@pytest.mark.parametrize("ids", [[-1], [1 << 32], ["a"], [1.5], [None]])
def test_ids_that_are_no_uint32_are_refused(ids):
    with pytest.raises(ValueError, match="token ids must be integers"):
        encode_ids(ids)


def test_chat_template():
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]
    head = "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
    assert render_chat(messages) == head + "<|im_start|>assistant\n"
    assert render_chat(messages, add_generation_prompt=False) == head
    assert render_chat(messages, tools=[{"type": "function"}]) == render_chat(messages)


def test_chat_content_forms():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert render_chat([{"role": "user", "content": parts}]) == render_chat([{"role": "user", "content": "a b"}])
    call = {"role": "assistant", "content": None, "tool_calls": [{"id": "x"}]}
    assert render_chat([call], add_generation_prompt=False) == "<|im_start|>assistant\n<|im_end|>\n"
    for bad in (3, [{"type": "image_url"}], ["a"]):
        with pytest.raises(ValueError, match="content must be"):
            render_chat([{"role": "user", "content": bad}])
    with pytest.raises(ValueError, match="role must be"):
        render_chat([{"content": "a"}])


def test_a_continued_answer_goes_on_where_the_first_one_stopped():
    user = {"role": "user", "content": "hi"}
    partial = {"role": "assistant", "content": "hel"}
    assert render_chat([user, partial], continue_final_message=True) == render_chat([user]) + "hel"
    assert render_chat([user], continue_final_message=True) == render_chat([user])
