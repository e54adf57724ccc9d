"""The head of a prompt, instructions and tools: as it came, and as it means. Pure.

What is known to vary without meaning to is taken out: billing lines, dates and times, long ids, the order of tools and
of their keys. What is left is the agent's kind. A `Head` keeps checksums and places, no text. For `hygiene.py`.
"""

import hashlib
import re
import zlib
from typing import Any, Final, Literal

import msgspec

from saga.contract.unreadable import UNREADABLE
from saga.gateway.dialects.dialect import Api, RawBody, raw_list

Noise = Literal["billing", "date", "id", "tools"]
HEAD_CHARS: Final = 65_536  # of the instructions that are looked at
MAX_TOOLS_BYTES: Final = 1 << 20
BYTES_PER_TOKEN: Final = 4  # of tools, which the built-in template leaves out
MAX_PLACES: Final = 32  # of each kind of noise that are remembered
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
Places = tuple[tuple[int, int], ...]  # (tokens before it, checksum)


class Head(msgspec.Struct, frozen=True):
    """Of one request."""

    kind: bytes  # of the agent: equal for heads that mean the same
    instructions_tokens: int
    tools_tokens: int
    tools: int  # checksum, as they came
    billing: Places
    date: Places
    id: Places


def head_of(parts: tuple[bytes, ...], tools: bytes) -> Head | None:
    """Of instructions, as JSON, and tools; None when there are neither."""
    instructions = "\n".join([_text(_decoded(part)) for part in parts])[:HEAD_CHARS]
    if not instructions and len(tools) <= len(b"null"):
        return None
    plain = _ID.sub("<id>", DATE.sub("<date>", BILLING.sub("", instructions)))
    digest = hashlib.blake2b(plain.encode("utf-8", "replace"), digest_size=12)
    digest.update(canonical_tools(tools))
    return Head(
        kind=digest.digest(),
        instructions_tokens=len(instructions.encode("utf-8", "replace")),
        tools_tokens=-(-len(tools) // BYTES_PER_TOKEN),
        tools=zlib.crc32(tools),
        billing=_places(BILLING, instructions),
        date=_places(DATE, instructions),
        id=_places(_ID, instructions),
    )


def canonical_tools(tools: bytes) -> bytes:
    """Tools by name, with keys in order: the same for the same tools."""
    try:
        known = _json.decode(tools) if tools else None
    except UNREADABLE:
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


def parts_of(api: Api, raw: RawBody, roles: tuple[str, ...]) -> tuple[bytes, ...]:
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
    except UNREADABLE:
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


def _places(what: re.Pattern[str], text: str) -> Places:
    found = []
    for match in what.finditer(text):
        before = len(text[: match.start()].encode("utf-8", "replace"))
        found.append((before, zlib.crc32(match[0].encode("utf-8", "replace"))))
        if len(found) == MAX_PLACES:
            break
    return tuple(found)
