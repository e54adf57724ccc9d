"""Noise at the head of prompts: what is seen, what it costs, what is taken out, and what is left alone."""

import json
import time

import msgspec
import pytest
from tokenized import tokenized

from saga.contract.ids import TenantId
from saga.gateway.dialects.dialect import raw_fields, understood
from saga.gateway.dialects.table import DIALECTS
from saga.gateway.heads import DATE
from saga.gateway.hygiene import MAX_CLASSES, Hygiene
from saga.gateway.tidying import CleanFor, tidied

RED = TenantId("red")
LONG = "You are a careful agent. " * 40
TOOLS = [{"name": name, "input_schema": {"type": "object", "properties": {}}} for name in ("read", "write", "bash")]
BILL = "x-anthropic-billing-header: cc_version=2.1; cch={};\n"


class Agent:
    """Sends requests of one session after another through a hygiene of its own."""

    def __init__(self):
        self.hygiene = Hygiene()

    def ask(self, system, *, api="messages", tools=None, last=b"", tenant=RED, said="Hi"):
        messages = [{"role": "user", "content": said}]
        body = {"model": "m", "max_tokens": 5}
        if api == "messages":
            body |= {"system": system, "messages": messages}
        elif api == "responses":
            body = {"model": "m", "instructions": system, "input": messages}
        else:
            body |= {"messages": [{"role": "system", "content": system}, *messages]}
        if tools is not None:
            body["tools"] = tools
        asked = tokenized(understood(DIALECTS[api], json.dumps(body).encode()))
        head = self.hygiene.head(api, asked.raw, asked.roles)
        return self.hygiene.look(tenant, head, asked.token_bytes, last), asked


@pytest.mark.parametrize(
    ("first", "second", "noise"),
    [
        (BILL.format(1) + LONG, BILL.format(2) + LONG, "billing"),
        (f"Today's date: 2026-11-20.\n{LONG}", f"Today's date: 2026-11-21.\n{LONG}", "date"),
        (f"Now: Nov 20, 2026 at 3:04 PM. {LONG}", f"Now: Nov 21, 2026 at 11:59 AM. {LONG}", "date"),
        (f"Time 2026-11-20T10:11:12.123Z {LONG}", f"Time 2026-11-20T10:11:13.001Z {LONG}", "date"),
        (f"Run 1f0c8a52-0000-4000-8000-{1:012}. {LONG}", f"Run 1f0c8a52-0000-4000-8000-{2:012}. {LONG}", "id"),
        (f"Trace {'a1' * 16}. {LONG}", f"Trace {'b2' * 16}. {LONG}", "id"),
    ],
)
@pytest.mark.parametrize("api", ["chat", "messages", "responses"])
def test_what_varies_with_each_request_is_seen_and_costs_the_rest_of_the_head(api, first, second, noise):
    agent = Agent()
    assert agent.ask(first, api=api)[0].noises == ()
    seen, _ = agent.ask(second, api=api)
    assert seen.noises == (noise,)
    assert len(LONG) - 20 <= seen.tokens <= len(second)
    assert (seen.steps, seen.all_tokens) == (1, seen.tokens)
    assert agent.ask(second, api=api)[0].noises == ()


def test_in_a_session_it_costs_all_that_the_last_prompt_had_after_it():
    agent = Agent()
    _, before = agent.ask(BILL.format(1) + LONG, said="talk " * 500)
    seen, _ = agent.ask(BILL.format(2) + LONG, said="talk " * 600, last=before.token_bytes)
    assert before.prompt_tokens - 100 < seen.tokens < before.prompt_tokens


def test_tools_in_another_order_cost_themselves_and_all_that_follows():
    agent = Agent()
    agent.ask(LONG, tools=TOOLS)
    seen, _ = agent.ask(LONG, tools=TOOLS[::-1])
    assert seen.noises == ("tools",)
    assert seen.tokens >= len(LONG) + len(json.dumps(TOOLS)) // 5 - 20
    reordered = [dict(reversed(tool.items())) for tool in TOOLS]
    assert agent.ask(LONG, tools=reordered)[0].noises == ("tools",)


def test_another_prompt_another_tool_or_another_tenant_is_another_class():
    agent = Agent()
    agent.ask(LONG, tools=TOOLS)
    for seen, _ in (
        agent.ask(LONG + "Be brief.", tools=TOOLS),
        agent.ask(LONG, tools=TOOLS[:2]),
        agent.ask(LONG, tools=TOOLS, tenant=TenantId("blue")),
    ):
        assert seen.noises == ()


def test_the_class_of_an_agent_does_not_change_with_its_noise():
    agent = Agent()
    classes = {agent.ask(BILL.format(n) + f"Date: 2026-11-{n}. {LONG}")[0].agent_class for n in range(10, 20)}
    assert len(classes) == 1


@pytest.mark.parametrize("text", ["version 3.11.7", "chapter 12:", "room 1234", "May I?", "1/2 cup", "a:b", "sat down"])
def test_what_is_no_date_is_none(text):
    assert DATE.search(text) is None


def test_a_hostile_head_takes_no_long_look():
    for unit in ("mon", "jan 1 ", "x-", "a1", "12:", "2026-", "\n\t "):
        agent = Agent()
        started_s = time.process_time()
        agent.ask(unit * (200_000 // len(unit)))
        assert time.process_time() - started_s < 0.5


def test_what_is_remembered_is_bounded_and_holds_no_text():
    agent = Agent()
    for number in range(MAX_CLASSES + 50):
        agent.hygiene.look(RED, agent.hygiene.head("messages", fields(system=f"Agent {number} "), ()), b"", b"")
    assert len(agent.hygiene._classes) == len(agent.hygiene._known) == MAX_CLASSES
    assert len(msgspec.json.encode([known.head.date for known in agent.hygiene._classes.values()])) < 20 * MAX_CLASSES


def fields(**body):
    return raw_fields(json.dumps(body).encode())


def test_tidying_takes_out_billing_lines_and_orders_tools_and_leaves_the_rest():
    block = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}
    bill = {"type": "text", "text": BILL.format(7)}
    raw = fields(system=[bill, block], tools=TOOLS, messages=[{"role": "user", "content": BILL.format(1)}])
    clean = tidied(raw)
    assert json.loads(bytes(clean["system"])) == [block]
    assert [tool["name"] for tool in json.loads(bytes(clean["tools"]))] == ["bash", "read", "write"]
    assert bytes(clean["messages"]) == bytes(raw["messages"]), "what a user says is nobody's noise"
    assert bytes(tidied(clean)["tools"]) == bytes(clean["tools"])
    chat = tidied(fields(messages=[{"role": "system", "content": BILL.format(7) + "Date: 2026-11-21"}]))
    assert json.loads(bytes(chat["messages"])) == [{"role": "system", "content": "Date: 2026-11-21"}]


def test_a_tidy_request_is_left_as_it_came():
    raw = fields(system=LONG, messages=[{"role": "user", "content": "Hi"}])
    assert tidied(raw) is raw


def test_tidied_heads_are_no_noise():
    agent = Agent()
    for n in (1, 2):
        body = json.dumps(
            {
                "model": "m",
                "max_tokens": 1,
                "system": BILL.format(n) + LONG,
                "messages": [{"role": "user", "content": "Hi"}],
            }
        ).encode()
        asked = tokenized(understood(DIALECTS["messages"], body, tidied))
        seen = agent.hygiene.look(RED, agent.hygiene.head("messages", asked.raw, asked.roles), asked.token_bytes, b"")
        assert seen.noises == ()
        assert b"billing" not in msgspec.json.encode(asked.raw)


def test_who_is_tidied_is_said_by_name():
    assert CleanFor("").wants("red") is False
    assert CleanFor("blue, red").wants("red") is True
    assert CleanFor("*").wants("anybody") is True
