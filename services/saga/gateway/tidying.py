"""Takes noise out of the head of a prompt, for tenants that want it (`SAGA_GATEWAY_CLEAN_PREFIX`). Pure.

Billing lines go, tools are put in the order of their names with their keys in order. Both mean nothing to a model.
Dates and ids stay: an agent may need them, and taking them away would change what it is told.
"""

from typing import Any, Final

import msgspec

from saga.gateway.dialects.dialect import RawBody, raw_list
from saga.gateway.heads import BILLING, canonical_tools

_json: Final = msgspec.json.Decoder()
_MARK: Final = b"billing-header:"
_FIELDS: Final = ("system", "instructions")
_LISTS: Final = ("messages", "input")


class CleanFor:
    """Whose prompts are tidied."""

    def __init__(self, tenants: str) -> None:
        """`tenants`: names with commas between them; `*`: all."""
        self._names = frozenset(name.strip() for name in tenants.split(",") if name.strip())

    def wants(self, tenant: str) -> bool:
        """Whether this tenant does."""
        return "*" in self._names or tenant in self._names


def tidied(raw: RawBody) -> RawBody:
    """The same fields with a tidy head; the same object when there is nothing to do. Call with valid JSON."""
    changed: dict[str, bytes] = {}
    tools = bytes(raw.get("tools", b""))
    if tools:
        ordered = canonical_tools(tools)
        if ordered != tools:
            changed["tools"] = ordered
    for name in _FIELDS:
        value = bytes(raw.get(name, b""))
        if _MARK in value.lower():
            changed[name] = msgspec.json.encode(_without_bill(_json.decode(value)))
    for name in _LISTS:
        value = bytes(raw.get(name, b""))
        if value[:1] == b"[" and _MARK in value[:65_536].lower():
            changed[name] = _list_without(value)
    return {**raw, **{name: msgspec.Raw(value) for name, value in changed.items()}} if changed else raw


def _list_without(value: bytes) -> bytes:
    messages = raw_list.decode(value)
    for at, message in enumerate(messages):
        known = _json.decode(message)
        if not isinstance(known, dict) or known.get("role") not in ("system", "developer"):
            break
        messages[at] = msgspec.Raw(msgspec.json.encode(known | {"content": _without_bill(known.get("content"))}))
    return msgspec.json.encode(messages)


def _without_bill(content: Any) -> Any:  # noqa: ANN401 - JSON
    """A content without billing lines; a part that was nothing else is gone, too."""
    if isinstance(content, str):
        return BILLING.sub("", content)
    if not isinstance(content, list):
        return content
    parts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            parts.append(part)
        elif plain := BILLING.sub("", text):
            parts.append({**part, "text": plain})
    return parts
