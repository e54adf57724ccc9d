"""Ids that clients choose stay apart between tenants and stay short."""

from saga.contract.ids import MAX_ID_CHARS, STEP_ID_CHARS, SessionId, StepId, TenantId, rid, scoped, session_tag


def test_the_same_id_of_two_tenants_is_two_ids():
    assert scoped(TenantId("a"), "task-1") != scoped(TenantId("b"), "task-1")


def test_a_long_id_is_shortened_without_colliding():
    first, second = scoped(TenantId("a"), "x" * 500 + "1"), scoped(TenantId("a"), "x" * 500 + "2")

    assert first != second
    assert max(len(first), len(second)) <= MAX_ID_CHARS


def test_a_request_id_has_a_fixed_length():
    """SGLang aborts by prefix: an id must never be the beginning of another."""
    step_id = StepId("0" * STEP_ID_CHARS)

    assert len(rid(step_id, 0)) == len(rid(step_id, 11))


def test_a_session_has_a_fresh_tag_in_each_generation():
    steps = [StepId(f"{number:032x}") for number in range(2)]
    tags = [session_tag(SessionId("s"), *began) for began in ((), steps[:1], steps[1:])]
    assert len(set(tags)) == 3
    assert tags[1] == session_tag(SessionId("s"), steps[0])
