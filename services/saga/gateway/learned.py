"""Which header of a tenant's clients names sessions, learnt from conversations that their messages told apart. Pure.

A header is believed once it kept one value through each of several conversations and another in each. It is never
believed again once that was wrong once: a value that changed inside a conversation, or stood for two of the same kind.
So a person's id, a constant, a date, a request's number or a connection's address are not taken for a session, but for
as long as they look exactly like one. Values may be secrets: only their digests are kept or told. Bounded in all it
remembers. `identity.py` asks and tells.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from saga.contract.ids import TenantId
from saga.gateway.conversations import Prints

CONVERSATIONS: Final = 8  # with a value of their own, each seen to go on so often, before a header is believed
STEPS: Final = 3
MAX_TENANTS: Final = 1_000
MAX_NAMES: Final = 32  # headers of one tenant that are looked at
MAX_REFUSED: Final = 256  # and that are not any more
MAX_VALUES: Final = 512  # of one header
MAX_HEADERS: Final = 64  # of one request
MAX_NAME_CHARS: Final = 64  # of a header, in the name of a session
LEAST_CHARS: Final = 4  # of a value: what is shorter is a flag or a number
MOST_CHARS: Final = 512
_SOURCE: Final = "learned:"
_PLAIN: Final = (
    "accept accept-charset accept-encoding accept-language anthropic-beta anthropic-version baggage cache-control "
    "connection content-encoding content-length content-type date dnt expect forwarded from host idempotency-key "
    "keep-alive openai-beta openai-organization openai-project origin pragma priority range referer te traceparent "
    "tracestate trailer transfer-encoding upgrade user-agent via"
)
_NEVER: Final = frozenset(_PLAIN.split())
_NEVER_WITHIN: Final = ("auth", "cookie", "key", "token", "secret", "password", "signature", "credential", "csrf")
_NEVER_AHEAD: Final = ("sec-", "x-saga-", "x-stainless-", "x-forwarded-", "cf-", "x-real-")


class Said(msgspec.Struct, frozen=True, gc=False):
    """What a header says of a request."""

    source: str
    root: str
    session: str
    head: int | None  # of the conversation that had this value before the header was believed; None: none


class _Value:
    """What one value stands for."""

    __slots__ = ("head", "opening", "root", "session", "steps")

    def __init__(self, root: str, session: str, prints: Prints) -> None:
        self.root = root
        self.session = session
        self.head = prints.head  # of the kind of agent
        self.opening = prints.chain[-1]  # the conversation's first request
        self.steps = 0  # by which its conversation went on with it


class _Header:
    """One name."""

    __slots__ = ("believed", "values")

    def __init__(self) -> None:
        self.values: OrderedDict[str, _Value] = OrderedDict()  # by digest
        self.believed = False

    @property
    def steps(self) -> int:
        return sum(value.steps for value in self.values.values())


class _Tenant:
    __slots__ = ("headers", "of_session", "refused")

    def __init__(self) -> None:
        self.headers: OrderedDict[str, _Header] = OrderedDict()
        self.refused: OrderedDict[str, None] = OrderedDict()
        self.of_session: OrderedDict[str, dict[str, str]] = OrderedDict()  # digests by name


class LearnedHeaders:
    """Of all tenants at this gateway."""

    def __init__(self) -> None:
        self._tenants: OrderedDict[TenantId, _Tenant] = OrderedDict()

    def named(self, tenant: TenantId, headers: Mapping[str, str]) -> Said | None:
        """Whose a request is by a header that is believed. Two gateways say the same of a value that is new to both."""
        known = self._tenants.get(tenant)
        if known is None:
            return None
        for name, header in known.headers.items():
            if header.believed and (digest := _digest(headers.get(name, ""))):
                value = header.values.get(digest)
                if value is not None:
                    return Said(_SOURCE + name, value.root, value.session, value.head)
                plain = f"{name[:MAX_NAME_CHARS]}~{digest}"
                return Said(_SOURCE + name, plain, plain, None)
        return None

    def believes(self, tenant: TenantId, source: str) -> bool:
        """Whether what this source says of the tenant's sessions still holds."""
        known = self._tenants.get(tenant)
        header = known.headers.get(source.removeprefix(_SOURCE)) if known is not None else None
        return header is not None and header.believed

    def refuse(self, tenant: TenantId, source: str) -> None:
        """It was wrong."""
        known = self._tenants.get(tenant)
        if known is not None:
            _refuse(known, source.removeprefix(_SOURCE))

    def began(
        self, tenant: TenantId, headers: Iterable[tuple[str, str]], root: str, session: str, prints: Prints
    ) -> None:
        """A conversation that nobody named begins. The same request again says nothing: it may be sent again."""
        known = self._tenant(tenant)
        said: dict[str, str] = {}
        for name, digest in _candidates(headers):
            if name in known.refused:
                continue
            header = known.headers.get(name)
            other = header.values.get(digest) if header is not None else None
            if other is not None:
                if other.head == prints.head and other.opening != prints.chain[-1]:
                    _refuse(known, name)  # two of a kind under one value
            elif (header := header or _new(known, name)) is not None:
                header.values[digest] = _Value(root, session, prints)
                said[name] = digest
                if len(header.values) > MAX_VALUES:
                    header.values.popitem(last=False)
        if said:
            known.of_session[session] = said
            if len(known.of_session) > MAX_VALUES:
                known.of_session.popitem(last=False)

    def went_on(self, tenant: TenantId, headers: Iterable[tuple[str, str]], session: str) -> None:
        """It goes on, as its messages tell."""
        known = self._tenant(tenant)
        said = known.of_session.get(session)
        if said is None:
            return
        known.of_session.move_to_end(session)
        here = dict(_candidates(headers))
        for name, digest in said.items():
            header = known.headers.get(name)
            if header is None:
                continue
            if here.get(name) != digest:
                _refuse(known, name)
                continue
            value = header.values.get(digest)
            if value is not None and value.session == session:
                value.steps += 1
                header.values.move_to_end(digest)
                header.believed = header.believed or _enough(header)

    def _tenant(self, tenant: TenantId) -> _Tenant:
        known = self._tenants.get(tenant)
        if known is None:
            known = self._tenants[tenant] = _Tenant()
            if len(self._tenants) > MAX_TENANTS:
                self._tenants.popitem(last=False)
        else:
            self._tenants.move_to_end(tenant)
        return known


def is_learned(source: str) -> bool:
    """Whether a source is one of ours."""
    return source.startswith(_SOURCE)


def _enough(header: _Header) -> bool:
    return sum(value.steps >= STEPS for value in header.values.values()) >= CONVERSATIONS


def _new(known: _Tenant, name: str) -> _Header | None:
    """A name to look at. When there are too many, one that no conversation has confirmed goes; else the new one."""
    if len(known.headers) >= MAX_NAMES:
        weak = next((name for name, header in known.headers.items() if not header.steps), None)
        if weak is None:
            return None
        del known.headers[weak]
    header = known.headers[name] = _Header()
    return header


def _refuse(known: _Tenant, name: str) -> None:
    known.headers.pop(name, None)
    known.refused[name] = None
    if len(known.refused) > MAX_REFUSED:
        known.refused.popitem(last=False)


def _candidates(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """(name, digest) of each header that may name a session, each name once."""
    seen: set[str] = set()
    for count, (given, value) in enumerate(headers):
        if count >= MAX_HEADERS:
            return
        name = given.lower()
        if name in seen or name in _NEVER or name.startswith(_NEVER_AHEAD):
            continue
        if any(part in name for part in _NEVER_WITHIN) or not (digest := _digest(value)):
            continue
        seen.add(name)
        yield name, digest


def _digest(value: str) -> str:
    value = value.strip()
    if not LEAST_CHARS <= len(value) <= MOST_CHARS:
        return ""
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()[:16]
