"""Headers that nobody told us about are learnt as session ids, and whoever tries to fool that gets nowhere."""

import random

import pytest
from agent_talk import TENANT, Gateway, Talk

from saga.contract.ids import TenantId
from saga.gateway import learned
from saga.gateway.learned import CONVERSATIONS, MAX_NAMES, MAX_REFUSED, MAX_TENANTS, MAX_VALUES, STEPS

NAME = "X-Acme-Run"


@pytest.fixture
def rng():
    return random.Random(19)


@pytest.fixture
def gateway():
    return Gateway()


def run(
    gateway, rng, number, steps=STEPS + 1, name=NAME, value="run-{number:04d}", system="You are a coding agent.", **more
):
    """One conversation under its header: whose its last step was."""
    talk = Talk(rng, system=system)
    for step in range(steps):
        if step:
            talk.go_on()
        facts = {"number": number, "step": step, "fourth": number % 4, "day": 1 + number // 3, "port": 5000 + step // 3}
        said = value.format(**facts, long="x" * (learned.MOST_CHARS + 1))
        whose = gateway.step(talk, headers={name: said, **more.get("headers", {})}, tenant=more.get("tenant", TENANT))
    return talk, whose


def taught(gateway, rng, **more):
    """So many conversations as it takes."""
    for number in range(CONVERSATIONS):
        run(gateway, rng, number, **more)


def source(gateway, rng, value, **more):
    """By what the first step of a new conversation is known."""
    return run(gateway, rng, 0, steps=1, value=value, **more)[1].source


def test_a_header_that_names_sessions_is_learnt(gateway, rng):
    taught(gateway, rng)

    _, whose = run(gateway, rng, 99)

    assert (whose.source, whose.confidence) == (f"learned:{NAME.lower()}", 0.7)
    assert whose.root == whose.session


def test_one_conversation_too_few_is_not_enough(gateway, rng):
    for number in range(CONVERSATIONS - 1):
        run(gateway, rng, number, steps=50)

    assert source(gateway, rng, "run-0099") == "none"


def test_neither_is_one_step_too_few_in_each(gateway, rng):
    for number in range(CONVERSATIONS):
        run(gateway, rng, number, steps=STEPS)
    for number in range(CONVERSATIONS, 5 * CONVERSATIONS):
        run(gateway, rng, number, steps=1)

    assert source(gateway, rng, "run-0099") == "none"


def test_conversations_from_before_keep_their_names(gateway, rng):
    talks = [run(gateway, rng, number) for number in range(CONVERSATIONS)]

    for number, (talk, before) in enumerate(talks):
        talk.go_on()
        after = gateway.step(talk, headers={NAME: f"run-{number:04d}"})
        assert after.source.startswith("learned:")
        assert (after.root, after.session) == (before.root, before.session)


def test_two_gateways_call_a_new_session_the_same(rng):
    one, two = Gateway(), Gateway()
    for gateway in (one, two):
        taught(gateway, rng)
    talk, first = run(one, rng, 99)

    talk.go_on()
    second = two.step(talk, headers={NAME: "run-0099"})

    assert (second.source, second.session) == (first.source, first.session)


def test_a_sub_agent_is_a_session_of_its_own_in_the_same_workflow(gateway, rng):
    taught(gateway, rng)
    _, main = run(gateway, rng, 99)

    talk, child = run(gateway, rng, 99, system="You search.")
    talk.go_on()
    again = gateway.step(talk, headers={NAME: "run-0099"})

    assert (child.root, child.parent) == (main.root, main.session)
    assert child.session == again.session != main.session


def test_tenants_learn_for_themselves(gateway, rng):
    taught(gateway, rng)

    assert source(gateway, rng, "run-0099", tenant=TenantId("other")) == "none"


def test_the_value_itself_is_told_to_nobody(gateway, rng):
    taught(gateway, rng)

    _, whose = run(gateway, rng, 99, value="hunter2-and-more")

    assert "hunter2" not in whose.session


# --- what looks like one and is none -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("why", "value"),
    [
        ("a constant", "everybody"),
        ("a person with several tasks", "user-{fourth}"),
        ("a request's number", "req-{number}-{step}"),
        ("a clock", "2026-11-21T12:{number:02d}:{step:02d}"),
        ("a date", "2026-11-{day}"),
        ("a connection that changes", "10.0.0.{number}:{port}"),
        ("a flag", "on"),
    ],
)
def test_it_is_not_learnt(gateway, rng, why, value):
    for number in range(6 * CONVERSATIONS):
        _, whose = run(gateway, rng, number, steps=STEPS + 2, value=value)
        assert whose.source == "prefix", why

    assert source(gateway, rng, "never seen") == "none"


@pytest.mark.parametrize(
    "name", ["Authorization", "X-Api-Key", "Cookie", "X-Csrf-Token", "User-Agent", "X-Forwarded-For", "traceparent"]
)
def test_secrets_and_plain_headers_are_not_even_looked_at(gateway, rng, name):
    taught(gateway, rng, name=name)

    assert source(gateway, rng, "run-0099", name=name) == "none"
    assert not gateway.identities.learned._tenants[TENANT].headers


def test_a_value_that_is_too_long_or_too_short_names_nothing(gateway, rng):
    taught(gateway, rng, value="{long}-{number}")
    taught(gateway, rng, value="{number}")

    assert not gateway.identities.learned._tenants[TENANT].headers


# --- dropped when it breaks ----------------------------------------------------------------------------------------


def test_a_second_task_under_one_value_ends_the_belief_and_joins_nothing(gateway, rng):
    """A person's id, of people who had one task each so far."""
    taught(gateway, rng)
    _, first = run(gateway, rng, 99)

    _, second = run(gateway, rng, 99, steps=1)

    assert (second.source, second.root != first.root) == ("none", True)
    taught(gateway, rng)
    assert source(gateway, rng, "run-7777") == "none", "once wrong, never believed again"


def test_even_when_that_value_was_seen_before_it_was_believed(gateway, rng):
    talks = [run(gateway, rng, number) for number in range(CONVERSATIONS)]

    _, second = run(gateway, rng, 0, steps=1)

    assert second.source == "none"
    assert second.root != talks[0][1].root


def test_a_value_that_changes_inside_a_conversation_ends_it(gateway, rng):
    taught(gateway, rng)
    talk, first = run(gateway, rng, 99)

    talk.go_on()
    after = gateway.step(talk, headers={NAME: "run-0100"})

    assert (after.source, after.root, after.session) == ("prefix", first.root, first.session)
    assert source(gateway, rng, "run-0101") == "none"


def test_so_does_one_that_is_missing(gateway, rng):
    taught(gateway, rng)
    talk, first = run(gateway, rng, 99)

    talk.go_on()
    after = gateway.step(talk)

    assert (after.source, after.session) == ("prefix", first.session)
    assert source(gateway, rng, "run-0101") == "none"


def test_conversations_go_on_by_their_messages_after_that(gateway, rng):
    taught(gateway, rng)
    talks = {number: run(gateway, rng, number) for number in range(90, 95)}
    run(gateway, rng, 90, steps=1)  # breaks it

    for number, (talk, before) in talks.items():
        talk.go_on()
        after = gateway.step(talk, headers={NAME: f"run-{number:04d}"})
        assert (after.source, after.root, after.session) == ("prefix", before.root, before.session)


def test_a_request_that_is_sent_again_breaks_nothing(gateway, rng):
    for number in range(CONVERSATIONS):
        talk = Talk(rng)
        for _ in range(3):  # its first answers were 429
            gateway.step(talk, headers={NAME: f"run-{number:04d}"})
        for _ in range(STEPS + 1):
            talk.go_on()
            gateway.step(talk, headers={NAME: f"run-{number:04d}"})

    talk, first = run(gateway, rng, 99, steps=1)
    again = gateway.step(talk, headers={NAME: "run-0099"})

    assert first.source.startswith("learned:")
    assert again.session == first.session


def test_a_conversation_that_was_forgotten_breaks_nothing(rng):
    gateway = Gateway()
    taught(gateway, rng)
    talk, first = run(gateway, rng, 99)
    gateway.identities.conversations._shelves.clear()

    talk.go_on()
    after = gateway.step(talk, headers={NAME: "run-0099"})

    assert (after.source, after.session) == (first.source, first.session)


# --- bounded -------------------------------------------------------------------------------------------------------


def test_a_flood_of_names_and_values_fills_nothing_and_hides_nothing(gateway, rng):
    taught(gateway, rng)
    for number in range(3 * MAX_VALUES):
        noise = {f"x-noise-{rng.getrandbits(32):x}": f"{rng.getrandbits(64):x}" for _ in range(5)}
        run(gateway, rng, 1_000 + number, steps=1 + number % 2, name="x-other", headers=noise)

    known = gateway.identities.learned._tenants[TENANT]
    assert len(known.headers) <= MAX_NAMES
    assert len(known.refused) <= MAX_REFUSED
    assert len(known.of_session) <= MAX_VALUES
    assert all(len(header.values) <= MAX_VALUES for header in known.headers.values())
    assert source(gateway, rng, "run-9999").startswith("learned:")


def test_so_does_a_flood_of_tenants(gateway, rng):
    for number in range(MAX_TENANTS + 10):
        run(gateway, rng, number, steps=1, tenant=TenantId(f"t{number}"))

    assert len(gateway.identities.learned._tenants) == MAX_TENANTS
