"""The server side of MemoryBus: subjects, queues, the step stream and buckets, in one process and deterministic.

Faults are a callable that sees each delivery and says how many copies arrive and when; without one, each connection
gets its messages in the order they were sent. Connections can be cut off and put back, as a network would.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from saga.runtime.kv_memory import MemoryBucket

if TYPE_CHECKING:
    from saga.runtime.bus_memory import MemoryBus, MemorySubscription


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message about to reach one subscriber."""

    subject: str
    payload: bytes
    source: str  # name of the sending connection
    target: str  # name of the receiving one


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a fault makes of a delivery."""

    copies: int = 1  # 0 drops it
    delay_s: float = 0.0  # later messages may overtake it


Fault: TypeAlias = Callable[[Delivery], Verdict]
Later: TypeAlias = Callable[[float, Callable[[], None]], object]
DELIVER = Verdict()


@dataclass(slots=True)
class Stored:
    """One message of the step stream."""

    sequence: int
    subject: str
    payload: bytes
    message_id: str
    at_s: float


class MemoryBroker:
    """What several MemoryBus of one test or simulation share."""

    def __init__(
        self, *, fault: Fault | None = None, now_s: Callable[[], float] = time.monotonic, later: Later | None = None
    ) -> None:
        """`later(delay_s, act)` runs delayed deliveries; by default the event loop does."""
        self.fault = fault
        self.dropped = 0
        self._now_s = now_s
        self._later = later
        self._subscriptions: list[MemorySubscription] = []
        self._turns: dict[tuple[str, str], int] = {}  # next member of a queue group
        self._stream: list[Stored] = []
        self._sequence = 0
        self._buckets: dict[str, MemoryBucket] = {}

    def bucket(self, name: str) -> MemoryBucket:
        """Creates on demand."""
        return self._buckets.setdefault(name, MemoryBucket())

    def add(self, subscription: "MemorySubscription") -> None:
        """Interest begins."""
        self._subscriptions.append(subscription)

    def remove(self, subscription: "MemorySubscription") -> None:
        """Interest ends."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def send(self, source: "MemoryBus", subject: str, payload: bytes, reply: str) -> int:
        """Delivers to all with interest, to one of each queue group; returns how many had interest."""
        targets: list[MemorySubscription] = []
        groups: dict[str, list[MemorySubscription]] = {}
        for subscription in self._subscriptions:
            if subscription.bus.connected and matches(subscription.subject, subject):
                if subscription.queue:
                    groups.setdefault(subscription.queue, []).append(subscription)
                else:
                    targets.append(subscription)
        for queue, members in groups.items():
            turn = self._turns.get((queue, members[0].subject), 0)
            self._turns[queue, members[0].subject] = turn + 1
            targets.append(members[turn % len(members)])
        for target in targets:
            self._deliver(target, source, subject, payload, reply)
        return len(targets)

    def store(self, subject: str, payload: bytes, message_id: str) -> int:
        """Appends to the step stream unless `message_id` is there already; returns its sequence."""
        for stored in reversed(self._stream):
            if stored.message_id == message_id:
                return stored.sequence
        self._sequence += 1
        self._stream.append(Stored(self._sequence, subject, payload, message_id, self._now_s()))
        return self._sequence

    def tail(self, subject_filter: str, since_s: float) -> list[Stored]:
        """What the step stream got in the last `since_s` seconds."""
        oldest_s = self._now_s() - since_s
        return [one for one in self._stream if one.at_s >= oldest_s and matches(subject_filter, one.subject)]

    def _deliver(
        self, target: "MemorySubscription", source: "MemoryBus", subject: str, payload: bytes, reply: str
    ) -> None:
        verdict = DELIVER
        if self.fault is not None:
            verdict = self.fault(Delivery(subject, payload, source.name, target.bus.name))
        if verdict.copies == 0:
            self.dropped += 1

        def put() -> None:
            for _ in range(verdict.copies):
                target.put(subject, payload, reply)

        if verdict.delay_s <= 0:
            put()
        elif self._later is not None:
            self._later(verdict.delay_s, put)
        else:
            asyncio.get_running_loop().call_later(verdict.delay_s, put)


def matches(pattern: str, subject: str) -> bool:
    """NATS subject matching: `*` is one token, `>` the rest."""
    if pattern == subject:
        return True
    wanted, parts = pattern.split("."), subject.split(".")
    for place, want in enumerate(wanted):
        if want == ">":
            return len(parts) > place
        if place >= len(parts) or want not in ("*", parts[place]):
            return False
    return len(wanted) == len(parts)
