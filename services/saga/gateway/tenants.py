"""API keys to tenants, from the text of a TOML file. Pure.

    [tenants.research]
    keys = ["sk-..."]

Without a file everything is tenant `default`, unsalted. With one, each tenant's KV has its own salt, so that tenants
share none.
"""

import hmac
import re
import tomllib
from typing import Final, Self

import msgspec

from saga.contract.errors import StartError
from saga.contract.ids import TenantId
from saga.gateway.api_errors import unauthorized

DEFAULT_TENANT: Final = TenantId("default")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Tenant(msgspec.Struct, frozen=True):
    """Who pays."""

    id: TenantId
    cache_salt: str = ""  # namespace of its KV; empty: shared


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[str]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tenants: dict[str, _Entry]


class Tenants:
    """Who may ask."""

    def __init__(self, keys: dict[str, Tenant] | None = None) -> None:
        """None: no file, so anybody, as tenant `default`."""
        self._keys = None if keys is None else [(key.encode(), tenant) for key, tenant in keys.items()]
        self._default = Tenant(DEFAULT_TENANT)

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return self._keys is None

    def of(self, authorization: str | None, api_key: str | None = None) -> Tenant:
        """The tenant behind an Authorization or, without one, an x-api-key header. Raises ApiError 401."""
        if self._keys is None:
            return self._default
        scheme, _, key = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            key = api_key or ""
        if not key.strip():
            raise unauthorized(given=False)
        given = key.strip().encode("utf-8", "replace")
        found: Tenant | None = None
        for known, tenant in self._keys:  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(known, given):
                found = tenant
        if found is None:
            raise unauthorized(given=True)
        return found

    def named(self, tenant_id: TenantId) -> Tenant | None:
        """The tenant of that name; None when there is none."""
        if self._keys is None:
            return self._default
        return next((tenant for _, tenant in self._keys if tenant.id == tenant_id), None)

    @classmethod
    def parse(cls, text: str, where: str) -> Self:
        """From the file's text. Raises StartError that names `where` and what is wrong."""
        try:
            file = msgspec.convert(tomllib.loads(text), _File)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise StartError(f'{where}: {error}; expected [tenants.NAME] with keys = ["..."]') from error
        keys: dict[str, Tenant] = {}
        for name, entry in file.tenants.items():
            if not _NAME.fullmatch(name):
                raise StartError(f"{where}: tenant name {name!r} must be 1 to 32 letters, digits, _ or -")
            for key in entry.keys:
                if not key.strip() or key in keys:
                    raise StartError(f"{where}: tenant {name} has an empty key, or one that another tenant has")
                keys[key] = Tenant(TenantId(name), cache_salt=name)
        if not keys:
            raise StartError(f"{where}: no keys in it, so nobody could ask anything")
        return cls(keys)
