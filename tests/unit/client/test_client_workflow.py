"""What `saga.client` sends, and what it says when it cannot."""

import pytest

from saga.client import ExtraMissingError, GatewayError, Receipt, extras, workflow
from saga.client.gateway import Gateway

pytestmark = pytest.mark.timeout(300)  # the official libraries take long to import on a busy machine


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in ("SAGA_BASE_URL", "SAGA_API_KEY"):
        monkeypatch.delenv(name, raising=False)


def test_a_workflow_names_itself_and_its_deadline():
    assert workflow("fix-1", deadline_s=600).headers == {
        "X-Saga-Workflow": "fix-1",
        "X-Saga-Session": "fix-1",
        "X-Saga-Deadline-S": "600",
    }


def test_a_sub_agent_names_its_parent_and_each_has_its_own_session():
    wf = workflow("fix-1")
    one, two = wf.agent("reviewer"), wf.agent("reviewer")
    inner = one.agent("searcher")

    assert one.headers == {
        "X-Saga-Workflow": "fix-1",
        "X-Saga-Session": "fix-1/reviewer",
        "X-Saga-Parent": "fix-1",
    }
    assert two.session_id == "fix-1/reviewer-2"
    assert (inner.session_id, inner.parent_id) == ("fix-1/reviewer/searcher", "fix-1/reviewer")


def test_the_last_request_ends_the_workflow_or_only_its_own_session():
    wf = workflow("fix-1")

    assert (wf.final, wf.agent("a").final) == ({"X-Saga-Final": "true"}, {"X-Saga-Final": "session"})
    assert wf.node("plan") == {"X-Saga-Node": "plan"}


def test_two_without_a_name_are_two():
    assert workflow().workflow_id != workflow().workflow_id


def test_its_clients_carry_it_all_and_keep_what_was_given():
    wf = workflow("fix-1", base_url="http://gate:1/v1/", api_key="k", explain=True, timeout=7, max_retries=0)
    with wf.openai as client:
        assert (str(client.base_url), client.api_key, client.timeout, client.max_retries) == (
            "http://gate:1/v1/",
            "k",
            7,
            0,
        )
        assert client.default_headers["X-Saga-Workflow"] == "fix-1"
        assert client.default_headers["X-Saga-Explain"] == "1"
    with wf.anthropic as client:
        assert (str(client.base_url), client.api_key) == ("http://gate:1", "k")
        assert client.default_headers["X-Saga-Session"] == "fix-1"
    assert wf.openai is wf.openai


def test_own_default_headers_stay_beside_ours():
    wf = workflow("fix-1", default_headers={"X-Team": "blue", "X-Saga-Workflow": "not this"})
    with wf.agent("a").openai as client:
        assert client.default_headers["X-Team"] == "blue"
        assert client.default_headers["X-Saga-Workflow"] == "fix-1"


def test_address_and_key_come_from_the_environment(monkeypatch):
    assert workflow().gateway.base_url == "http://127.0.0.1:8080"
    monkeypatch.setenv("SAGA_BASE_URL", "https://gate.example")
    monkeypatch.setenv("SAGA_API_KEY", "secret")

    gateway = workflow().gateway

    assert (gateway.base_url, gateway.api_key) == ("https://gate.example", "secret")


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: workflow(""), "name"),
        (lambda: workflow("fix\n1"), "name"),
        (lambda: workflow("größer"), "ASCII"),
        (lambda: workflow("x" * 129), "128"),
        (lambda: workflow("w", deadline_s=0), "deadline_s"),
        (lambda: workflow("w", deadline_s=float("nan")), "deadline_s"),
        (lambda: workflow("w", base_url="gate:8080"), "base_url"),
        (lambda: workflow("w").agent(" "), "agent"),
        (lambda: workflow("w" * 120).agent("reviewer"), "128"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_sent(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_a_library_that_is_missing_is_named_with_what_brings_it():
    with pytest.raises(ExtraMissingError, match=r"pip install 'saga-mesh\[client\]'") as missing:
        extras.needed("no_such_library.part", "no-such-library", "client")

    assert isinstance(missing.value, ImportError)


def test_a_library_that_is_broken_says_so_itself(tmp_path, monkeypatch):
    (tmp_path / "broken_library.py").write_text("import something_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ModuleNotFoundError, match="something_that_is_not_there"):
        extras.needed("broken_library", "broken-library", "client")


def test_a_gateway_that_is_not_there_is_an_error_with_its_address():
    with pytest.raises(GatewayError, match="does not answer") as gone:
        Gateway("http://127.0.0.1:9", "k").show("w")

    assert gone.value.status == 0


def test_a_receipt_is_read_field_by_field():
    told = {
        "step": "s",
        "route": {"worker": "w0", "pool": "m", "reason": "home", "moved_from": "w1", "attempts": 2},
        "wait": {"seconds": 0.5, "cause": "slot"},
        "prompt_tokens": 100,
        "output_tokens": 5,
        "cached_tokens": None,
        "miss": "moved",
        "missed_tokens": {"moved": 64},
    }

    receipt = Receipt.of(told)

    assert (receipt.worker, receipt.moved_from, receipt.attempts) == ("w0", "w1", 2)
    assert (receipt.wait_s, receipt.wait_cause) == (0.5, "slot")
    assert (receipt.cached_tokens, receipt.miss, receipt.missed_tokens) == (None, "moved", {"moved": 64})
