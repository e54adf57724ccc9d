"""A mix of all harnesses' sessions through gateways, and for how many of them the gateways find the truth."""

import json
import random
from dataclasses import dataclass

from agent_talk import Gateway, Talk
from multidict import CIMultiDict

from saga.contract.ids import GatewayId, TenantId
from saga.gateway import peers
from saga.gateway.dialects.dialect import prints_of, understood
from saga.gateway.dialects.table import DIALECTS
from saga.gateway.recognisers import Evidence

TENANTS = (TenantId("t"), TenantId("other"))
KINDS = (
    "saga", "dynamo", "thunderagent", "claude-code", "codex", "opencode", "helicone", "sglang", "openai", "baggage",
)  # fmt: skip


@dataclass
class Figures:
    """What was found."""

    declared_steps: int = 0
    declared_right: int = 0
    anonymous_sessions: int = 0
    anonymous_whole: int = 0  # all steps in one workflow
    shared_workflows: int = 0  # of several anonymous sessions
    across_tenants: int = 0  # workflows of sessions of two tenants, and steps outside of their own


def declared(kind, number):
    """(headers, body fields) of a session, as its harness declares it."""
    name = f"{kind}-{number}"
    return {
        "saga": ({"X-Saga-Workflow": name}, {}),
        "dynamo": ({"X-Dynamo-Session-ID": name}, {}),
        "thunderagent": ({}, {"program_id": name}),
        "claude-code": ({"X-Claude-Code-Session-Id": name}, {}),
        "codex": ({"session-id": name, "thread-id": name}, {"prompt_cache_key": name}),
        "opencode": ({"x-opencode-session": name}, {}),
        "helicone": ({"Helicone-Session-Id": name}, {}),
        "sglang": ({}, {"session_id": name}),
        "openai": ({}, {"prompt_cache_key": name}),
        "baggage": ({"baggage": f"gen_ai.conversation.id={name}"}, {}),
        "anonymous": ({}, {}),
    }[kind]


class Cell:
    """Gateways that ask each other for conversations, as the shell does."""

    def __init__(self, count):
        self.gateways = [Gateway() for _ in range(count)]
        for number, gateway in enumerate(self.gateways):
            gateway.count = 1_000_000 * number

    def step(self, talk, tenant, headers, fields, at):
        """Whose it is, at the gateway `at`."""
        gateway, dialect = self.gateways[at], DIALECTS[talk.api]
        asked = understood(dialect, json.dumps(talk.body() | fields).encode())
        prints = prints_of(dialect, asked)
        unsure = gateway.identities.unsure(Evidence(CIMultiDict(headers), asked.raw), tenant, prints)
        if "assistant" in asked.roles and unsure:
            self._ask(gateway, tenant, prints)
        return gateway.step(talk, tenant, headers, **fields)

    def _ask(self, gateway, tenant, prints):
        ask = peers.ask_of(GatewayId("g"), tenant, prints)
        for other in self.gateways if ask is not None else ():
            told = peers.told(ask, other.identities.conversations) if other is not gateway else None
            if told is not None:
                peers.take_in(tenant, prints, told, gateway.identities.conversations)
                return


def mixed(sessions=400, seed=20, gateways=1, moves=0.0):
    """Ten harnesses and as many anonymous sessions, up to 60 at a time, two tenants, three APIs.

    One session in five begins with the same words as others; one step in thirty is followed by a compaction. `moves`:
    share of steps that reach another gateway than the session's last one.
    """
    rng = random.Random(seed)
    kinds = [*KINDS, *["anonymous"] * len(KINDS)]
    waiting = []
    for number in range(sessions):
        kind, tenant = kinds[number % len(kinds)], rng.choice(TENANTS)
        first = "Fix the failing test." if rng.random() < 0.2 else None
        talk = Talk(random.Random(number + 1_000 * seed), rng.choice(("chat", "messages", "responses")), first=first)
        waiting.append([kind, tenant, talk, f"{kind}-{number}", declared(kind, number), rng.randint(2, 12), 0])
    cell, steps = Cell(gateways), []
    while waiting:
        place = rng.randrange(min(60, len(waiting)))
        session = waiting[place]
        kind, tenant, talk, name, (headers, fields), left, at = session
        if gateways > 1 and rng.random() < moves:
            session[6] = at = (at + 1) % gateways
        whose = cell.step(talk, tenant, headers, fields, at)
        steps.append((kind, tenant, name, whose))
        talk.go_on()
        Gateway.answered(talk, whose)
        if rng.random() < 0.03 and len(talk.messages) > 6:
            del talk.messages[0:2]
        session[5] = left - 1
        if left == 1:
            del waiting[place]
    return _figures(steps)


def _figures(steps):
    figures, roots, owners = Figures(), {}, {}
    for kind, tenant, name, whose in steps:
        figures.across_tenants += not whose.root.startswith(f"{tenant}/")
        owners.setdefault(whose.root, set()).add((tenant, name))
        if kind == "anonymous":
            roots.setdefault(name, set()).add(whose.root)
        else:
            figures.declared_steps += 1
            figures.declared_right += whose.root == f"{tenant}/{name}"
    figures.anonymous_sessions = len(roots)
    figures.anonymous_whole = sum(len(found) == 1 for found in roots.values())
    figures.shared_workflows = sum(len(names) > 1 for names in owners.values())
    figures.across_tenants += sum(len({tenant for tenant, _ in names}) > 1 for names in owners.values())
    return figures
