"""A conversation that nobody named goes on at another gateway: it is asked for, by hashes alone."""

import json
import os
import random
import subprocess
import sys

import pytest
from agent_talk import TENANT, Gateway, Talk, answers, said_in

from saga.contract.ids import GatewayId, TenantId
from saga.contract.messages import encode
from saga.gateway import peers
from saga.gateway.dialects.dialect import prints_of, understood
from saga.gateway.dialects.table import DIALECTS

OTHER = TenantId("other")
HERE = GatewayId("here")


@pytest.fixture
def rng():
    return random.Random(5)


def gateways():
    """Two that make up different names."""
    one, two = Gateway(), Gateway()
    two.count = 1_000
    return one, two


def prints_of_talk(talk):
    dialect = DIALECTS[talk.api]
    return prints_of(dialect, understood(dialect, json.dumps(talk.body()).encode()))


def moved(talk, here, there, tenant=TENANT):
    """The talk's next step at a gateway `here` that does not know it; `there` may."""
    prints = prints_of_talk(talk)
    ask = peers.ask_of(HERE, tenant, prints)
    told = peers.told(ask, there.identities.conversations) if ask is not None else None
    if told is not None:
        peers.take_in(tenant, prints, told, here.identities.conversations)
    return here.step(talk, tenant)


@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
def test_a_conversation_keeps_its_session_wherever_its_next_step_arrives(rng, api):
    (one, two), talk = gateways(), Talk(rng, api)
    first = one.step(talk)
    for turn in range(6):
        talk.go_on()
        whose = moved(talk, two, one) if turn % 2 == 0 else moved(talk, one, two)
        assert (whose.root, whose.session) == (first.root, first.session)
        assert whose.source == "prefix"


def test_siblings_that_began_alike_are_told_apart_by_their_answers():
    one, two = gateways()
    talks = [Talk(random.Random(number), "messages", first="Fix the failing test.") for number in range(4)]
    firsts = [one.step(talk) for talk in talks]
    for talk, whose in zip(talks, firsts, strict=True):
        talk.go_on()
        one.answered(talk, whose)
    for talk, whose in reversed(list(zip(talks, firsts, strict=True))):
        assert moved(talk, two, one).session == whose.session


def test_siblings_whose_answers_nobody_saw_are_not_guessed():
    one, two = gateways()
    talks = [Talk(random.Random(number), first="Fix the failing test.") for number in range(2)]
    firsts = {one.step(talk).session for talk in talks}
    for talk in talks:
        talk.go_on()
        assert moved(talk, two, one).session not in firsts


def test_a_conversation_that_moved_is_taken_for_nobodys_sibling(rng):
    (one, two), talk = gateways(), Talk(rng, first="Fix the failing test.")
    first = one.step(talk)
    talk.go_on()
    assert moved(talk, two, one).session == first.session
    sibling = Talk(random.Random(9), first="Fix the failing test.")
    sibling.go_on()
    assert moved(sibling, one, two).session != first.session


def test_a_compacted_conversation_is_known_by_its_messages_there_too(rng):
    (one, two), talk = gateways(), Talk(rng)
    first = one.step(talk)
    for _ in range(5):
        talk.go_on()
        one.step(talk)
    talk.go_on()
    del talk.messages[0:2]
    whose = moved(talk, two, one)
    assert (whose.session, whose.source) == (first.session, "overlap")


def test_another_tenant_is_told_nothing(rng):
    (one, two), talk = gateways(), Talk(rng)
    one.step(talk)
    talk.go_on()
    whose = moved(talk, two, one, OTHER)
    assert whose.source == "none"
    assert whose.root.startswith("other/")


def test_sessions_that_clients_named_are_not_given_away(rng):
    (one, two), talk = gateways(), Talk(rng)
    one.step(talk, headers={"x-opencode-session": "ses_1"})
    talk.go_on()
    assert moved(talk, two, one).source == "none"


def test_no_text_crosses_the_bus(rng):
    talk = Talk(rng)
    talk.go_on()
    ask = encode(peers.ask_of(HERE, TENANT, prints_of_talk(talk)))
    answer = said_in(next(message for message in talk.messages if answers(message)))
    assert answer[:8].encode() not in ask
    assert talk.messages[0]["content"][:8].encode() not in ask


def test_every_gateway_hashes_alike():
    """Python's own hashes of text differ from process to process."""
    code = "from saga.gateway.conversations import Prints; print(Prints('You', ['user'], [b'x' * 99]).chain)"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1
