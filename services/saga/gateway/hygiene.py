"""Noise at the head of prompts: what differs from one request of an agent to the next though it means the same. Pure.

A cache holds prefixes, so one changed byte at the head costs all tokens after it. Requests whose heads mean the same
(`heads.py`) are of one agent class; where they differ all the same, that is noise. It costs what comes after it and
would have been cached: of the session's last prompt, or of the class's instructions.
Called by `http_completions.py`; what is taken out for tenants that want it is in `tidying.py`.
"""

from collections import OrderedDict
from typing import Final

import msgspec

from saga.contract.ids import TenantId
from saga.gateway.dialects.dialect import Api, RawBody
from saga.gateway.heads import MAX_TOOLS_BYTES, Head, Noise, Places, head_of, parts_of
from saga.kv.tokens import TOKEN_BYTES

MAX_CLASSES: Final = 5_000  # remembered


class Seen(msgspec.Struct, frozen=True):
    """What the head of a request costs."""

    noises: tuple[Noise, ...] = ()
    tokens: int = 0  # that were cached, or could have been, and are computed again
    agent_class: str = ""  # whose head it is; empty: it has none
    steps: int = 0  # of the class so far whose head was noisy
    all_tokens: int = 0  # that they cost together


CLEAN: Final = Seen()


class _Class:
    """What is remembered of an agent class."""

    __slots__ = ("head", "steps", "tokens")

    def __init__(self) -> None:
        self.head: Head | None = None  # of its last request
        self.steps = 0
        self.tokens = 0


class Hygiene:
    """The last head of each agent class. Bounded; the longest unused go."""

    def __init__(self) -> None:
        self._classes: OrderedDict[tuple[TenantId, bytes], _Class] = OrderedDict()
        self._known: OrderedDict[int, Head | None] = OrderedDict()  # by what came

    def head(self, api: Api, raw: RawBody, roles: tuple[str, ...]) -> Head | None:
        """Of a request; heads that came before, byte for byte, are known."""
        parts = parts_of(api, raw, roles)
        tools = bytes(raw.get("tools", b""))[:MAX_TOOLS_BYTES]
        key = hash((tools, *parts))
        if key in self._known:
            self._known.move_to_end(key)
            return self._known[key]
        head = self._known[key] = head_of(parts, tools)
        if len(self._known) > MAX_CLASSES:
            self._known.popitem(last=False)
        return head

    def look(self, tenant: TenantId, head: Head | None, token_bytes: bytes, last_prompt: bytes) -> Seen:
        """What differs from the class's last head, and what that costs this prompt. `last_prompt`: token bytes of the
        session's last one; empty: it is the first.
        """
        if head is None:
            return CLEAN
        key = (tenant, head.kind)
        known = self._classes.pop(key, None) or _Class()
        self._classes[key] = known
        if len(self._classes) > MAX_CLASSES:
            self._classes.popitem(last=False)
        noises, first = _differences(known.head, head) if known.head is not None else ((), 0)
        tokens = _lost(head, first, token_bytes, last_prompt, tools="tools" in noises) if noises else 0
        known.head = head
        known.steps += bool(noises)
        known.tokens += tokens
        return Seen(noises, tokens, head.kind.hex(), known.steps, known.tokens)


def _differences(before: Head, head: Head) -> tuple[tuple[Noise, ...], int]:
    """(what differs, tokens of the instructions before the first of it)."""
    noises: list[Noise] = []
    first = head.instructions_tokens
    places: tuple[tuple[Noise, Places, Places], ...] = (
        ("billing", before.billing, head.billing),
        ("date", before.date, head.date),
        ("id", before.id, head.id),
    )
    for noise, old, new in places:
        if [checksum for _, checksum in old] == [checksum for _, checksum in new]:
            continue
        noises.append(noise)
        same = 0
        while same < min(len(old), len(new)) and old[same][1] == new[same][1]:
            same += 1
        first = min([first, *[at for at, _ in (*old[same : same + 1], *new[same : same + 1])]])
    if before.tools != head.tools:
        noises.append("tools")
    return tuple(noises), first


def _lost(head: Head, first: int, token_bytes: bytes, last_prompt: bytes, *, tools: bool) -> int:
    """Tokens after the first that differs. Templates put tools before all else."""
    if last_prompt:
        could = min(len(last_prompt), len(token_bytes)) // TOKEN_BYTES
        have = 0 if tools else _common(last_prompt, token_bytes)
    else:
        could = head.instructions_tokens
        have = 0 if tools else first
    return (head.tools_tokens if tools else 0) + max(0, could - have)


def _common(a: bytes, b: bytes) -> int:
    """Tokens that both begin with."""
    same, differs = 0, min(len(a), len(b)) // TOKEN_BYTES + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        part = slice(same * TOKEN_BYTES, middle * TOKEN_BYTES)
        if a[part] == b[part]:
            same = middle
        else:
            differs = middle
    return same
