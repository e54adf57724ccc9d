"""The session tags open at this worker's engine, each on its way through one table of states. Pure.

An open tag is a soft pin on a session's KV, and the engine itself never lets go of one: this table is its only end.
It is never closed while a lease of it is out, and not before the first step under the tag that supersedes it has
finished: an engine tags a request's path when it ends, so until then only the old tag pins the prefix that both share.
When to let go is the choice of `retention`; who asks the engine is the shell. `take_changes` tells what the journal
must know.
"""

from enum import Enum
from typing import Final

import msgspec

from saga.contract.ids import LeaseId, SessionId, SessionTag
from saga.contract.messages import Forecast, StepFinished
from saga.worker.deadlines import Deadlines
from saga.worker.leases import Lease

CLOSE_AGAIN_S: Final = 1.0  # after the engine could not be asked
MAX_TAGS: Final = 65_536  # beyond this the idle tag next to expire goes early
MAX_SESSION_TAGS: Final = 3  # of one session; beyond this the oldest goes, finished or not


class TagState(Enum):
    """Where a tag is."""

    HELD = "held"  # a step of it runs
    IDLE = "idle"  # open until its deadline
    DOOMED = "doomed"  # released, but a step of it runs
    CLOSING = "closing"  # the engine is being asked

    __hash__ = object.__hash__  # by identity: Enum's own is Python, called at every look into the table


class TagMove(Enum):
    """What can happen to a tag."""

    TAKE = "take"  # a lease of it is out
    FREE = "free"  # its last lease ended
    RELEASE = "release"  # the session has no claim to its KV here
    EXPIRE = "expire"  # its deadline passed

    __hash__ = object.__hash__  # as above


TRANSITIONS: Final[dict[tuple[TagState, TagMove], TagState]] = {
    **{(state, TagMove.TAKE): TagState.HELD for state in TagState},
    (TagState.HELD, TagMove.FREE): TagState.IDLE,
    (TagState.DOOMED, TagMove.FREE): TagState.CLOSING,
    (TagState.HELD, TagMove.RELEASE): TagState.DOOMED,
    (TagState.DOOMED, TagMove.RELEASE): TagState.DOOMED,
    (TagState.IDLE, TagMove.RELEASE): TagState.CLOSING,
    (TagState.CLOSING, TagMove.RELEASE): TagState.CLOSING,
    (TagState.IDLE, TagMove.EXPIRE): TagState.CLOSING,
    (TagState.CLOSING, TagMove.EXPIRE): TagState.CLOSING,
}


class TagRecord(msgspec.Struct, frozen=True, gc=False):
    """What the journal keeps of an open tag."""

    tag: SessionTag
    session: SessionId
    leases: tuple[Lease, ...] = ()


class OpenTag:
    """One tag. Read-only for others than the table."""

    __slots__ = (
        "context_tokens",
        "ended",
        "ended_s",
        "ended_step",
        "final",
        "forecast",
        "leases",
        "session",
        "state",
        "tag",
    )

    def __init__(self, tag: SessionTag, session: SessionId) -> None:
        self.tag = tag
        self.session = session
        self.state = TagState.IDLE
        self.leases: dict[LeaseId, Lease] = {}
        self.ended_step = ""  # the last step that ended under it
        self.ended_s = 0.0
        self.context_tokens = 0  # of that step, answer included; the agent's core fills it in
        self.ended: StepFinished | None = None  # how it ended; the same; None: it was aborted, or nobody said
        self.final = False
        self.forecast: Forecast | None = None  # may come before the step's end does

    def move(self, move: TagMove) -> None:
        """Advance by the table. Raises AssertionError, and changes nothing, for a move that it does not have."""
        after = TRANSITIONS.get((self.state, move))
        if after is None:
            raise AssertionError(f"tag {self.tag}: cannot {move.value} while {self.state.value}")
        self.state = after


class TagTable:
    """All open tags, those of a session in the order of their last steps. Methods that may end some return those to
    close at the engine now."""

    __slots__ = ("_by_session", "_changed", "_deadlines", "_tags")

    def __init__(self) -> None:
        self._tags: dict[SessionTag, OpenTag] = {}
        self._by_session: dict[SessionId, dict[SessionTag, None]] = {}
        self._deadlines: Deadlines[SessionTag] = Deadlines()
        self._changed: dict[SessionTag, None] = {}

    def restore(self, record: TagRecord, until_s: float) -> None:
        """A tag from the journal: held by the leases it had, else open until `until_s` unless claimed."""
        entry = self._open(record.tag, record.session)
        entry.leases = {lease.lease_id: lease for lease in record.leases}
        if entry.leases:
            entry.move(TagMove.TAKE)
        else:
            self._deadlines.set(record.tag, until_s)

    def take(self, lease: Lease) -> list[SessionTag]:
        """A step runs under this tag. Older idle tags of the session last as long as it does, or until it finishes."""
        if not lease.tag:
            return []
        entry = self._tags.get(lease.tag) or self._open(lease.tag, lease.session)
        entry.move(TagMove.TAKE)
        entry.leases[lease.lease_id] = lease
        self._deadlines.drop(lease.tag)
        self._changed[lease.tag] = None
        tags = self._by_session[entry.session]
        if len(tags) == 1:
            return self._over_bound()
        tags[lease.tag] = tags.pop(lease.tag)
        older = self._older(entry)
        for other in older:
            if other.state is TagState.IDLE:
                self._deadlines.drop(other.tag)
        surplus = older[: max(0, len(tags) - MAX_SESSION_TAGS)]
        return [other.tag for other in surplus if self._release(other)] + self._over_bound()

    def free(
        self, lease: Lease, now_s: float, *, finished: bool = False, final: bool = False
    ) -> tuple[OpenTag | None, list[SessionTag]]:
        """A lease ended. The tag, if it is idle now and wants a deadline (`keep_until`), and the tags to close.

        `finished`: so did its step, hence the engine has tagged its path; tags that it supersedes go. What an aborted
        request computed is not tagged, so they stay.
        """
        entry = self._tags.get(lease.tag)
        if entry is None or entry.leases.pop(lease.lease_id, None) is None:
            return None, []
        self._changed[entry.tag] = None
        entry.ended_step, entry.ended_s, entry.final = lease.step_id, now_s, final
        close = [other.tag for other in self._older(entry) if self._release(other)] if finished else []
        if entry.leases:
            return None, close
        entry.move(TagMove.FREE)
        return (entry, close) if entry.state is TagState.IDLE else (None, [*close, entry.tag])

    def foretold(self, forecast: Forecast) -> list[OpenTag]:
        """Remember a forecast. The session's idle tags, whose deadlines it changes."""
        entries = [self._tags[tag] for tag in self._by_session.get(forecast.session, ())]
        for entry in entries:
            entry.forecast = forecast
        return [e for e in entries if e.state is TagState.IDLE and e.ended_step == forecast.step_id]

    def keep_until(self, tag: SessionTag, at_s: float) -> None:
        """Deadline of an idle tag and of those that it has not superseded yet; one that has passed already fires at
        the next `expire`."""
        entry = self._tags.get(tag)
        if entry is None or entry.state is not TagState.IDLE:
            return
        self._deadlines.set(tag, at_s)
        for older in self._older(entry):
            if older.state is TagState.IDLE:
                self._deadlines.set(older.tag, at_s)

    def release(self, session: SessionId) -> list[SessionTag]:
        """The session has no claim to its KV here."""
        return [tag for tag in self._by_session.get(session, ()) if self._release(self._tags[tag])]

    def expire(self, now_s: float) -> list[SessionTag]:
        """Idle tags whose deadline has come, and those that the engine could not be asked to close before."""
        due = self._deadlines.pop_due(now_s)
        for tag in due:
            self._tags[tag].move(TagMove.EXPIRE)
        return due

    def closed(self, tag: SessionTag) -> None:
        """The engine has closed it. A tag taken again meanwhile stays: its next request re-opens it there."""
        entry = self._tags.get(tag)
        if entry is not None and entry.state is TagState.CLOSING:
            self._forget(entry)

    def close_failed(self, tag: SessionTag, now_s: float) -> None:
        """The engine could not be asked: again in a moment, unless it was taken meanwhile."""
        entry = self._tags.get(tag)
        if entry is not None and entry.state is TagState.CLOSING:
            self._deadlines.set(tag, now_s + CLOSE_AGAIN_S)

    def clear(self) -> None:
        """The engine died, and all tags with it."""
        for entry in list(self._tags.values()):
            self._forget(entry)

    def take_changes(self) -> list[tuple[SessionTag, TagRecord | None]]:
        """What changed since the last call, for the journal; None: the tag is gone."""
        changes = []
        for tag in self._changed:
            entry = self._tags.get(tag)
            record = None if entry is None else TagRecord(tag, entry.session, tuple(entry.leases.values()))
            changes.append((tag, record))
        self._changed.clear()
        return changes

    def state_of(self, tag: SessionTag) -> TagState | None:
        """Where the tag is; None when it is not open."""
        entry = self._tags.get(tag)
        return None if entry is None else entry.state

    def leases_out(self) -> list[LeaseId]:
        """Leases that keep a tag from being closed."""
        return [lease_id for entry in self._tags.values() for lease_id in entry.leases]

    def idle(self, tag: SessionTag) -> OpenTag | None:
        """The tag, if no step of it runs."""
        entry = self._tags.get(tag)
        return entry if entry is not None and not entry.leases else None

    def of(self, session: SessionId) -> list[SessionTag]:
        """Its tags, in the order of their last steps."""
        return list(self._by_session.get(session, ()))

    def has(self, session: SessionId) -> bool:
        """Whether a tag of the session is open that nobody is closing."""
        return any(self._tags[tag].state is not TagState.CLOSING for tag in self._by_session.get(session, ()))

    def sessions(self) -> list[SessionId]:
        """Those with such a tag."""
        return [session for session in self._by_session if self.has(session)]

    @property
    def changed(self) -> bool:
        """Whether `take_changes` has something to tell."""
        return bool(self._changed)

    def not_before_s(self) -> float:
        """`expire` has nothing to do before this: a bound that costs nothing."""
        return self._deadlines.not_before_s()

    def next_s(self) -> float:
        """When `expire` has something to do."""
        return self._deadlines.next_s()

    def __len__(self) -> int:
        return len(self._tags)

    def check(self) -> None:
        """Raise AssertionError unless leases and states agree and each idle tag ends some day."""
        for tag, entry in self._tags.items():
            if bool(entry.leases) != (entry.state in (TagState.HELD, TagState.DOOMED)):
                raise AssertionError(f"tag {tag} is {entry.state.value} with {len(entry.leases)} leases")
            if entry.state is TagState.IDLE and self._deadlines.at_s(tag) == float("inf"):
                last = self._tags[next(reversed(self._by_session[entry.session]))]
                if last is entry or not last.leases:
                    raise AssertionError(f"idle tag {tag} never ends")
            if entry.leases and self._deadlines.at_s(tag) != float("inf"):
                raise AssertionError(f"tag {tag} may end while a lease of it is out")
        listed = {tag for tags in self._by_session.values() for tag in tags}
        if listed != set(self._tags) or not all(self._by_session.values()):
            raise AssertionError("tags by session disagree with the tags")

    def _older(self, entry: OpenTag) -> list[OpenTag]:
        """The session's tags whose last step began before this one's."""
        older = []
        for tag in self._by_session[entry.session]:
            if tag == entry.tag:
                break
            older.append(self._tags[tag])
        return older

    def _open(self, tag: SessionTag, session: SessionId) -> OpenTag:
        entry = self._tags[tag] = OpenTag(tag, session)
        self._by_session.setdefault(session, {})[tag] = None
        self._changed[tag] = None
        return entry

    def _forget(self, entry: OpenTag) -> None:
        del self._tags[entry.tag]
        self._deadlines.drop(entry.tag)
        self._changed[entry.tag] = None
        tags = self._by_session[entry.session]
        del tags[entry.tag]
        if not tags:
            del self._by_session[entry.session]

    def _release(self, entry: OpenTag) -> bool:
        """Whether the engine is to be asked now; one that is being asked is not asked twice."""
        asked = entry.state is TagState.CLOSING
        entry.move(TagMove.RELEASE)
        if asked or entry.state is not TagState.CLOSING:
            return False
        self._deadlines.drop(entry.tag)
        return True

    def _over_bound(self) -> list[SessionTag]:
        over = len(self._tags) - MAX_TAGS
        if over <= 0 or self._deadlines.next_s() == float("inf"):
            return []
        return self.expire(self._deadlines.next_s())
