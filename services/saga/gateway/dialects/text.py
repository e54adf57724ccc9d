"""What an agent is told before all else: enough to tell one kind of agent from another. Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from saga.kv.chat_forms import Content

OPENING_CHARS: Final = 256
_BILLING: Final = re.compile(r"^x-anthropic-billing-header:[^\n]*\n*")


def leading(chat: Iterable[Mapping[str, object]]) -> list[object]:
    """Contents of the system messages at the head of a chat."""
    contents = []
    for message in chat:
        if message["role"] not in ("system", "developer"):
            break
        contents.append(message["content"])
    return contents


def opening_of(system: Content | None) -> str:
    """Without the block that Claude Code varies with each request."""
    if system is None or isinstance(system, str):
        return _BILLING.sub("", system or "", count=1)[:OPENING_CHARS]
    for block in system:
        if text := _BILLING.sub("", block.text or "", count=1):
            return text[:OPENING_CHARS]
    return ""
