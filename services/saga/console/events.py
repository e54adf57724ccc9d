"""What the console's core is told besides messages, and what it answers."""

from typing import TypeAlias

import msgspec

from saga.console.wire import Frame
from saga.contract.messages import AnyMessage
from saga.contract.tenant_messages import TenantUse
from saga.kernel.effects import Received, Tick


class Replayed(msgspec.Struct, frozen=True, gc=False):
    """A step end from before this console began. Its time is its own wall time."""

    message: AnyMessage


class TenantsTold(msgspec.Struct, frozen=True, gc=False):
    """What admission said of all tenants."""

    uses: tuple[TenantUse, ...]


class Watched(msgspec.Struct, frozen=True, gc=False):
    """Whether somebody looks: without, changes are not gathered."""

    by_anybody: bool


class FrameDue(msgspec.Struct, frozen=True, gc=False):
    """Time to say what has changed since the last frame."""


class FrameMade(msgspec.Struct, frozen=True, gc=False):
    """Effect: tell it to all who look."""

    frame: Frame


ConsoleEvent: TypeAlias = Received | Replayed | TenantsTold | Watched | FrameDue | Tick
