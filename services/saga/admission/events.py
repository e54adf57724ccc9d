"""What an admission core is told beside messages from the bus and what every core is told (`kernel/effects.py`)."""

from typing import TypeAlias

import msgspec

from saga.contract.ids import TenantId
from saga.contract.tenants import TenantTerms
from saga.kernel.effects import Demoted, Promoted, Received, Reconnected, Tick


class Loaded(msgspec.Struct, frozen=True, gc=False):
    """Rows of the workflow table, read by a new leader before it is promoted."""

    rows: tuple[bytes, ...]


class TenantChanged(msgspec.Struct, frozen=True, gc=False):
    """What an operator says of a tenant, now or before this process began. None: nothing any more."""

    tenant: TenantId
    terms: TenantTerms | None


AdmissionEvent: TypeAlias = Received | Tick | Promoted | Demoted | Reconnected | Loaded | TenantChanged
