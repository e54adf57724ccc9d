"""Why tokens were missed: said when somebody knows it, `unknown` when nobody does."""

import pytest

from saga.contract.ids import LeaseId, RootId, SessionId, SessionTag, StepId, WorkerId
from saga.contract.messages import Grant, KvTold
from saga.contract.misses import Loss, Sent, Used, added, explained, shortfall
from saga.gateway.receipts import wanted

PAGE = 16
W0, W1 = WorkerId("w0"), WorkerId("w1")


def grant(worker=W0, **fields) -> Grant:
    given = {"attempt": 0, "lease_id": LeaseId("l0"), "cached_tokens": 0, "ran_at": W0}
    return Grant(
        step_id=StepId("s" * 32),
        root=RootId("r"),
        session=SessionId("s"),
        worker_id=worker,
        engine_url="http://e",
        session_tag=SessionTag("t"),
        ttl_s=2.0,
        lease_ttl_s=5.0,
        admission_fence=1,
        fence=1,
        **(given | fields),
    )


def sent(last=0, shared=None, prompt=1_600, **fields) -> Sent:
    given = {"begins": False, "tagged": True, "gap_s": 5.0, "ran_at": W0}
    shared = last if shared is None else shared
    return Sent(prompt_tokens=prompt, page_tokens=PAGE, last_tokens=last, shared_tokens=shared, **(given | fields))


def missed(sent_, used, first=None, last=None):
    first = first or grant()
    return shortfall(sent_, first, last or first, used)


def test_a_session_that_goes_on_from_its_cache_misses_nothing():
    """What is new in its prompt is no miss."""
    assert missed(sent(last=800), Used(1_600, 800)) == ({}, None)
    assert missed(sent(last=1_584), Used(1_600, 1_584)) == ({}, None)


def test_a_new_session_is_cold_for_what_nobody_else_had():
    assert missed(sent(last=-1, begins=True), Used(1_600, 320), grant(new_session=True)) == ({"cold": 1_264}, None)
    assert missed(sent(last=-1, begins=True), Used(1_600, 1_584), grant(new_session=True)) == ({}, None)


@pytest.mark.parametrize(("begins", "new_session"), [(False, True), (True, False), (False, False)])
def test_one_that_may_have_been_here_before_is_not_called_cold(begins, new_session):
    """Its messages go on from something, or placement remembers it: this gateway does not know from what."""
    found, loss = missed(sent(last=-1, begins=begins), Used(1_600, 0), grant(new_session=new_session))

    assert (found, loss) == ({"unknown": 1_584}, None)


def test_what_the_client_changed_is_a_changed_prefix():
    assert missed(sent(last=1_200, shared=160), Used(1_600, 160)) == ({"prefix_changed": 1_040}, None)
    # A compaction: what is left of the prompt is all that had to be prefilled for it.
    assert missed(sent(last=8_000, shared=160, prompt=800), Used(800, 160)) == ({"prefix_changed": 624}, None)


def test_what_was_sent_before_and_is_gone_is_asked_for_where_it_was():
    assert missed(sent(last=800), Used(1_600, 160)) == ({}, Loss(W0, 640))


def test_a_move_is_to_blame_for_what_was_at_the_old_home_and_not_for_more():
    moved = grant(W1, left_tokens=480)

    assert missed(sent(last=800), Used(1_600, 0), moved) == ({"moved": 480}, Loss(W0, 320))
    assert missed(sent(last=800), Used(1_600, 480), moved) == ({}, Loss(W0, 320))


def test_a_move_from_a_home_that_is_gone_is_to_blame_for_all():
    moved = grant(W1, left_gone=True)

    assert missed(sent(last=800), Used(1_600, 0), moved) == ({"moved": 800}, None)


def test_a_move_from_a_home_that_nothing_is_known_of_is_asked_for():
    assert missed(sent(last=800), Used(1_600, 0), grant(W1)) == ({}, Loss(W0, 800, gone=False))


def test_where_it_ran_is_placements_word_else_the_gateways_own():
    """Admission may have given the session another home meanwhile, of which nothing else tells."""
    forgot = grant(W1, ran_at=WorkerId(""))

    assert missed(sent(last=800), Used(1_600, 0), forgot) == ({}, Loss(W0, 800, gone=False))
    assert missed(sent(last=800, ran_at=W1), Used(1_600, 0), forgot) == ({}, Loss(W1, 800))
    assert missed(sent(last=800, ran_at=W1), Used(1_600, 0), grant()) == ({}, Loss(W0, 800))
    assert missed(sent(last=800, ran_at=WorkerId("")), Used(1_600, 0), forgot) == ({}, Loss(WorkerId(""), 800))


def test_an_engine_that_died_under_the_step_took_what_it_had_with_it():
    first = grant(cached_tokens=640)
    last = grant(W1, attempt=1, lease_id=LeaseId("l1"))

    assert missed(sent(last=800), Used(1_600, 0), first, last) == ({"moved": 640}, Loss(W0, 160))


def test_going_back_to_what_was_let_go_is_superseded():
    back = grant(superseded_tokens=1_200)

    assert missed(sent(last=320, shared=160), Used(1_600, 160), back) == (
        {"prefix_changed": 160, "superseded": 1_040},
        None,
    )
    assert missed(sent(last=320, shared=160), Used(1_600, 1_200), back) == ({"prefix_changed": 160}, None)


def test_an_engine_that_counts_otherwise_or_not_at_all_leaves_it_unknown():
    assert missed(sent(last=800), Used(1_900, 0)) == ({"unknown": 1_888}, None)
    assert missed(sent(last=800), Used(None, None)) == ({"unknown": 800}, None)
    assert missed(sent(last=800), Used(1_600, None)) == ({"unknown": 800}, None)


@pytest.mark.parametrize(
    ("let_go", "cause"),
    [
        ("", "evicted"),
        ("crowded", "evicted"),
        ("paused", "evicted"),
        ("expired", "expired"),
        ("dormant", "expired"),
        ("closed", "expired"),
        ("superseded", "superseded"),
        ("moved", "moved"),
        ("engine_died", "engine_died"),
    ],
)
def test_the_worker_says_why(let_go, cause):
    told = KvTold(worker_id=W0, let_go=let_go, known_s=60.0)

    assert explained(Loss(W0, 10), told, sent(last=800), 1.0) == cause


def test_a_worker_that_does_not_answer_or_does_not_know_leaves_it_unknown():
    loss, known = Loss(W0, 10), sent(last=800, gap_s=5.0)

    def told(known_s, worker=W0):
        return KvTold(worker_id=worker, let_go="", known_s=known_s)

    assert explained(loss, None, known, 1.0) == "unknown"
    assert explained(loss, told(60.0, W1), known, 1.0) == "unknown"
    assert explained(loss, told(-1.0), known, 1.0) == "unknown", "it has no engine"
    assert explained(loss, told(5.5), known, 1.0) == "unknown", "the session's last step ended before that"
    assert explained(loss, told(6.5), known, 1.0) == "evicted"
    assert explained(loss, told(60.0), sent(last=800, gap_s=-1.0), 1.0) == "unknown", "nobody knows when that was"
    assert explained(Loss(W0, 10, gone=False), told(60.0), known, 1.0) == "unknown", "it may still be there"


def test_without_session_tags_nobody_let_go_of_it_but_the_engine():
    """SGLang's Messages API reads none, whatever the agent thinks of the tag."""
    told = KvTold(worker_id=W0, let_go="expired", known_s=60.0)

    assert explained(Loss(W0, 10), told, sent(last=800, tagged=False), 1.0) == "evicted"


def test_causes_add_up():
    assert added({"evicted": 16}, "evicted", 32) == {"evicted": 48}
    assert added({"moved": 16}, "evicted", 32) == {"moved": 16, "evicted": 32}


@pytest.mark.parametrize(("value", "asked"), [("1", True), ("true", True), ("0", False), ("no", False), (None, False)])
def test_who_asks_for_one(value, asked):
    assert wanted(value) is asked
