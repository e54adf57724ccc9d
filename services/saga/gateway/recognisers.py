"""Who tells us which session a request belongs to, and where: one table, first match wins. Pure.

Sources are what clients were seen to send (docs/clients.md). `identity.py` reads the table and decides what an id is
worth.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from saga.contract.ids import MAX_ID_CHARS
from saga.gateway.api_errors import ApiError, guarded, invalid_value

_NO_IDS = "0 1 - none null nil undefined default unknown anonymous session session_id test user string"
NOT_IDS: Final = frozenset((*_NO_IDS.split(), "00000000-0000-0000-0000-000000000000"))  # what programs send for none
_CLAUDE_USER: Final = re.compile(r"_session_([0-9a-fA-F-]{36})$")
_PERCENT: Final = re.compile(r"%([0-9a-fA-F]{2})")
_TRACE: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_CONVERSATION: Final = "gen_ai.conversation.id"


class Evidence:
    """Headers and body of a request, as far as anybody asks."""

    __slots__ = ("_body", "_decoded", "headers")

    def __init__(self, headers: Mapping[str, str], body: Mapping[str, msgspec.Raw]) -> None:
        """`headers`: by name in any case."""
        self.headers = headers
        self._body = body
        self._decoded: dict[str, object] = {}

    def header(self, name: str) -> str:
        """The id in a header; empty: none. Raises ApiError 400."""
        value = self.headers.get(name)
        return checked(name, value.strip()) if value else ""

    def body(self, path: str) -> str:
        """The id at a path in the body; empty: none. Raises ApiError 400."""
        name, _, rest = path.partition(".")
        if name not in self._body:
            return ""
        if name not in self._decoded:
            given = self._body[name]
            self._decoded[name] = guarded(lambda: msgspec.json.decode(given))
        value = self._decoded[name]
        for step in rest.split(".") if rest else ():
            value = value.get(step) if isinstance(value, dict) else None
        if not rest and name in STRICT and value is not None and not isinstance(value, str):
            raise ApiError(400, f"Invalid type for '{name}': send a string.", param=name, code="invalid_type")
        return checked(path, value.strip()) if isinstance(value, str) else ""

    def flag(self, path: str) -> bool:
        """Whether `true` is at a path in the body."""
        name, _, rest = path.partition(".")
        if name not in self._body:
            return False
        value = guarded(lambda: msgspec.json.decode(self._body[name]))
        for step in rest.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        return value is True

    def raw(self, path: str) -> str:
        """The same of what is no id, only holds one."""
        name, _, rest = path.partition(".")
        value = guarded(lambda: msgspec.json.decode(self._body.get(name, b"null")))
        value = value.get(rest) if rest and isinstance(value, dict) else value
        return value if isinstance(value, str) else ""


STRICT: Final = ("session_id", "prompt_cache_key", "program_id")  # strings in every API that has them
Place = Callable[[Evidence], str]


def checked(name: str, value: str) -> str:
    """The id. Raises ApiError 400 that names the limit."""
    if len(value) > MAX_ID_CHARS:
        raise invalid_value(name, f"'{name}' has {len(value)} characters: send at most {MAX_ID_CHARS}.")
    if not value.isprintable():
        raise invalid_value(name, f"'{name}' holds control characters: send printable ones.")
    return value


def header(name: str) -> Place:
    """A header."""
    return lambda evidence: evidence.header(name)


def field(path: str) -> Place:
    """A field of the body, dots between names."""
    return lambda evidence: evidence.body(path)


def _claude_user(evidence: Evidence) -> str:
    """The session in `metadata.user_id`: JSON in newer versions, the tail of a long name in older ones."""
    text = evidence.raw("metadata.user_id")
    if text.startswith("{"):
        try:
            told = json.loads(text)
        except (ValueError, RecursionError):
            return ""
        value = told.get("session_id") if isinstance(told, dict) else None
        return checked("metadata.user_id", value) if isinstance(value, str) else ""
    found = _CLAUDE_USER.search(text)
    return found[1] if found else ""


def _codex_turn(name: str) -> Place:
    """A field of the JSON in Codex's header."""

    def read(evidence: Evidence) -> str:
        text = evidence.headers.get("x-codex-turn-metadata", "")
        try:
            told = json.loads(text) if text else None
        except (ValueError, RecursionError):
            return ""
        value = told.get(name) if isinstance(told, dict) else None
        return checked("x-codex-turn-metadata", value) if isinstance(value, str) else ""

    return read


def _helicone_parent(evidence: Evidence) -> str:
    path = evidence.header("Helicone-Session-Path").rstrip("/")
    above, _, name = path.rpartition("/")
    return above if name else ""


def _baggage(evidence: Evidence) -> str:
    for member in evidence.headers.get("baggage", "").split(","):
        name, _, value = member.partition(";")[0].partition("=")
        if name.strip() == _CONVERSATION:
            plain = _PERCENT.sub(lambda found: chr(int(found[1], 16)), value.strip())
            return checked("baggage", plain)
    return ""


def trace_of(evidence: Evidence) -> str:
    """The W3C trace that the request is part of; empty: none."""
    found = _TRACE.fullmatch(evidence.headers.get("traceparent", "").strip().lower())
    return found[1] if found and found[1].strip("0") else ""


class Recogniser(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of client. Of the places of a thing the first that holds something counts."""

    source: str
    confidence: float  # that its ids tell sessions apart, 0 to 1
    session: tuple[Place, ...] = ()  # one conversation
    root: tuple[Place, ...] = ()  # the whole workflow
    parent: tuple[Place, ...] = ()  # the session that started this one
    final: tuple[str, ...] = ()  # headers that say that no further step follows
    inner: bool = False  # session and parent are unique only inside the root
    mixed: bool = False  # one id may cover several conversations, or be a constant: look whether prompts go on


DYNAMO_FINAL: Final = "X-Dynamo-Session-Final"
DYNAMO_FINAL_FIELD: Final = "nvext.agent_context.session_final"
TABLE: Final = (
    Recogniser(
        source="dynamo",
        confidence=0.95,
        session=(header("X-Dynamo-Session-ID"), field("nvext.agent_context.session_id")),
        parent=(header("X-Dynamo-Parent-Session-ID"), field("nvext.agent_context.parent_session_id")),
    ),
    Recogniser(source="thunderagent", confidence=0.95, session=(field("program_id"),)),
    Recogniser(
        source="claude-code",
        confidence=0.95,
        root=(header("X-Claude-Code-Session-Id"),),
        session=(header("X-Claude-Code-Agent-Id"),),
        parent=(header("X-Claude-Code-Parent-Agent-Id"),),
        inner=True,
        mixed=True,
    ),
    Recogniser(
        source="codex",
        confidence=0.95,
        root=(header("session-id"), header("session_id"), _codex_turn("session_id")),
        session=(header("thread-id"), header("thread_id"), header("conversation_id"), _codex_turn("thread_id")),
        parent=(header("x-codex-parent-thread-id"),),
    ),
    Recogniser(
        source="opencode",
        confidence=0.9,
        session=(header("x-opencode-session"), header("x-session-id"), header("x-session-affinity")),
        parent=(header("x-parent-session-id"),),
        mixed=True,
    ),
    Recogniser(
        source="helicone",
        confidence=0.9,
        root=(header("Helicone-Session-Id"),),
        session=(header("Helicone-Session-Path"),),
        parent=(_helicone_parent,),
        inner=True,
        mixed=True,
    ),
    Recogniser(source="grok", confidence=0.9, session=(header("x-grok-conv-id"),), mixed=True),
    Recogniser(
        source="litellm",
        confidence=0.8,
        session=(header("x-litellm-session-id"), field("litellm_session_id"), field("metadata.session_id")),
        mixed=True,
    ),
    Recogniser(source="sglang", confidence=0.8, session=(field("session_id"),), mixed=True),
    Recogniser(source="smg", confidence=0.8, session=(header("X-SMG-Routing-Key"),), mixed=True),
    Recogniser(source="claude-user", confidence=0.8, session=(_claude_user,), mixed=True),
    Recogniser(
        source="openai",
        confidence=0.6,
        session=(field("conversation.id"), field("conversation"), field("prompt_cache_key")),
        mixed=True,
    ),
    Recogniser(source="baggage", confidence=0.6, session=(_baggage,), mixed=True),
)
