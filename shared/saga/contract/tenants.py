"""What operators say of tenants and API keys: rows of JetStream KV, in JSON, written by `saga tenants` and `saga keys`.

Admission watches the one bucket, gateways the other. Rows are parsed strictly, since people write them too: what is
unknown, negative or no number is refused with its name, and the row before it goes on to hold.
"""

import math
import re
from typing import Final, TypeVar

import msgspec

from saga.contract.ids import TenantId
from saga.contract.unreadable import UNREADABLE

TERMS_BUCKET: Final = "tenants"  # a row each tenant, under its name
KEYS_BUCKET: Final = "keys"  # a row each API key, under its id
TENANT_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
KEY_ID: Final = re.compile(r"[0-9a-f]{12}")
MAX_QUOTA: Final = 10**15
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class BadRowError(ValueError):
    """These bytes are no row of that kind; the message says why, on one line."""


class TenantTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, gc=False):
    """A tenant's share and its hard quotas. None: no limit. Zero: nothing of the kind may be."""

    weight: float | None = None  # of its fair share; None: as SAGA_ADMISSION_WEIGHTS says, or 1
    active_workflows: int | None = None  # in the active set, or next in line for it
    running_steps: int | None = None  # admitted and not over
    waiting_steps: int | None = None  # accepted and not admitted
    kv_tokens: int | None = None  # of running steps, prompt and room for the answer, and of contexts kept for a return
    input_tokens_per_minute: int | None = None  # of prompts, cached or not, in any 60 s
    output_tokens_per_minute: int | None = None  # of answers, in any 60 s

    def __post_init__(self) -> None:
        """Raises ValueError naming the field and its value."""
        if self.weight is not None and not (math.isfinite(self.weight) and self.weight > 0):
            raise ValueError(f"weight={self.weight:g} must be positive")
        for name in QUOTAS:
            value = getattr(self, name)
            if value is not None and not 0 <= value <= MAX_QUOTA:
                raise ValueError(f"{name}={value} must be 0 or more, and at most {MAX_QUOTA}")

    def closed(self) -> str:
        """The quota that lets nothing run at all; empty: there is none. To forbid waiting is not to forbid running."""
        return next((name for name in QUOTAS if name != "waiting_steps" and getattr(self, name) == 0), "")

    @property
    def limits(self) -> dict[str, int]:
        """The quotas that are set."""
        return {name: value for name in QUOTAS if (value := getattr(self, name)) is not None}


QUOTAS: Final = tuple(name for name in TenantTerms.__struct_fields__ if name != "weight")
NO_TERMS: Final = TenantTerms()


class KeyRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """An API key at rest: whose it is, and its digest. The key itself is shown once, when it is made."""

    tenant: TenantId
    sha256: str  # of the whole key, in hexadecimal; keys are random, so that a slow hash would add nothing
    made_at: float = 0.0  # wall time, for display
    note: str = ""  # for people

    def __post_init__(self) -> None:
        """Raises ValueError naming the field."""
        check_tenant(self.tenant)
        if not _DIGEST.fullmatch(self.sha256):
            raise ValueError("sha256 must be 64 hexadecimal digits")


def check_tenant(name: str) -> TenantId:
    """The name, if a tenant may be called so. Raises ValueError that says what is allowed."""
    if not TENANT_NAME.fullmatch(name):
        raise ValueError(f"tenant name {name[:64]!r} must be 1 to 32 letters, digits, _ or -")
    return TenantId(name)


def write_row(row: TenantTerms | KeyRow) -> bytes:
    """The row as JSON."""
    return msgspec.json.encode(row)


def read_terms(row: bytes) -> TenantTerms:
    """The terms in a row. Raises BadRowError."""
    return _read(row, _terms)


def read_key(row: bytes) -> KeyRow:
    """The key in a row. Raises BadRowError."""
    return _read(row, _key)


Row = TypeVar("Row")
_terms = msgspec.json.Decoder(TenantTerms)
_key = msgspec.json.Decoder(KeyRow)


def _read(row: bytes, decoder: "msgspec.json.Decoder[Row]") -> Row:
    try:
        return decoder.decode(row)
    except UNREADABLE as error:
        raise BadRowError(str(error)) from None
