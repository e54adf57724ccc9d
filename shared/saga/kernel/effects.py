"""What a core may ask of its shell, and how it explains a choice.

A core is `handle(event) -> list[Effect]`. Shells (live services, the simulator) perform effects; cores never do.
"""

from typing import Generic, TypeAlias, TypeVar

import msgspec

from saga.contract.messages import Message

Choice_co = TypeVar("Choice_co", covariant=True)


class Publish(msgspec.Struct, frozen=True, gc=False):
    """Send at most once."""

    subject: str
    message: Message


class Append(msgspec.Struct, frozen=True, gc=False):
    """Send through the durable stream until acknowledged; `message_id` tells repetitions apart."""

    subject: str
    message: Message
    message_id: str


class Request(msgspec.Struct, frozen=True, gc=False):
    """Send and feed the answer back as an event; the core itself repeats it when none comes."""

    subject: str
    message: Message


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Answer the request that is being handled."""

    message: Message


class Persist(msgspec.Struct, frozen=True, gc=False):
    """Write this record behind: soon, not now. A later one under the same key replaces it."""

    key: str
    value: bytes


class Forget(msgspec.Struct, frozen=True, gc=False):
    """Delete the record."""

    key: str


class WakeAt(msgspec.Struct, frozen=True, gc=False):
    """Call again at this time of the core's clock, in seconds, with a Tick."""

    at_s: float


class Log(msgspec.Struct, frozen=True, gc=False):
    """One line for people: a dotted event name and its facts."""

    event: str
    facts: dict[str, str | int | float | bool] = {}


Effect: TypeAlias = Publish | Append | Request | Answer | Persist | Forget | WakeAt | Log


class Decision(msgspec.Struct, Generic[Choice_co], frozen=True, gc=False):
    """A choice with its reason, a word of a closed set."""

    choice: Choice_co
    reason: str


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Event: the time that the core asked for has come."""


class Promoted(msgspec.Struct, frozen=True, gc=False):
    """Event: this process leads now; every message of it carries the fence."""

    fence: int


class Demoted(msgspec.Struct, frozen=True, gc=False):
    """Event: another leads."""


class Received(msgspec.Struct, frozen=True, gc=False):
    """Event: a message from the bus."""

    message: Message


class Reconnected(msgspec.Struct, frozen=True, gc=False):
    """Event: the bus was away and is back. What was due meanwhile was not late: nobody could have said anything."""
