"""Noise at the head of prompts: what differs from one request of an agent to the next though it means the same. Pure.

A cache holds prefixes, so one changed byte at the head costs all tokens after it. The head (instructions and tools) is
read with all that is known to vary taken out: billing lines, dates and times, long ids, the order of tools and of
their keys. Requests whose head is then the same are of one agent class; where their heads differ all the same, that is
noise. It costs what comes after it and would have been cached: of the session's last prompt, or of the class's head.
Called by `http_completions.py`; what is taken out for tenants that want it is in `tidying.py`.
"""

import hashlib
import re
import zlib
from collections import OrderedDict
from typing import Any, Final, Literal

import msgspec

from saga.contract.ids import TenantId
from saga.gateway.dialects.dialect import Api, RawBody, raw_list
from saga.kv.tokens import TOKEN_BYTES

Noise = Literal["billing", "date", "id", "tools"]
NOISES: Final[tuple[Noise, ...]] = ("billing", "date", "id", "tools")
MAX_CLASSES: Final = 5_000  # remembered
HEAD_CHARS: Final = 65_536  # of the instructions that are looked at
MAX_TOOLS_BYTES: Final = 1 << 20
BYTES_PER_TOKEN: Final = 4  # of tools, which the built-in template leaves out
BILLING: Final = re.compile(r"^[ \t]*x-[a-z0-9-]{0,40}billing-header:[^\n]*\n*", re.MULTILINE | re.IGNORECASE)
_MONTH: Final = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_DAY: Final = r"(?:(?:mon|tue|wed|thu|fri|sat|sun)[a-z]{0,6},?[ ]{1,3})?"
_CLOCK: Final = r"\d{1,2}:\d\d(?::\d\d(?:\.\d+)?)?(?:[ ]?[ap]\.?m\b\.?)?"
_ZONE: Final = r"(?:[ ]?(?:z|utc|gmt|[+-]\d\d:?\d\d))?"
_NTH: Final = r"\d{1,2}(?:st|nd|rd|th)?"
_GAP: Final = r"[ ]{1,3}"
_WRITTEN: Final = rf"{_MONTH}{_GAP}{_NTH},?{_GAP}\d{{4}}|{_NTH}{_GAP}{_MONTH},?{_GAP}\d{{4}}"
_NUMBERS: Final = r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}"
DATE: Final = re.compile(
    rf"{_DAY}(?:{_NUMBERS}|{_WRITTEN})(?:[ t,]{{1,3}}(?:at{_GAP})?{_CLOCK}{_ZONE})?|\b{_CLOCK}{_ZONE}\b", re.IGNORECASE
)
_UUID: Final = r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"
_ID: Final = re.compile(rf"\b(?:{_UUID}|(?=[a-f]{{0,15}}\d)[0-9a-f]{{16,}}|1[5-9]\d{{8,11}})\b", re.IGNORECASE)
_json = msgspec.json.Decoder()


class Head(msgspec.Struct, frozen=True):
    """The head of one request, as it came and as it means."""

    instructions: str
    tools: bytes  # as they came
    kind: bytes  # of the agent: equal for heads that mean the same
    billing: int  # checksums of what was taken out; 0: there is none
    date: int
    id: int


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

    __slots__ = ("beginning", "head", "steps", "tokens")

    def __init__(self) -> None:
        self.head: Head | None = None  # of its last request
        self.beginning = b""  # of that one's prompt
        self.steps = 0
        self.tokens = 0


class Hygiene:
    """The last head of each agent class. Bounded; the longest unused go."""

    def __init__(self) -> None:
        self._classes: OrderedDict[tuple[TenantId, bytes], _Class] = OrderedDict()
        self._known: OrderedDict[int, Head | Literal[""]] = OrderedDict()  # by what came; "": there is no head

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
        noises = _differences(known.head, head) if known.head is not None else ()
        tokens = _lost(head, known.beginning, token_bytes, last_prompt, tools="tools" in noises) if noises else 0
        known.head, known.beginning = head, token_bytes[: HEAD_CHARS * TOKEN_BYTES]
        known.steps += bool(noises)
        known.tokens += tokens
        return Seen(noises, tokens, head.kind.hex(), known.steps, known.tokens)

    def head(self, api: Api, raw: RawBody, roles: tuple[str, ...]) -> Head | None:
        """Of a request; heads that came before, byte for byte, are known."""
        parts = _parts(api, raw, roles)
        tools = bytes(raw.get("tools", b""))[:MAX_TOOLS_BYTES]
        key = hash((tools, *parts))
        known = self._known.get(key)
        if known is None:
            known = head_of(parts, tools)
            self._known[key] = known
            if len(self._known) > MAX_CLASSES:
                self._known.popitem(last=False)
        return known or None


def head_of(parts: tuple[bytes, ...], tools: bytes) -> Head | Literal[""]:
    """Of instructions, as JSON, and tools; empty when there are neither."""
    instructions = "\n".join([_text(_decoded(part)) for part in parts])[:HEAD_CHARS]
    if not instructions and len(tools) <= len(b"null"):
        return ""
    plain, billing = _without(BILLING, instructions, "")
    plain, date = _without(DATE, plain, "<date>")
    plain, some_id = _without(_ID, plain, "<id>")
    digest = hashlib.blake2b(plain.encode("utf-8", "replace"), digest_size=12)
    digest.update(canonical_tools(tools))
    return Head(instructions, tools, digest.digest(), billing, date, some_id)


def canonical_tools(tools: bytes) -> bytes:
    """Tools by name, with keys in order: the same for the same tools."""
    try:
        known = _json.decode(tools) if tools else None
    except (msgspec.DecodeError, RecursionError):
        return tools
    if isinstance(known, list):
        known.sort(key=tool_name)
    try:
        return msgspec.json.encode(known, order="deterministic")
    except (TypeError, ValueError, RecursionError):
        return tools


def tool_name(tool: Any) -> str:  # noqa: ANN401 - JSON
    """Of a tool in any API."""
    if not isinstance(tool, dict):
        return ""
    function = tool.get("function")
    name = function.get("name") if isinstance(function, dict) else tool.get("name")
    return name if isinstance(name, str) else str(tool.get("type", ""))


def _lost(head: Head, before: bytes, token_bytes: bytes, last_prompt: bytes, *, tools: bool) -> int:
    """Tokens after the first that differs, of the session's last prompt, or of the instructions of the class."""
    if last_prompt:
        could, have = min(len(last_prompt), len(token_bytes)), _common(last_prompt, token_bytes)
    else:
        could = min(len(head.instructions.encode("utf-8", "replace")) * TOKEN_BYTES, len(token_bytes))
        have = _common(before, token_bytes)
    if tools:  # templates put them before all else
        return -(-len(head.tools) // BYTES_PER_TOKEN) + could // TOKEN_BYTES
    return max(0, could - have) // TOKEN_BYTES


def _parts(api: Api, raw: RawBody, roles: tuple[str, ...]) -> tuple[bytes, ...]:
    """What holds the instructions, as it came: a content, or a message with one."""
    if api in ("messages", "responses"):
        name = "system" if api == "messages" else "instructions"
        if name in raw:
            return (bytes(raw[name]),)
    count = 0
    while count < len(roles) and roles[count] in ("system", "developer"):
        count += 1
    if not count:
        return ()
    return tuple(
        [bytes(message) for message in raw_list.decode(raw["input" if api == "responses" else "messages"])[:count]]
    )


def _decoded(value: bytes) -> Any:  # noqa: ANN401 - JSON
    try:
        return _json.decode(value)
    except (msgspec.DecodeError, RecursionError):
        return None


def _text(content: Any) -> str:  # noqa: ANN401 - JSON
    if isinstance(content, dict):
        content = content.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return "\n".join([text for text in texts if isinstance(text, str)])


def _without(what: re.Pattern[str], text: str, stands_for: str) -> tuple[str, int]:
    """(the text without, a checksum of what was taken out)."""
    found = what.findall(text)
    if not found:
        return text, 0
    return what.sub(stands_for, text), zlib.crc32("\0".join(map(str, found)).encode("utf-8", "replace")) or 1


def _differences(before: Head, head: Head) -> tuple[Noise, ...]:
    differ = (
        before.billing != head.billing,
        before.date != head.date,
        before.id != head.id,
        before.tools != head.tools,
    )
    return tuple([noise for noise, differs in zip(NOISES, differ, strict=True) if differs])


def _common(a: bytes, b: bytes) -> int:
    """Bytes that both begin with, whole tokens."""
    same, differs = 0, min(len(a), len(b)) // TOKEN_BYTES + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        part = slice(same * TOKEN_BYTES, middle * TOKEN_BYTES)
        if a[part] == b[part]:
            same = middle
        else:
            differs = middle
    return same * TOKEN_BYTES
