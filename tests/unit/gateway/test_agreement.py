"""Our tokens are believed until engines say otherwise, and again when they have agreed for long."""

from saga.contract.ids import PoolId, SessionId
from saga.gateway.agreement import ASK_EVERY, BACK_AFTER, LOST_AFTER, MAX_SESSIONS, Agreement

POOL, OTHER = PoolId("m"), PoolId("n")
S, T = SessionId("s"), SessionId("t")


def tell(agreement, ours, engines, *, session=S, exact=True, times=1):
    return [agreement.counted(POOL, "chat", session, ours=ours, engines=engines, exact=exact) for _ in range(times)][-1]


def test_a_model_is_believed_until_several_answers_disagree():
    agreement = Agreement()
    assert tell(agreement, 100, 100) == ""
    assert tell(agreement, 100, 30, times=LOST_AFTER - 1) == ""
    assert agreement.trusts(POOL, "chat", T)
    assert tell(agreement, 100, 30) == "lost"
    assert not agreement.trusts(POOL, "chat", T)
    assert agreement.untrusted() == [(POOL, "chat")]
    assert agreement.trusts(POOL, "messages", T)
    assert agreement.trusts(OTHER, "chat", T)


def test_one_session_that_disagrees_goes_alone():
    agreement = Agreement()
    tell(agreement, 100, 99)
    assert not agreement.trusts(POOL, "chat", S)
    assert agreement.trusts(POOL, "chat", T)
    tell(agreement, 120, 120)
    assert agreement.trusts(POOL, "chat", S)


def test_what_nobody_could_count_is_no_evidence_against_the_tokenizer():
    agreement = Agreement()
    tell(agreement, 100, 900, exact=False, times=50)
    assert agreement.trusts(POOL, "chat", T)
    assert not agreement.trusts(POOL, "chat", S)


def test_trust_comes_back_after_long_agreement():
    agreement = Agreement()
    tell(agreement, 100, 30, times=LOST_AFTER)
    assert tell(agreement, 100, 100, times=BACK_AFTER - 1) == ""
    assert not agreement.trusts(POOL, "chat", T)
    assert tell(agreement, 100, 100) == "back"
    assert agreement.trusts(POOL, "chat", T)


def test_lengths_are_guessed_from_what_engines_counted():
    agreement = Agreement()
    assert agreement.guess(POOL, "chat", 400) == 400
    tell(agreement, 400, 100, times=10)
    assert agreement.guess(POOL, "chat", 4_000) == 1_000
    assert agreement.guess(POOL, "chat", 0) == 1


def test_other_tokens_of_the_same_length_are_proof_enough():
    agreement = Agreement()
    assert agreement.tokenized(POOL, "chat", same=True) == ""
    assert agreement.tokenized(POOL, "chat", same=False) == "lost"
    assert agreement.tokenized(POOL, "chat", same=False) == ""
    assert not agreement.trusts(POOL, "chat", S)


def test_an_engine_is_asked_at_the_first_step_and_then_seldom():
    agreement = Agreement()
    asked = [agreement.asks(POOL, "chat") for _ in range(2 * ASK_EVERY)]
    assert [at for at, yes in enumerate(asked) if yes] == [0, ASK_EVERY]


def test_sessions_that_disagreed_are_bounded():
    agreement = Agreement()
    for number in range(MAX_SESSIONS + 1):
        tell(agreement, 2, 1, session=SessionId(str(number)), exact=False)
    assert agreement.trusts(POOL, "chat", SessionId("0"))
    assert not agreement.trusts(POOL, "chat", SessionId("1"))
