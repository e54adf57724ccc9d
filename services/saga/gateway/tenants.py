"""API keys to tenants: from the text of a TOML file, from rows of JetStream KV, or both. Pure.

    [tenants.research]
    sha256 = ["9f86d0..."]   # of the key; `saga keys create research --hash-only` makes one
    keys = ["sk-..."]        # in plain text: for trying things out

Only digests are kept. Without a file and without live keys everything is tenant `default`, unsalted. With either, each
tenant's KV has its own salt, so that tenants share none.
"""

import hashlib
import hmac
import tomllib
from typing import Final, Self

import msgspec

from saga.contract.errors import StartError
from saga.contract.ids import TenantId
from saga.contract.tenants import KeyRow, check_tenant
from saga.gateway.api_errors import unauthorized

DEFAULT_TENANT: Final = TenantId("default")
_FIND_BYTES: Final = 8  # of a digest, by which it is looked up


class Tenant(msgspec.Struct, frozen=True):
    """Who pays."""

    id: TenantId
    cache_salt: str = ""  # namespace of its KV; empty: shared


class _Entry(msgspec.Struct, forbid_unknown_fields=True):
    keys: list[str] = []
    sha256: list[str] = []


class _File(msgspec.Struct, forbid_unknown_fields=True):
    tenants: dict[str, _Entry]


class _Known(msgspec.Struct, frozen=True):
    digest: bytes
    tenant: Tenant


class Tenants:
    """Who may ask."""

    def __init__(self, keys: dict[bytes, TenantId] | None = None, *, live: bool = False) -> None:
        """`keys`: by SHA-256 digest; None: there is no file. `live`: keys come and go by `learn`. Neither: anybody may
        ask, as tenant `default`."""
        self._open = keys is None and not live
        self._default = Tenant(DEFAULT_TENANT)
        self._found: dict[bytes, list[_Known]] = {}
        self._rows: dict[str, _Known] = {}  # live ones, by their id
        self._counts: dict[TenantId, int] = {}  # keys of each tenant
        self.plain_keys = 0  # in the file
        for digest, tenant in (keys or {}).items():
            self._add(_Known(digest, Tenant(tenant, cache_salt=tenant)))

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return self._open

    @property
    def keys(self) -> int:
        """That anybody has."""
        return sum(self._counts.values())

    def of(self, authorization: str | None, api_key: str | None = None) -> Tenant:
        """The tenant behind an Authorization or, without one, an x-api-key header. Raises ApiError 401."""
        if self._open:
            return self._default
        scheme, _, key = (authorization or "").strip().partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            key = api_key or ""
        if not key.strip():
            raise unauthorized(given=False)
        given = digest_of(key.strip())
        found: Tenant | None = None
        # How long the look-up takes tells of the digest's beginning, which nobody can steer, and nothing of the key.
        for known in self._found.get(given[:_FIND_BYTES], ()):
            if hmac.compare_digest(known.digest, given):
                found = known.tenant
        if found is None:
            raise unauthorized(given=True)
        return found

    def named(self, tenant_id: TenantId) -> Tenant | None:
        """The tenant of that name; None when nobody has a key of it."""
        if self._open:
            return self._default
        return Tenant(tenant_id, cache_salt=tenant_id) if tenant_id in self._counts else None

    def learn(self, key_id: str, row: KeyRow | None) -> None:
        """A live key is there, or has changed, or is gone (None). Requests that are under way go on."""
        before = self._rows.pop(key_id, None)
        if before is not None:
            self._remove(before)
        if row is not None:
            known = self._rows[key_id] = _Known(bytes.fromhex(row.sha256), Tenant(row.tenant, cache_salt=row.tenant))
            self._add(known)

    def _add(self, known: _Known) -> None:
        self._found.setdefault(known.digest[:_FIND_BYTES], []).append(known)
        self._counts[known.tenant.id] = self._counts.get(known.tenant.id, 0) + 1

    def _remove(self, known: _Known) -> None:
        self._counts[known.tenant.id] -= 1
        if not self._counts[known.tenant.id]:
            del self._counts[known.tenant.id]
        others = self._found[known.digest[:_FIND_BYTES]]
        others.remove(known)
        if not others:
            del self._found[known.digest[:_FIND_BYTES]]

    @classmethod
    def parse(cls, text: str, where: str, *, live: bool = False) -> Self:
        """From the file's text. Raises StartError that names `where` and what is wrong."""
        try:
            file = msgspec.convert(tomllib.loads(text), _File)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise StartError(f'{where}: {error}; expected [tenants.NAME] with sha256 = ["..."]') from error
        digests: dict[bytes, TenantId] = {}
        plain_keys = 0
        for name, entry in file.tenants.items():
            try:
                tenant = check_tenant(name)
                rows = [KeyRow(tenant=tenant, sha256=digest) for digest in entry.sha256]
            except ValueError as error:
                raise StartError(f"{where}: {error}") from None
            plain_keys += len(entry.keys)
            for digest in [digest_of(key.strip()) for key in entry.keys] + [bytes.fromhex(r.sha256) for r in rows]:
                if digest in digests or digest == digest_of(""):
                    raise StartError(f"{where}: tenant {name} has an empty key, or one that is there already")
                digests[digest] = tenant
        if not digests and not live:
            raise StartError(f"{where}: no keys in it, so nobody could ask anything")
        tenants = cls(digests, live=live)
        tenants.plain_keys = plain_keys
        return tenants


def digest_of(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
