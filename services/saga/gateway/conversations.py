"""Which conversation a list of messages goes on with, by what it shares with recent ones. Pure.

A request's messages begin with all those of the request before it, then comes the model's answer. So the last message
of each request is remembered under a hash of everything up to it, and a later request looks for the longest such
beginning of its own. When a beginning was rewritten (compaction, old tool results cleared), messages that stand in one
conversation alone still tell. Conversations that begin alike are kept apart: each goes on with one request, by the
model's answer if that was seen (`Conversation.said`).
Hashes are made of numbers alone, of which Python makes the same everywhere: another gateway may ask for a place in a
conversation (`peers.py`). Nothing is found across tenants. Bounded by entries, the largest tenant's oldest go first.
A message costs one pass at the speed of a checksum; entries are made for new messages only.
"""

import re
import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Literal

from saga.contract.ids import TenantId

MAX_ENTRIES: Final = 300_000  # about 200 bytes each
_ENTRIES_AT_ONCE: Final = 1_000
_EDGE_BYTES: Final = 48
_MARK_FROM_BYTES: Final = 64  # shorter messages ("ok") stand in many conversations
LOOK_BACK: Final = 64  # messages whose marks are asked for
_LEAST_VOTES: Final = 2
_ANSWER_ITEMS: Final = 4  # in which an answer is looked for: some APIs put thoughts before it
_ALIKE: Final = 256  # conversations that end alike and are told apart
_SYSTEM: Final = ("system", "developer")
_CACHE_CONTROL: Final = re.compile(rb',?\s*"cache_control":\s*(?:\{[^{}]*\}|null)')
Found = Literal["prefix", "fork", "overlap"]  # fork: it went on already, or otherwise
_PLAIN: Final = re.compile(r"[A-Za-z0-9 .,:;_-]{8,64}")


def piece_of(text: str) -> bytes:
    """A piece that reads the same however the text is written as JSON; empty: there is none."""
    found = _PLAIN.search(text)
    return found[0].encode() if found else b""


class Prints:
    """Hashes of a request's messages, the leading instructions left out: what dates and bills vary."""

    __slots__ = ("begins_anew", "chain", "head", "marks", "messages", "roles")

    def __init__(self, opening: str, roles: Sequence[str], messages: Sequence[bytes]) -> None:
        """`opening`: the beginning of the instructions; `messages`: their JSON, with `roles`."""
        first = 0
        while first < len(roles) and roles[first] in _SYSTEM:
            first += 1
        self.head = hash((len(opening), zlib.crc32(opening.encode("utf-8", "replace"))))  # of the kind of agent
        self.roles = roles[first:]
        self.messages = messages[first:]
        self.marks: list[int] = []  # of each message; 0: too short to tell anything
        self.chain: list[int] = []  # of all messages up to each
        self.begins_anew = "assistant" not in self.roles
        link = self.head
        for message in self.messages:
            text = message if b'"cache_control"' not in message else _CACHE_CONTROL.sub(b"", message)
            mark = hash((len(text), zlib.crc32(text), zlib.crc32(text[:_EDGE_BYTES]), zlib.crc32(text[-_EDGE_BYTES:])))
            link = hash((link, mark))
            self.chain.append(link)
            self.marks.append(mark if len(text) >= _MARK_FROM_BYTES else 0)


class Conversation:
    """One line of messages that grows."""

    __slots__ = ("declared", "end", "head", "parent", "root", "said", "session")

    def __init__(self, head: int, root: str, session: str, parent: str, declared: tuple[str, str] | None) -> None:
        """Ids as the client would name them. `declared`: (source, id) when a client named it."""
        self.head = head
        self.root = root
        self.session = session
        self.parent = parent
        self.declared = declared
        self.end = 0  # chain of its last request
        self.said = b""  # a piece of the answer to it that reads the same in any JSON; empty: not known


class _Shelf:
    """What is known of one tenant."""

    __slots__ = ("ends", "marks")

    def __init__(self) -> None:
        self.ends: OrderedDict[int, list[Conversation]] = OrderedDict()  # by chain, where a request ended
        self.marks: OrderedDict[int, Conversation | None] = OrderedDict()  # None: in several conversations

    def __len__(self) -> int:
        return len(self.ends) + len(self.marks)


class Conversations:
    """Recent conversations of all tenants at this gateway."""

    def __init__(self, max_entries: int = MAX_ENTRIES) -> None:
        self._max_entries = max_entries
        self._shelves: dict[TenantId, _Shelf] = {}
        self.entries = 0

    def find(
        self, tenant: TenantId, prints: Prints, wanted: Callable[[Conversation], bool]
    ) -> tuple[Conversation | None, Found]:
        """The conversation that these messages belong to, among those wanted, and how that was seen."""
        shelf = self._shelves.get(tenant)
        if shelf is None or not prints.chain:
            return None, "prefix"
        waiting, forked, sure = self._at_end(shelf, prints, wanted)
        if waiting is not None:
            return waiting, "prefix" if sure else "fork"
        if not prints.begins_anew:
            same = [one for one in shelf.ends.get(prints.chain[-1], ()) if wanted(one)]
            if same:
                return same[-1], "prefix"  # sent again
            most = self._by_marks(shelf, prints.head, prints.marks, wanted)
            if most is not None:
                return most, "overlap"
        return forked, "fork" if forked is not None else "prefix"

    @staticmethod
    def _at_end(
        shelf: _Shelf, prints: Prints, wanted: Callable[[Conversation], bool]
    ) -> tuple[Conversation | None, Conversation | None, bool]:
        """(the one whose last messages these go on from, one that went on from there already, whether the answer is the
        one that it got, as far as that is known)."""
        chain, roles = prints.chain, prints.roles
        for place in range(len(chain) - 1, 0, -1):
            link = chain[place - 1]
            here = [one for one in shelf.ends.get(link, ()) if wanted(one)] if roles[place] == "assistant" else []
            if not here:
                continue
            shelf.ends.move_to_end(link)
            waiting = [one for one in here if one.end == link]
            if not waiting:
                return None, here[-1], False
            answer = b"".join(prints.messages[place : place + _ANSWER_ITEMS])
            waiting.sort(key=lambda one: 0 if one.said and one.said in answer else 2 if one.said else 1)
            return waiting[0], None, not waiting[0].said or waiting[0].said in answer
        return None, None, False

    @staticmethod
    def _by_marks(
        shelf: _Shelf, head: int, marks: Sequence[int], wanted: Callable[[Conversation], bool]
    ) -> Conversation | None:
        """The one that most of the recent messages stand in, if they stand nowhere else."""
        votes: dict[int, tuple[int, Conversation]] = {}
        for mark in marks[-LOOK_BACK:]:
            found = shelf.marks.get(mark) if mark else None
            if found is not None and found.head == head and wanted(found):
                votes[id(found)] = (votes.get(id(found), (0, found))[0] + 1, found)
        if not votes:
            return None
        count, best = max(votes.values(), key=lambda vote: vote[0])
        return best if count >= _LEAST_VOTES and 2 * count > sum(vote[0] for vote in votes.values()) else None

    def note(self, tenant: TenantId, prints: Prints, conversation: Conversation) -> None:
        """A request of this conversation is on its way."""
        shelf = self._shelves.get(tenant)
        if shelf is None:
            shelf = self._shelves[tenant] = _Shelf()
        before = len(shelf)
        if prints.chain:
            self._move(shelf, conversation, prints.chain[-1])
        for mark in reversed(prints.marks):
            if not mark:
                continue
            known = shelf.marks.get(mark, conversation)
            if mark in shelf.marks and known is conversation:
                break  # and so are those before it
            shelf.marks[mark] = conversation if known is conversation else None
        self.entries += len(shelf) - before
        if self.entries > self._max_entries:
            self._shrink()

    @staticmethod
    def _move(shelf: _Shelf, conversation: Conversation, end: int) -> None:
        """From where it ended to where it ends now; the last at a place leaves a trace there, for who goes back."""
        before = shelf.ends.get(conversation.end, [])
        if len(before) > 1 and conversation in before:
            before.remove(conversation)
        conversation.end, conversation.said = end, b""
        here = shelf.ends.setdefault(end, [])
        if conversation not in here:
            here.append(conversation)
            del here[:-_ALIKE]
        shelf.ends.move_to_end(end)

    def waiting_at(self, tenant: TenantId, end: int) -> list[Conversation]:
        """Those whose last request ended there."""
        shelf = self._shelves.get(tenant)
        return [one for one in shelf.ends.get(end, ()) if one.end == end] if shelf is not None else []

    def marked(
        self, tenant: TenantId, head: int, marks: Sequence[int], wanted: Callable[[Conversation], bool]
    ) -> Conversation | None:
        """The one that these messages stand in, if they stand nowhere else."""
        shelf = self._shelves.get(tenant)
        return self._by_marks(shelf, head, marks, wanted) if shelf is not None else None

    def take_in(self, tenant: TenantId, conversation: Conversation, end: int, marks: Sequence[int]) -> None:
        """One that another gateway had: its last request ended there, or only its messages tell."""
        shelf = self._shelves.setdefault(tenant, _Shelf())
        before, said = len(shelf), conversation.said
        if end:
            self._move(shelf, conversation, end)
            conversation.said = said
        for mark in marks if not end else ():
            if mark:
                shelf.marks[mark] = conversation
        self.entries += len(shelf) - before

    def leave(self, tenant: TenantId, conversation: Conversation) -> None:
        """It goes on elsewhere; its messages still tell whose they are."""
        shelf = self._shelves.get(tenant)
        here = shelf.ends.get(conversation.end, []) if shelf is not None else []
        if shelf is not None and conversation in here:
            here.remove(conversation)
            if not here:
                del shelf.ends[conversation.end]
                self.entries -= 1
        conversation.end, conversation.said = 0, b""

    def remembers(self, tenant: TenantId, conversation: Conversation) -> bool:
        """Whether a request that goes on with it would be known."""
        shelf = self._shelves.get(tenant)
        return shelf is not None and conversation in shelf.ends.get(conversation.end, ())

    def _shrink(self) -> None:
        largest = max(self._shelves.values(), key=len)
        before = len(largest)
        for kept in (largest.marks, largest.ends):
            for _ in range(min(len(kept), max(1, _ENTRIES_AT_ONCE * len(kept) // before))):
                kept.popitem(last=False)
        self.entries -= before - len(largest)
