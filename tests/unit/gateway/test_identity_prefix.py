"""Sessions that nobody names are known by their messages; ids that name everything are not believed."""

import json
import random

import msgspec
import pytest
from agent_talk import TENANT, Gateway, Talk
from identity_mix import mixed
from multidict import CIMultiDict

from saga.contract.ids import TenantId
from saga.gateway.conversations import Conversations
from saga.gateway.dialects.dialect import prints_of, understood
from saga.gateway.dialects.table import DIALECTS
from saga.gateway.identity import MAX_BEGINNINGS, Identities
from saga.gateway.recognisers import Evidence

OTHER = TenantId("other")


@pytest.fixture
def rng():
    return random.Random(8)


def test_the_second_step_belongs_to_the_first(rng):
    gateway, talk = Gateway(), Talk(rng)
    first = gateway.step(talk)
    assert (first.source, first.final, first.lasting) == ("none", False, True)
    for _ in range(5):
        talk.go_on()
        later = gateway.step(talk)
        assert (later.root, later.session, later.source) == (first.root, first.session, "prefix")


def test_one_question_without_tools_is_a_workflow_of_one_step(rng):
    dialect = DIALECTS["chat"]
    asked = understood(dialect, json.dumps({"model": "m", "messages": Talk(rng).messages}).encode())
    identities = Identities()
    whose = identities.identify(
        Evidence(CIMultiDict(), asked.raw), tenant=TENANT, prints=lambda: prints_of(dialect, asked), fresh="f"
    )
    assert (whose.final, whose.lasting) == (True, False)


def test_a_request_that_is_sent_again_stays_where_it_was(rng):
    gateway, talk = Gateway(), Talk(rng)
    first = gateway.step(talk)
    talk.go_on()
    assert gateway.step(talk).session == gateway.step(talk).session == first.session


def test_who_goes_back_stays_in_its_conversation(rng):
    gateway, talk = Gateway(), Talk(rng)
    first = gateway.step(talk)
    talk.go_on()
    gateway.step(talk)
    del talk.messages[1:]
    talk.go_on()
    assert gateway.step(talk).session == first.session


def test_a_prompt_that_only_begins_alike_is_another_conversation(rng):
    gateway, talk = Gateway(), Talk(rng)
    first = gateway.step(talk)
    talk.user("and one more thing")
    assert gateway.step(talk).root != first.root, "no answer of the model stands between them"


def test_siblings_with_the_same_first_question_are_kept_apart(rng):
    gateway = Gateway()
    talks = [Talk(random.Random(n), first="Solve it.") for n in range(8)]
    roots = [gateway.step(talk).root for talk in talks]
    assert len(set(roots)) == 8
    for _ in range(3):
        for talk in talks:
            talk.go_on()
        again = [gateway.step(talk).root for talk in talks]
        assert sorted(again) == sorted(roots)
    assert again == [gateway.step(talk).root for talk in talks]


def test_another_tenant_joins_nothing(rng):
    gateway, talk = Gateway(), Talk(rng)
    gateway.step(talk)
    talk.go_on()
    theirs = gateway.step(talk, tenant=OTHER)
    assert theirs.source == "none"
    assert theirs.root.startswith("other/")


def test_a_system_prompt_with_the_time_in_it_breaks_nothing(rng):
    gateway, talk = Gateway(), Talk(rng, system="You are a coding agent. " * 20 + "It is 10:00.")
    first = gateway.step(talk)
    talk.go_on()
    talk.system = talk.system.replace("10:00", "10:05")
    assert gateway.step(talk).root == first.root


def test_the_billing_line_of_claude_code_breaks_nothing(rng):
    gateway, talk = Gateway(), Talk(rng, "messages")
    for cost in ("cch=1a2b;", "cch=3c4d;"):
        talk.system = f"x-anthropic-billing-header: cc_version=2.1; {cost}\nYou are Claude Code."
        whose = gateway.step(talk)
        talk.go_on()
    assert whose.source == "prefix"


@pytest.mark.parametrize("how", ["old results cleared", "beginning cut off", "beginning summed up"])
def test_compaction_keeps_the_conversation(rng, how):
    gateway, talk = Gateway(), Talk(rng)
    first = gateway.step(talk)
    for _ in range(8):
        talk.go_on()
        gateway.step(talk)
    if how == "old results cleared":
        for message in talk.messages[1:8]:
            if message["role"] == "tool":
                message["content"] = "[cleared]"
    elif how == "beginning cut off":
        del talk.messages[0:6]
    else:
        talk.messages[0:9] = [{"role": "user", "content": "So far: " + talk.words(50)}]
    talk.go_on()
    whose = gateway.step(talk)
    assert (whose.root, whose.source) == (first.root, "overlap")
    talk.go_on()
    assert gateway.step(talk).source == "prefix"


def test_calls_of_one_trace_are_one_workflow(rng):
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    gateway = Gateway()
    first, second = (gateway.step(Talk(rng), headers=trace) for _ in range(2))
    assert second.root == first.root
    assert (second.source, second.parent) == ("trace", first.session)
    assert second.session != first.session


# --- ids that cover more than one conversation ---------------------------------------------------------------------


def test_an_id_for_every_session_is_found_out_when_they_grow_in_turns(rng):
    gateway, talks = Gateway(), [Talk(rng) for _ in range(3)]
    for _ in range(4):
        found = [gateway.step(talk, session_id="my-app") for talk in talks]
        for talk in talks:
            talk.go_on()
    assert len({whose.root for whose in found}) == 3
    assert [whose.source for whose in found] == ["prefix"] * 3
    assert gateway.step(Talk(rng), session_id="my-app").source == "none"
    assert gateway.step(Talk(rng), session_id="another").source == "sglang"


def test_an_id_for_one_session_after_the_other_is_found_out_later(rng):
    gateway = Gateway()
    for _ in range(MAX_BEGINNINGS + 1):
        talk = Talk(rng)
        for _ in range(3):
            whose = gateway.step(talk, prompt_cache_key="my-app")
            talk.go_on()
    assert whose.source == "prefix"


def test_side_questions_and_sub_agents_under_one_id_are_sessions_of_one_workflow(rng):
    gateway = Gateway()
    headers = {"X-Claude-Code-Session-Id": "s1"}
    main, title, helper = Talk(rng), Talk(rng, system="Write a title."), Talk(rng, system="You search the web.")
    first = gateway.step(main, headers=headers)
    aside = gateway.step(title, headers=headers)
    for _ in range(3):
        child = gateway.step(helper, headers=headers)
        helper.go_on()
        main.go_on()
        again = gateway.step(main, headers=headers)
    assert {first.root, aside.root, child.root, again.root} == {"t/s1"}
    assert first.session == again.session == "t/s1"
    assert len({first.session, aside.session, child.session}) == 3
    assert child.parent == aside.parent == "t/s1"


def test_sub_agents_with_ids_of_their_own_do_not_cost_the_root_its_trust(rng):
    gateway = Gateway()
    main, child = Talk(rng), Talk(rng)
    for _ in range(4):
        first = gateway.step(main, headers={"x-session-id": "ses_1"})
        second = gateway.step(child, headers={"x-session-id": "ses_2", "x-parent-session-id": "ses_1"})
        main.go_on()
        child.go_on()
    assert (first.source, first.session) == ("opencode", "t/ses_1")
    assert (second.root, second.session, second.parent) == ("t/ses_1", "t/ses_2", "t/ses_1")


def test_compaction_under_an_id_keeps_the_session(rng):
    gateway, headers = Gateway(), {"x-session-id": "ses_1"}
    talk = Talk(rng)
    gateway.step(talk, headers=headers)
    talk.go_on()
    gateway.step(talk, headers=headers)
    talk.messages[:] = [{"role": "user", "content": "So far: " + talk.words(80)}]
    for _ in range(3):
        whose = gateway.step(talk, headers=headers)
        talk.go_on()
        assert (whose.session, whose.source) == ("t/ses_1", "opencode")


# --- figures -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gateways", "moves"), [(1, 0.0), (3, 0.1)])
def test_the_mix_of_all_harnesses(gateways, moves):
    """Declared ones 100 %, anonymous ones at least 99 %, and nothing across tenants; bench/identity.py prints it."""
    found = mixed(gateways=gateways, moves=moves)
    assert found.declared_right == found.declared_steps > 1_000
    assert found.anonymous_whole >= 0.99 * found.anonymous_sessions > 150
    assert found.across_tenants == 0
    assert found.shared_workflows <= 0.01 * found.anonymous_sessions


def test_memory_is_bounded_and_the_largest_tenant_pays(rng):
    gateway = Gateway(Identities(Conversations(max_entries=3_000)))
    small = Talk(rng)
    first = gateway.step(small, tenant=OTHER)
    for _ in range(300):
        talk = Talk(rng)
        for _ in range(8):
            gateway.step(talk)
            talk.go_on()
    assert gateway.identities.conversations.entries <= 3_000
    small.go_on()
    assert gateway.step(small, tenant=OTHER).root == first.root


def test_a_step_makes_entries_for_its_new_messages_only(rng):
    gateway, talk = Gateway(), Talk(rng)
    for _ in range(50):
        gateway.step(talk)
        talk.go_on()
    before = gateway.identities.conversations.entries
    gateway.step(talk)
    assert gateway.identities.conversations.entries - before <= 3


def test_prints_do_not_depend_on_how_json_is_spaced_around_messages(rng):
    talk = Talk(rng)
    dialect = DIALECTS["chat"]
    plain, spaced = (
        prints_of(dialect, understood(dialect, data))
        for data in (json.dumps(talk.body()).encode(), json.dumps(talk.body(), indent=None).encode())
    )
    assert plain.chain == spaced.chain
    assert msgspec.json.decode(msgspec.json.encode(plain.chain)) == plain.chain
