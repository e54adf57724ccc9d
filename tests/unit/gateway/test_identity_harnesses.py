"""What each harness sends, and whose step we take it for."""

import json

import msgspec
import pytest
from multidict import CIMultiDict

from saga.contract.ids import TenantId
from saga.gateway.api_errors import ApiError
from saga.gateway.dialects.dialect import prints_of, understood
from saga.gateway.dialects.table import DIALECTS
from saga.gateway.identity import Identities, told_of
from saga.gateway.recognisers import Evidence

TENANT = TenantId("t")
UUID = "0b8e2f7c-5d0e-4c0e-9a53-0c1f1f2d3e4f"
AGENT, CHILD = "agent-a5e94f0", "agent-b1c2d3e"
CLAUDE = {"anthropic-version": "2023-06-01", "anthropic-beta": "x", "user-agent": "claude-cli/2.1.260 (external, cli)"}
CODEX = {"originator": "codex_cli_rs", "user-agent": "codex_cli_rs/0.149.0"}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

# name, headers, body, (root, session, parent), source
HARNESSES = [
    ("ours", {"X-Saga-Workflow": "w", "X-Saga-Session": "s", "X-Saga-Parent": "p"}, {}, ("w", "s", "p"), "saga"),
    ("ours over all others", {"X-Saga-Session": "s", "session-id": UUID}, {"session_id": "b"}, ("s", "s", ""), "saga"),
    ("our workflow, their session", {"X-Saga-Workflow": "w"}, {"session_id": "b"}, ("w", "b", ""), "saga"),
    ("dynamo", {"X-Dynamo-Session-ID": "run:root"}, {}, ("run:root", "run:root", ""), "dynamo"),
    (
        "dynamo's child",
        {"X-Dynamo-Session-ID": "run:child", "X-Dynamo-Parent-Session-ID": "run:root"},
        {},
        ("run:root", "run:child", "run:root"),
        "dynamo",
    ),
    (
        "dynamo in the body",
        {},
        {"nvext": {"agent_context": {"session_id": "run:child", "parent_session_id": "run:root"}}},
        ("run:root", "run:child", "run:root"),
        "dynamo",
    ),
    (
        "dynamo over its harness",
        {"X-Dynamo-Session-ID": "run", "X-Claude-Code-Session-Id": UUID},
        {},
        ("run", "run", ""),
        "dynamo",
    ),
    ("thunderagent", {}, {"program_id": "swe-17", "docker_ids": ["c1"]}, ("swe-17", "swe-17", ""), "thunderagent"),
    ("claude code", CLAUDE | {"X-Claude-Code-Session-Id": UUID}, {}, (UUID, UUID, ""), "claude-code"),
    (
        "claude code's sub-agent",
        CLAUDE | {"x-claude-code-session-id": UUID, "x-claude-code-agent-id": AGENT},
        {},
        (UUID, f"{UUID}/{AGENT}", UUID),
        "claude-code",
    ),
    (
        "claude code's sub-agent's own",
        CLAUDE
        | {
            "x-claude-code-session-id": UUID,
            "x-claude-code-agent-id": CHILD,
            "x-claude-code-parent-agent-id": AGENT,
        },
        {},
        (UUID, f"{UUID}/{CHILD}", f"{UUID}/{AGENT}"),
        "claude-code",
    ),
    (
        "claude code before it had headers",
        CLAUDE,
        {"metadata": {"user_id": f"user_{'ab' * 32}_account__session_{UUID}"}},
        (UUID, UUID, ""),
        "claude-user",
    ),
    (
        "claude code's user as JSON",
        CLAUDE,
        {"metadata": {"user_id": json.dumps({"device_id": "d" * 64, "account_uuid": "", "session_id": UUID})}},
        (UUID, UUID, ""),
        "claude-user",
    ),
    (
        "codex",
        CODEX | {"session-id": UUID, "thread-id": UUID, "x-client-request-id": UUID},
        {"prompt_cache_key": UUID},
        (UUID, UUID, ""),
        "codex",
    ),
    (
        "codex's sub-agent",
        CODEX | {"session-id": UUID, "thread-id": "thread-2", "x-codex-parent-thread-id": UUID},
        {"prompt_cache_key": UUID},
        (UUID, "thread-2", UUID),
        "codex",
    ),
    ("old codex", CODEX | {"session_id": UUID, "conversation_id": UUID}, {}, (UUID, UUID, ""), "codex"),
    (
        "codex, its turn alone",
        CODEX | {"x-codex-turn-metadata": json.dumps({"session_id": UUID, "thread_id": "thread-2", "turn_id": "t"})},
        {},
        (UUID, "thread-2", ""),
        "codex",
    ),
    (
        "opencode",
        {"x-opencode-session": "ses_1", "x-session-affinity": "ses_1", "x-opencode-request": "msg_9"},
        {},
        ("ses_1", "ses_1", ""),
        "opencode",
    ),
    (
        "opencode's sub-task",
        {"x-session-id": "ses_2", "x-parent-session-id": "ses_1"},
        {},
        ("ses_1", "ses_2", "ses_1"),
        "opencode",
    ),
    ("fireworks' clients", {"x-session-affinity": "s-7"}, {}, ("s-7", "s-7", ""), "opencode"),
    ("helicone", {"Helicone-Session-Id": "h1", "Helicone-Session-Name": "Trip"}, {}, ("h1", "h1", ""), "helicone"),
    (
        "helicone's path",
        {"Helicone-Session-Id": "h1", "Helicone-Session-Path": "/plan/hotel"},
        {},
        ("h1", "h1//plan/hotel", "h1//plan"),
        "helicone",
    ),
    ("grok", {"x-grok-conv-id": "g1"}, {}, ("g1", "g1", ""), "grok"),
    ("openhands", {}, {"metadata": {"session_id": "oh-1", "tags": ["x"]}}, ("oh-1", "oh-1", ""), "litellm"),
    ("litellm", {}, {"litellm_session_id": "ll-1"}, ("ll-1", "ll-1", ""), "litellm"),
    ("sglang", {}, {"session_id": "sg-1"}, ("sg-1", "sg-1", ""), "sglang"),
    ("smg", {"X-SMG-Routing-Key": "key-1"}, {}, ("key-1", "key-1", ""), "smg"),
    ("openai", {}, {"prompt_cache_key": "cache-1", "user": "u"}, ("cache-1", "cache-1", ""), "openai"),
    ("openai's conversation", {}, {"conversation": {"id": "conv_1"}}, ("conv_1", "conv_1", ""), "openai"),
    (
        "baggage",
        {"traceparent": TRACE, "baggage": "a=b, gen_ai.conversation.id=conv%201;p=1"},
        {},
        ("conv 1", "conv 1", ""),
        "baggage",
    ),
    ("a user is no session", {}, {"user": "u", "safety_identifier": "s", "metadata": {"user_id": "u"}}, None, "none"),
    ("an empty header", {"X-Session-Id": "", "session-id": " "}, {}, None, "none"),
]


def evidence(headers, body):
    raw = {name: msgspec.Raw(msgspec.json.encode(value)) for name, value in body.items()}
    return Evidence(CIMultiDict(headers), raw)


def who(headers, body, identities=None):
    identities = identities or Identities()
    return identities.identify(evidence(headers, body), tenant=TENANT, prints=lambda: None, fresh="fresh")


@pytest.mark.parametrize(("name", "headers", "body", "ids", "source"), HARNESSES, ids=[one[0] for one in HARNESSES])
def test_each_harness_is_recognised(name, headers, body, ids, source):
    whose = who(headers, body)

    root, session, parent = ids or ("fresh", "fresh", "")
    assert (whose.root, whose.session) == (f"t/{root}", f"t/{session}")
    assert whose.parent == (f"t/{parent}" if parent else "")
    assert whose.source == source
    assert whose.lasting == (ids is not None)
    assert whose.final == (ids is None)
    assert (whose.confidence > 0) == (ids is not None)


def test_grandchildren_belong_to_the_root_that_their_parent_belongs_to():
    identities = Identities()
    who({"X-Dynamo-Session-ID": "child", "X-Dynamo-Parent-Session-ID": "root"}, {}, identities)

    grandchild = {"X-Dynamo-Session-ID": "grandchild", "X-Dynamo-Parent-Session-ID": "child"}

    assert who(grandchild, {}, identities).root == "t/root"


@pytest.mark.parametrize(
    ("headers", "final"),
    [
        ({"X-Dynamo-Session-ID": "s", "X-Dynamo-Session-Final": "true"}, True),
        ({"X-Claude-Code-Session-Id": "s", "X-Dynamo-Session-Final": "true"}, True),
        ({"X-Claude-Code-Session-Id": "s", "X-Saga-Final": "1"}, True),
        ({"X-Dynamo-Session-ID": "s", "X-Dynamo-Session-Final": "true", "X-Saga-Final": "0"}, False),
        ({"X-Dynamo-Session-ID": "s", "X-Dynamo-Parent-Session-ID": "p", "X-Dynamo-Session-Final": "true"}, False),
        ({"X-Dynamo-Session-ID": "s"}, False),
    ],
)
def test_declared_ends(headers, final):
    assert who(headers, {}).final is final


@pytest.mark.parametrize(
    ("headers", "body", "param"),
    [
        ({"X-Claude-Code-Session-Id": "x" * 129}, {}, "X-Claude-Code-Session-Id"),
        ({"session-id": "x" * 129}, {}, "session-id"),
        ({"x-codex-turn-metadata": json.dumps({"session_id": "x" * 129})}, {}, "x-codex-turn-metadata"),
        ({"baggage": "gen_ai.conversation.id=" + "x" * 129}, {}, "baggage"),
        ({}, {"metadata": {"session_id": "x" * 129}}, "metadata.session_id"),
        ({}, {"prompt_cache_key": "x" * 129}, "prompt_cache_key"),
    ],
)
def test_ids_over_the_limit_are_refused_with_the_limit(headers, body, param):
    with pytest.raises(ApiError, match="at most 128") as raised:
        who(headers, body)
    assert (raised.value.status, raised.value.param) == (400, param)


@pytest.mark.parametrize("junk", ["{", "[]", "null", '{"session_id":', "[" * 50_000, '"', "{}"])
def test_junk_where_ids_may_be_is_nobodys(junk):
    for headers, body in [({"x-codex-turn-metadata": junk, "traceparent": junk, "baggage": junk}, {}),
                          ({}, {"metadata": {"user_id": junk}})]:  # fmt: skip
        assert who(headers, body).source == "none"


def test_the_finding_is_told_in_a_header_of_plain_ascii():
    told = told_of(who({}, {"session_id": "sé; x"}))["X-Saga-Identity"]
    assert told.isascii()
    assert told.startswith("source=sglang; confidence=0.8; workflow=t/s%C3%A9%3B%20x;")


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("chat", {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}]}),
        ("messages", {"system": "S", "max_tokens": 4, "messages": [{"role": "user", "content": "Q"}]}),
        ("responses", {"instructions": "S", "input": [{"role": "user", "content": "Q"}]}),
        ("responses", {"instructions": "S", "input": "Q"}),
    ],
)
def test_every_api_with_messages_has_prints_without_its_instructions(api, body):
    asked = understood(DIALECTS[api], json.dumps({"model": "m"} | body).encode())
    other = understood(DIALECTS[api], json.dumps({"model": "n"} | body).encode())
    prints = prints_of(DIALECTS[api], asked)
    assert len(prints.chain) == 1
    assert prints.chain == prints_of(DIALECTS[api], other).chain, "another model is the same conversation"


def test_completions_have_none():
    asked = understood(DIALECTS["completions"], b'{"model":"m","prompt":"x"}')
    assert prints_of(DIALECTS["completions"], asked) is None
