"""Page hash chains against hashlib spelled out, and the ways to grow, cut and carry a chain."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.kv.pages import PageChain, hash_pages, hashes_to_int64, int64_to_hashes
from saga.kv.tokens import encode_ids

tokens = st.lists(st.integers(0, 300), max_size=60)


def spelled_out(ids, page_tokens, salt=""):
    digest = hashlib.sha256(b"sglang-cache-salt-v1\0" + salt.encode()).digest() if salt else b""
    hashes = []
    for page in range(len(ids) // page_tokens):
        state = hashlib.sha256(digest)
        for token in ids[page * page_tokens : (page + 1) * page_tokens]:
            state.update(token.to_bytes(4, "little"))
        digest = state.digest()
        hashes.append(int.from_bytes(digest[:8], "big", signed=True))
    return hashes


def test_golden_hashes():
    chain = PageChain(2).extended(encode_ids([1, 2, 3, 4, 5]))
    first = hashlib.sha256(bytes([1, 0, 0, 0, 2, 0, 0, 0])).digest()
    second = hashlib.sha256(first + bytes([3, 0, 0, 0, 4, 0, 0, 0])).digest()
    assert chain.hashes == first[:8] + second[:8]
    assert first[:8].hex() == "34fb5c825de7ca4a"
    assert (chain.pages, chain.tail_tokens, chain.tip, chain.tokens) == (2, 1, second[:8], 5)


@given(tokens, st.integers(1, 9), st.sampled_from(["", "tenant-a"]))
def test_chain_equals_hashlib_spelled_out(ids, page_tokens, salt):
    chain = PageChain(page_tokens, salt).extended(encode_ids(ids))
    assert hashes_to_int64(chain.hashes) == spelled_out(ids, page_tokens, salt)
    assert int64_to_hashes(hashes_to_int64(chain.hashes)) == chain.hashes
    if not salt:
        assert hash_pages(encode_ids(ids), page_tokens) == chain.hashes


@given(st.lists(tokens, max_size=5), st.integers(1, 9))
def test_growing_in_parts_equals_growing_at_once(parts, page_tokens):
    grown = PageChain(page_tokens, "s")
    for part in parts:
        grown = PageChain.resume(grown.extended(encode_ids(part)).snapshot())
    whole = PageChain(page_tokens, "s").extended(encode_ids([token for part in parts for token in part]))
    assert grown == whole
    assert hash(grown) == hash(whole)
    assert grown.hashes == whole.hashes


@given(tokens, st.integers(1, 9), st.integers(0, 20))
def test_truncating_forgets_pages_and_can_grow_again(ids, page_tokens, pages):
    whole = PageChain(page_tokens).extended(encode_ids(ids))
    cut = whole.truncated(pages)
    kept = min(pages, whole.pages)
    assert cut.hashes == whole.hashes[: kept * 8]
    assert cut.extended(encode_ids(ids[kept * page_tokens :])) == whole
    assert cut.hashes + whole.hashes_from(kept) == whole.hashes


def test_an_empty_chain():
    chain = PageChain(16)
    assert (chain.hashes, chain.pages, chain.tip, chain.tail_tokens) == (b"", 0, b"", 0)
    with pytest.raises(ValueError, match="page_tokens"):
        PageChain(0)
