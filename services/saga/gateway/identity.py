"""Which workflow and session a request belongs to, who says so, and how sure that is. Pure.

In this order: our own headers, those of clients that we know (`recognisers.py`), a header that was learnt
(`learned.py`), the conversation that its messages go on with, the trace that it is part of; else it is a workflow of
one step. Sub-agents belong to the workflow of the
session that started them. An id is trusted as long as the conversations under it go on one after another: two of the
same kind that grow in turns show that it is a constant, and then the messages decide.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, TypeVar
from urllib.parse import quote

import msgspec

from saga.contract.ids import RootId, SessionId, TenantId, scoped
from saga.gateway.api_errors import invalid_value
from saga.gateway.conversations import Conversation, Conversations, Prints
from saga.gateway.learned import LearnedHeaders, is_learned
from saga.gateway.recognisers import (
    DYNAMO_FINAL,
    DYNAMO_FINAL_FIELD,
    NOT_IDS,
    TABLE,
    Evidence,
    Place,
    Recogniser,
    trace_of,
)

WORKFLOW: Final = "X-Saga-Workflow"
SESSION: Final = "X-Saga-Session"
PARENT: Final = "X-Saga-Parent"
FINAL: Final = "X-Saga-Final"
DEADLINE: Final = "X-Saga-Deadline-S"
NODE: Final = "X-Saga-Node"
IDENTITY: Final = "X-Saga-Identity"  # asked for with any value, answered with the finding
MAX_REMEMBERED: Final = 50_000  # of each kind
MAX_BEGINNINGS: Final = 8  # of a conversation of the same kind under one id, one after another
CONFIDENCE: Final = {"prefix": 0.9, "learned": 0.7, "overlap": 0.6, "trace": 0.5}
_TRUE: Final = ("1", "true", "yes")
_FALSE: Final = ("", "0", "false", "no")
K = TypeVar("K")
V = TypeVar("V")


class Identity(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whose step this is."""

    root: RootId
    session: SessionId
    parent: SessionId
    final: bool
    deadline_s: float
    lasting: bool  # another step of the session may follow
    node: str = ""  # of the workflow's declared graph
    ends: bool = False  # no further step of the session follows, though of its workflow
    source: str = "none"
    confidence: float = 0.0
    conversation: Conversation | None = None  # by which nobody but its messages names it


class _Named(msgspec.Struct, frozen=True, gc=False):
    """What somebody called the request, unscoped."""

    source: str
    confidence: float
    root: str
    session: str
    parent: str = ""
    final: bool = False
    ends: bool = False
    mixed: bool = False


class _Declared:
    """An id under which conversations run."""

    __slots__ = ("beginnings", "current", "trusted")

    def __init__(self, current: Conversation) -> None:
        self.current = current  # the newest of the kind that came first
        self.beginnings = 1
        self.trusted = True


class Identities:
    """What this gateway remembers to tell sessions apart. Bounded."""

    def __init__(self, conversations: Conversations | None = None) -> None:
        self.conversations = conversations or Conversations()
        self.learned = LearnedHeaders()
        self._roots: OrderedDict[SessionId, str] = OrderedDict()  # of sessions that have a parent
        self._declared: OrderedDict[tuple[TenantId, str, str], _Declared] = OrderedDict()
        self._traces: OrderedDict[tuple[TenantId, str], Conversation] = OrderedDict()

    def identify(
        self,
        evidence: Evidence,
        *,
        tenant: TenantId,
        prints: Callable[[], Prints | None],
        fresh: str,
        tools: bool = False,
    ) -> Identity:
        """Whose step this is. `prints` of its messages are made only when asked for; `fresh` names what nobody named;
        `tools`: some are offered. Raises ApiError 400."""
        named = self._named(evidence, tenant)
        seen = None
        if named is None or named.mixed:
            seen = prints()
        if named is not None and named.mixed and seen is not None and seen.chain:
            named = self._checked(named, seen, tenant)
        if named is None:
            named = self._learned(evidence, seen, tenant)
        lasting, conversation = True, None  # another step may follow
        if named is None:
            named, conversation, lasting = self._unnamed(evidence, seen, tenant, fresh, tools=tools)
        elif named.parent and not named.session:
            named = msgspec.structs.replace(named, session=f"{named.root}/{fresh}")
        if named.parent:
            _remember(self._roots, SessionId(scoped(tenant, named.session)), named.root)
        headers = evidence.headers
        said = headers.get(FINAL)
        of_session = said is not None and said.strip().lower() == "session"
        final = named.final if said is None else not of_session and _true(FINAL, said)
        return Identity(
            root=RootId(scoped(tenant, named.root)),
            session=SessionId(scoped(tenant, named.session)),
            parent=SessionId(scoped(tenant, named.parent) if named.parent else ""),
            final=final or not lasting,
            ends=of_session or (said is None and named.ends),
            deadline_s=_deadline_s(headers),
            lasting=lasting,
            node=evidence.header(NODE),
            source=named.source,
            confidence=named.confidence,
            conversation=conversation,
        )

    def unsure(self, evidence: Evidence, tenant: TenantId, prints: Prints) -> bool:
        """Whether nobody names it and its messages go on with none that waits here: another gateway may know better."""
        if self._named(evidence, tenant) is not None or self.learned.named(tenant, evidence.headers) is not None:
            return False
        found, how = self.conversations.find(tenant, prints, self._unclaimed(tenant))
        return found is None or how == "fork"

    # --- named by somebody -------------------------------------------------------------------------------------

    def _named(self, evidence: Evidence, tenant: TenantId) -> _Named | None:
        root, session, parent = evidence.header(WORKFLOW), evidence.header(SESSION), evidence.header(PARENT)
        ended = _true(DYNAMO_FINAL, evidence.headers.get(DYNAMO_FINAL, "")) or evidence.flag(DYNAMO_FINAL_FIELD)
        theirs = None if session else self._recognised(evidence, tenant)
        if not (root or session or parent):
            if theirs is None or not ended:
                return theirs
            return msgspec.structs.replace(theirs, final=not theirs.parent, ends=bool(theirs.parent))
        if theirs is not None and not parent:
            session, parent = theirs.session, theirs.parent
        root = root or self._root_of(parent, tenant) or session
        session = session or ("" if parent else root)
        return _Named("saga", 1.0, root, session, parent, final=ended and not parent, ends=ended and bool(parent))

    def _recognised(self, evidence: Evidence, tenant: TenantId) -> _Named | None:
        for kind in TABLE:
            root, session, parent = (_first(places, evidence) for places in (kind.root, kind.session, kind.parent))
            if not (root or session) or (kind.inner and not root) or (root or session).lower() in NOT_IDS:
                continue
            if kind.inner:
                own = session
                session = f"{root}/{own}" if own else root
                parent = (f"{root}/{parent}" if parent else root) if own else ""
                parent = "" if parent == session else parent
            else:
                parent = "" if parent == (session or root) else parent
                root = root or self._root_of(parent, tenant) or session
                session = session or root
            if not self._trusts(kind, session, tenant):
                continue
            mixed = kind.mixed and not (kind.inner and session != root)
            return _Named(kind.source, kind.confidence, root, session, parent, mixed=mixed)
        return None

    def _trusts(self, kind: Recogniser, name: str, tenant: TenantId) -> bool:
        known = self._declared.get((tenant, kind.source, name))
        return known is None or known.trusted

    def _root_of(self, parent: str, tenant: TenantId) -> str:
        return self._roots.get(SessionId(scoped(tenant, parent)), parent) if parent else ""

    # --- looked at closer --------------------------------------------------------------------------------------

    def _checked(self, named: _Named, prints: Prints, tenant: TenantId) -> _Named | None:
        """The same, or another session of the same workflow; None when the id turns out to be worth nothing."""
        key = (tenant, named.source, named.session)
        declared = (named.source, named.session)
        known = self._declared.get(key)
        found, _ = self.conversations.find(tenant, prints, lambda one: one.declared == declared)
        if known is None:
            found = Conversation(prints.head, named.root, named.session, named.parent, declared)
            known = _Declared(found)
        elif found is None:
            found = self._begun(known, named, prints, declared)
        elif found.head == known.current.head and found is not known.current:
            known.trusted = False
        _remember(self._declared, key, known)
        if not known.trusted:
            return None
        self.conversations.note(tenant, prints, found)
        if found.session == named.session:
            return named
        return msgspec.structs.replace(named, session=found.session, parent=found.parent)

    @staticmethod
    def _begun(known: _Declared, named: _Named, prints: Prints, declared: tuple[str, str]) -> Conversation:
        """A conversation that is new under its id: the same agent's next one, or another's."""
        if prints.head != known.current.head:
            session = f"{named.session}~{prints.chain[0] & 0xFFFFFFFF:08x}"
            return Conversation(prints.head, named.root, session, named.session, declared)
        known.current = Conversation(prints.head, named.root, named.session, named.parent, declared)
        known.beginnings += 1
        known.trusted = known.beginnings <= MAX_BEGINNINGS
        return known.current

    # --- named by a header that was learnt ---------------------------------------------------------------------

    def _learned(self, evidence: Evidence, prints: Prints | None, tenant: TenantId) -> _Named | None:
        """Whose it is by a header that is believed; the first time that its messages say otherwise is the last."""
        said = self.learned.named(tenant, evidence.headers)
        if said is None:
            return None
        named = _Named(said.source, CONFIDENCE["learned"], said.root, said.session)
        if prints is None or not prints.chain:
            return named
        declared = (said.source, said.session)
        found, _ = self.conversations.find(
            tenant, prints, lambda one: one.declared == declared or one.session == said.session
        )
        if found is None:
            known = self._declared.get((tenant, *declared))
            found = self._begun_under(known, said.head, named, prints, tenant)
            if found is None:
                self.learned.refuse(tenant, said.source)
                return None
        found.declared = declared
        if found.session == said.session:
            _remember(self._declared, (tenant, *declared), _Declared(found))
        self.conversations.note(tenant, prints, found)
        return msgspec.structs.replace(named, root=found.root, session=found.session, parent=found.parent)

    def _begun_under(
        self, known: _Declared | None, head: int | None, named: _Named, prints: Prints, tenant: TenantId
    ) -> Conversation | None:
        """A conversation that is new under its value, if it may be: the value's first, or one of another kind."""
        elsewhere, _ = self.conversations.find(tenant, prints, self._unclaimed(tenant))
        if elsewhere is not None:
            return None
        declared = (named.source, named.session)
        head = known.current.head if known is not None else head
        if head is not None and head != prints.head:
            session = f"{named.session}~{prints.chain[0] & 0xFFFFFFFF:08x}"
            return Conversation(prints.head, named.root, session, named.session, declared)
        if known is not None and prints.chain[-1] == known.current.end:
            return known.current  # sent again
        if head is not None and (known is None or self.conversations.remembers(tenant, known.current)):
            return None
        return Conversation(prints.head, named.root, named.session, "", declared)

    # --- named by nobody ---------------------------------------------------------------------------------------

    def _unnamed(
        self, evidence: Evidence, prints: Prints | None, tenant: TenantId, fresh: str, *, tools: bool
    ) -> tuple[_Named, Conversation | None, bool]:
        """(who, by which conversation, whether it may go on): with tools, or in the middle of a talk, it may."""
        if prints is None or not prints.chain:
            return _Named("none", 0.0, fresh, fresh), None, False
        found, how = self.conversations.find(tenant, prints, self._unclaimed(tenant))
        source: str = "prefix" if how == "fork" else how
        confidence = CONFIDENCE[source]
        trace = trace_of(evidence)
        if found is None and trace and (first := self._traces.get((tenant, trace))) is not None:
            source, confidence = "trace", CONFIDENCE["trace"]
            found = Conversation(prints.head, first.root, f"{first.root}~{fresh}", first.session, None)
        if found is None:
            source, confidence = "none", 0.0
            found = Conversation(prints.head, fresh, fresh, "", None)
        elif found.declared is not None:  # by an id that was not worth it
            if is_learned(found.declared[0]):  # a header that this request lacks: what it said so far was right
                self.learned.refuse(tenant, found.declared[0])
            else:
                found.root, found.session, found.parent = fresh, fresh, ""
            found.declared = None
        self._teach(evidence, found, prints, tenant, source)
        self.conversations.note(tenant, prints, found)
        if trace:
            self._traces.setdefault((tenant, trace), found)
            _remember(self._traces, (tenant, trace), self._traces[tenant, trace])
        lasting = source != "none" or tools or not prints.begins_anew
        return _Named(source, confidence, found.root, found.session, found.parent), found, lasting

    def _teach(self, evidence: Evidence, found: Conversation, prints: Prints, tenant: TenantId, source: str) -> None:
        headers = evidence.headers.items()
        if source == "prefix":
            self.learned.went_on(tenant, headers, found.session)
        elif source == "none" and prints.begins_anew:
            self.learned.began(tenant, headers, found.root, found.session, prints)

    def _unclaimed(self, tenant: TenantId) -> Callable[[Conversation], bool]:
        """Whether a conversation is nobody's, or somebody's whose id is worth nothing."""

        def wanted(one: Conversation) -> bool:
            if one.declared is None or is_learned(one.declared[0]):
                return True
            known = self._declared.get((tenant, *one.declared))
            return known is not None and not known.trusted

        return wanted


def told_of(whose: Identity) -> dict[str, str]:
    """The finding as a header of the answer."""
    ids = f"workflow={quote(whose.root)}; session={quote(whose.session)}; parent={quote(whose.parent)}"
    return {
        IDENTITY: f"source={whose.source}; confidence={whose.confidence:g}; {ids}; final={str(whose.final).lower()}"
    }


def _first(places: tuple[Place, ...], evidence: Evidence) -> str:
    for place in places:
        if value := place(evidence):
            return value
    return ""


def _remember(kept: OrderedDict[K, V], key: K, value: V) -> None:
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > MAX_REMEMBERED:
        kept.popitem(last=False)


def _true(name: str, value: str) -> bool:
    value = value.strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise invalid_value(name, f"'{name}' is {value[:20]!r}: send true or false.")


def _deadline_s(headers: Mapping[str, str]) -> float:
    text = headers.get(DEADLINE, "").strip()
    if not text:
        return 0.0
    wrong = invalid_value(DEADLINE, f"'{DEADLINE}' is {text[:20]!r}: send a positive number of seconds.")
    try:
        deadline_s = float(text)
    except ValueError:
        raise wrong from None
    if not math.isfinite(deadline_s) or deadline_s <= 0:
        raise wrong
    return deadline_s
