"""Page chains of sessions: hashing what is new gives what hashing everything gives."""

from hypothesis import given
from hypothesis import strategies as st

from saga.contract.ids import SessionId
from saga.contract.messages import MAX_CHAIN_PAGES
from saga.gateway.sessions import Prompt, SessionChains, advance, strided
from saga.kv.pages import DIGEST_BYTES, hash_pages, salt_seed
from saga.kv.tokens import encode_text

PAGE = 4
texts = st.text(alphabet="ab", max_size=40)


@given(st.lists(st.tuples(st.integers(0, 40), texts), min_size=1, max_size=8), st.sampled_from(["", "salt"]))
def test_any_history_hashes_as_if_from_scratch(changes, salt):
    """Each prompt keeps some beginning of the last one and goes on in its own way."""
    prompt, text = None, ""
    for kept, more in changes:
        text = text[:kept] + more
        last, prompt = prompt, advance(prompt, encode_text(text), PAGE, salt)
        whole = hash_pages(encode_text(text), PAGE, salt_seed(salt))
        assert prompt.all_hashes() == (whole, 1)
        hashes, stride = prompt.new_hashes()
        base = prompt.base_pages * 8
        assert (whole[:base] + hashes, stride) == (whole, 1)
        assert prompt.base_tip == whole[max(0, base - 8) : base]
        if last is not None:
            assert last.all_hashes()[0][:base] == whole[:base]


def test_an_extended_prompt_shares_all_full_pages():
    first = advance(None, encode_text("abcdefghij"), PAGE, "")
    second = advance(first, encode_text("abcdefghijklmn"), PAGE, "")
    assert (first.base_pages, second.base_pages) == (0, 2)
    assert len(second.new_hashes()[0]) == 8


def test_another_page_size_or_salt_starts_anew():
    first = advance(None, encode_text("a" * 32), PAGE, "")
    assert advance(first, encode_text("a" * 36), 8, "").base_pages == 0
    assert advance(first, encode_text("a" * 36), PAGE, "salt").base_pages == 0


def test_long_chains_travel_with_a_stride():
    digests = b"".join(n.to_bytes(8, "big") + bytes(24) for n in range(2 * MAX_CHAIN_PAGES + 1))
    hashes, stride = strided(digests)
    assert stride == 3
    assert len(hashes) <= 8 * MAX_CHAIN_PAGES
    assert hashes[:16] == (2).to_bytes(8, "big") + (5).to_bytes(8, "big")
    assert strided(digests[: MAX_CHAIN_PAGES * DIGEST_BYTES])[1] == 1


def prompt_of(text: str) -> Prompt:
    return advance(None, encode_text(text), PAGE, "")


def test_the_least_recently_used_goes_first():
    one = prompt_of("a" * 100)
    chains = SessionChains(limit_bytes=2 * one.held_bytes)
    for name in ("x", "y", "x", "z"):
        chains.keep(SessionId(name), one)
    assert chains.last(SessionId("y")) is None
    assert chains.last(SessionId("x")) is one
    assert chains.held_bytes == 2 * one.held_bytes
    chains.forget(SessionId("x"))
    assert chains.held_bytes == one.held_bytes
    chains.keep(SessionId("huge"), prompt_of("a" * 1000))
    assert len(chains) == 1


def test_gaps_are_known_from_the_second_step_on():
    chains = SessionChains(1000)
    session = SessionId("s")
    assert chains.gap_s(session, 5.0) < 0
    chains.ended(session, 5.0)
    assert chains.gap_s(session, 7.5) == 2.5
    chains.close(session)
    assert chains.gap_s(session, 8.0) < 0
