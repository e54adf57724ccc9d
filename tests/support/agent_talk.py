"""Agents' conversations as clients send them, and whose steps a gateway takes them for. For tests of identity."""

import json

from multidict import CIMultiDict

from saga.contract.ids import TenantId
from saga.gateway.conversations import piece_of
from saga.gateway.dialects.dialect import prints_of, understood
from saga.gateway.dialects.table import DIALECTS
from saga.gateway.identity import Identities
from saga.gateway.recognisers import Evidence

TENANT = TenantId("t")
WORDS = ["open", "read", "file", "test", "fails", "line", "error", "import", "build", "module", "cache", "graph"]


class Talk:
    """One agent's conversation, as its client sends it: each request repeats all messages."""

    def __init__(self, rng, api="chat", system="You are a coding agent.", first=None):
        self.rng, self.api, self.system = rng, api, system
        self.messages = []
        self.user(first or self.words(30))

    def words(self, count):
        return " ".join(self.rng.choice(WORDS) for _ in range(count)) + f" {self.rng.getrandbits(48):x}"

    def user(self, text):
        self.messages.append({"role": "user", "content": text})

    def go_on(self):
        """The model answers, mostly with a call of a tool, and its result or a new question follows."""
        call, result = f"call_{self.rng.getrandbits(40):x}", self.words(40)
        if self.api == "messages":
            used = {"type": "tool_use", "id": call, "name": "read", "input": {"path": self.words(1)}}
            self.messages.append({"role": "assistant", "content": [{"type": "text", "text": self.words(5)}, used]})
            given = {"type": "tool_result", "tool_use_id": call, "content": result}
            self.messages.append({"role": "user", "content": [given]})
        elif self.api == "responses":
            function = {"type": "function_call", "call_id": call, "name": "read", "arguments": "{}"}
            self.messages.append(function)
            self.messages.append({"type": "function_call_output", "call_id": call, "output": result})
        elif self.rng.random() < 0.3:
            self.messages.append({"role": "assistant", "content": self.words(20)})
            self.user(self.words(10))
        else:
            calls = [{"id": call, "type": "function", "function": {"name": "read", "arguments": "{}"}}]
            self.messages.append({"role": "assistant", "content": None, "tool_calls": calls})
            self.messages.append({"role": "tool", "tool_call_id": call, "content": result})

    def body(self):
        tools = {"tools": [{"type": "function", "function": {"name": "read"}, "name": "read", "input_schema": {}}]}
        match self.api:
            case "messages":
                return {"model": "m", "max_tokens": 9, "system": self.system, "messages": self.cached()} | tools
            case "responses":
                return {"model": "m", "instructions": self.system, "input": self.messages} | tools
        return {"model": "m", "messages": [{"role": "system", "content": self.system}, *self.messages]} | tools

    def cached(self):
        """As Claude Code does it: the breakpoint wanders with the last message."""
        *before, last = self.messages
        if isinstance(last["content"], str):
            return self.messages
        return [*before, last | {"content": [last["content"][0] | {"cache_control": {"type": "ephemeral"}}]}]


class Gateway:
    """Whose steps they are, as one gateway finds it."""

    def __init__(self, identities=None):
        self.identities = identities or Identities()
        self.count = 0

    def step(self, talk, tenant=TENANT, headers=None, **more):
        dialect = DIALECTS[talk.api]
        asked = understood(dialect, json.dumps(talk.body() | more).encode())
        self.count += 1
        return self.identities.identify(
            Evidence(CIMultiDict(headers or {}), asked.raw),
            tenant=tenant,
            prints=lambda: prints_of(dialect, asked),
            fresh=f"fresh-{self.count}",
            tools=True,
        )

    @staticmethod
    def answered(talk, whose):
        """The gateway has seen the answer with which the talk goes on."""
        if whose.conversation is not None:
            answer = next(message for message in reversed(talk.messages) if answers(message))
            whose.conversation.said = piece_of(said_in(answer))


def answers(message):
    return message.get("role") == "assistant" or message.get("type") == "function_call"


def said_in(message):
    """As it begins: text, or the id of a call."""
    if "call_id" in message:
        return message["call_id"]
    content = message["content"]
    return content[0]["text"] if isinstance(content, list) else content or message["tool_calls"][0]["id"]
