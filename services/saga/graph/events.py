"""What a graph core is told besides messages as they come: its own partitions, storage and the past. Data only."""

from typing import TypeAlias

import msgspec

from saga.contract.messages import Message
from saga.kernel.effects import Received, Tick


class Owned(msgspec.Struct, frozen=True):
    """Event: these partitions are ours now."""

    partitions: frozenset[int]


class Loaded(msgspec.Struct, frozen=True):
    """Event: a model from storage. Ignored when a newer one is here."""

    value: bytes


class Replayed(msgspec.Struct, frozen=True):
    """Event: a message from the past; it teaches, but when it came says nothing."""

    message: Message


class Settle(msgspec.Struct, frozen=True):
    """Event: the process ends; store everything of ours that is not stored yet."""


GraphEvent: TypeAlias = Received | Replayed | Loaded | Owned | Tick | Settle
