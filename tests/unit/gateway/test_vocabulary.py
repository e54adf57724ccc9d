"""A model's own tokenizer: the same tokens, whether a prompt is tokenized whole or from where it leaves the last."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_folder import SPECIALS, tokenizer

from saga.gateway.vocabulary import BadVocabularyError, Vocabulary
from saga.kv.tokens import decode_ids, encode_ids

PLAIN = tokenizer()
VOCABULARY = Vocabulary(PLAIN.to_str())
WITH_BOS = Vocabulary(tokenizer(bos=True).to_str())
pieces = st.sampled_from(
    [
        *SPECIALS,
        "hello",
        " world",
        "  ",
        "\n\n",
        "\n",
        "é",
        "e\u0301",
        "東京",
        "'s",
        "12",
        "<|im_",
        "end|>",
        "<think>",
        "a",
    ]
)
texts = st.lists(pieces, max_size=12).map("".join)


def ids_of(text):
    return PLAIN.encode(text, add_special_tokens=False).ids


def turns(*said):
    return "".join(f"<|im_start|>user\n{text}<|im_end|>\n" for text in said) + "<|im_start|>assistant\n"


@settings(max_examples=400, deadline=None)
@given(st.lists(texts, min_size=1, max_size=5), st.booleans())
def test_incremental_tokens_are_the_tokens_of_the_whole(parts, specials):
    last, text = None, ""
    for at, part in enumerate(parts):
        text = text[: len(text) // 2] + part if at % 3 == 2 else text + part
        encoded = WITH_BOS.encode(text, last, specials=specials)
        whole = ids_of(text)
        assert decode_ids(encoded.token_bytes) == ([0, *whole] if specials else whole)
        last = encoded


def test_a_growing_chat_is_tokenized_from_its_last_turn():
    first = VOCABULARY.encode(turns("Read the file."))
    second = VOCABULARY.encode(turns("Read the file.") + "Done.<|im_end|>\n" + turns("Now write it."), first)
    assert second.reused_tokens == len(ids_of(turns("Read the file."))) - len(ids_of("<|im_start|>assistant\n"))
    assert decode_ids(second.token_bytes) == ids_of(second.text)


def test_a_history_that_was_rewritten_is_tokenized_from_there():
    first = VOCABULARY.encode(turns("one", "two", "three"))
    second = VOCABULARY.encode(turns("one", "two", "THREE", "four"), first)
    assert 0 < second.reused_tokens < len(first.token_bytes) // 4 - len(ids_of("three"))
    assert decode_ids(second.token_bytes) == ids_of(second.text)


def test_another_models_tokens_are_not_taken_over():
    text = turns("Read the file.")
    other = Vocabulary(tokenizer(vocabulary=300).to_str()).encode(text)
    assert VOCABULARY.encode(text, other).reused_tokens == 0
    assert VOCABULARY.encode(text, VOCABULARY.encode(text, specials=True)).reused_tokens == 0


def test_a_special_token_inside_a_longer_one_is_no_place_to_cut():
    text = "<|im_end|><|more|>" + "a" * 50
    last = VOCABULARY.encode(text)
    assert last.cuts  # the longer one is a place
    assert decode_ids(VOCABULARY.encode(text + "b", last).token_bytes) == ids_of(text + "b")


def test_lone_surrogates_become_question_marks():
    assert decode_ids(VOCABULARY.encode("a\ud800b").token_bytes) == ids_of("a?b")


def test_pieces_of_an_answer_are_counted_without_what_begins_a_text():
    assert WITH_BOS.count("hello") == len(ids_of("hello"))
    assert WITH_BOS.encode("hello", specials=True).token_bytes == encode_ids([0, *ids_of("hello")])


PANICS = """{"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "continuing_subword_prefix": "###",
    "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}}"""  # the library's own fault, found by fuzzing


@pytest.mark.parametrize("text", ["", "{}", "no json", '{"model": {"type": "BPE"}}', PANICS])
def test_what_is_no_tokenizer_is_refused(text):
    with pytest.raises(BadVocabularyError, match=r"no tokenizer\.json"):
        Vocabulary(text)
