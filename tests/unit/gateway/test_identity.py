"""Who a request belongs to."""

import msgspec
import pytest
from multidict import CIMultiDict

from saga.contract.ids import MAX_ID_CHARS, TenantId
from saga.gateway.api_errors import ApiError
from saga.gateway.identity import Identities
from saga.gateway.recognisers import Evidence
from saga.gateway.running_keys import RunningKeys

TENANT = TenantId("t")


def who(headers=None, **body):
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()}
    evidence = Evidence(CIMultiDict(headers or {}), raw)
    return Identities().identify(evidence, tenant=TENANT, prints=lambda: None, fresh="fresh")


@pytest.mark.parametrize(
    ("headers", "body", "root", "session"),
    [
        ({"X-Saga-Workflow": "w", "X-Saga-Session": "s"}, {}, "t/w", "t/s"),
        ({"X-Saga-Workflow": "w"}, {}, "t/w", "t/w"),
        ({"X-Saga-Session": "s"}, {}, "t/s", "t/s"),
        ({}, {"session_id": "b"}, "t/b", "t/b"),
        ({}, {"prompt_cache_key": "k"}, "t/k", "t/k"),
        ({}, {"session_id": "b", "prompt_cache_key": "k"}, "t/b", "t/b"),
        ({"X-Saga-Session": "s"}, {"session_id": "b"}, "t/s", "t/s"),
        ({"X-Saga-Workflow": "w"}, {"session_id": "b"}, "t/w", "t/b"),
        ({"X-Saga-Session": "s", "X-Saga-Parent": "p"}, {}, "t/p", "t/s"),
    ],
)
def test_named_workflows_and_sessions(headers, body, root, session):
    whose = who(headers, **body)
    assert (whose.root, whose.session) == (root, session)
    assert whose.lasting
    assert not whose.final


def test_nobody_named_is_a_workflow_of_one_step():
    whose = who()
    assert (whose.root, whose.session, whose.final, whose.lasting) == ("t/fresh", "t/fresh", True, False)


def test_a_child_has_a_parent_and_never_its_parents_session():
    whose = who({"X-Saga-Parent": "p"})
    assert (whose.root, whose.parent) == ("t/p", "t/p")
    assert whose.session != whose.parent


@pytest.mark.parametrize(
    ("value", "final"), [("true", True), ("1", True), ("YES", True), ("false", False), ("0", False)]
)
def test_final(value, final):
    assert who({"X-Saga-Workflow": "w", "X-Saga-Final": value}).final is final


def test_the_longest_ids_stay_unique():
    longest = "x" * MAX_ID_CHARS
    a, b = who({"X-Saga-Session": longest}), who({"X-Saga-Session": longest[:-1] + "y"})
    assert a.session != b.session
    assert len(a.session) <= MAX_ID_CHARS
    with pytest.raises(ApiError) as raised:
        who({"X-Saga-Session": longest + "x"})
    assert (raised.value.status, raised.value.param) == (400, "X-Saga-Session")


def test_control_characters_are_refused():
    with pytest.raises(ApiError):
        who(session_id="a\nb")


def test_ids_that_are_no_strings_are_refused_where_only_strings_are_meant():
    with pytest.raises(ApiError) as raised:
        who(session_id=5)
    assert (raised.value.param, raised.value.code) == ("session_id", "invalid_type")
    assert not who(metadata={"session_id": 5}).lasting


@pytest.mark.parametrize("name", ["default", "NULL", "0", "00000000-0000-0000-0000-000000000000"])
def test_what_programs_send_for_none_is_none(name):
    assert not who(session_id=name).lasting


def test_running_keys():
    keys = RunningKeys()
    assert keys.claim(TENANT, "k")
    assert not keys.claim(TENANT, "k")
    assert keys.claim(TenantId("other"), "k")
    keys.release(TENANT, "k")
    assert keys.claim(TENANT, "k")


@pytest.mark.parametrize("deadline", ["0", "-30", "nan", "inf", "-inf", "soon", "1e999"])
def test_a_deadline_in_the_past_or_none_at_all_is_refused_with_what_to_send(deadline):
    with pytest.raises(ApiError) as refused:
        who({"X-Saga-Workflow": "w", "X-Saga-Deadline-S": deadline})
    assert refused.value.status == 400
    assert "send a positive number of seconds" in str(refused.value)
