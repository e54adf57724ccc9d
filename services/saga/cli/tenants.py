"""`saga tenants`: weights and quotas of tenants, changed while the mesh runs, and what each tenant uses now."""

import argparse
from typing import Final

import msgspec
from rich.console import Console
from rich.table import Table

from saga.cli.asking import uses_of
from saga.cli.operating import Cell, NotDoneError, UsageError, acting, print_json, takes_state_dir
from saga.contract.tenants import (
    KEYS_BUCKET,
    QUOTAS,
    TERMS_BUCKET,
    BadRowError,
    TenantTerms,
    check_tenant,
    read_key,
    read_terms,
    write_row,
)
from saga.runtime.bus import Entry
from saga.runtime.errors import KvConflict

NO_LIMIT: Final = "none"
TRIES: Final = 5  # to change a row that others change, too


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The flags of `saga tenants`."""
    parser = commands.add_parser(
        "tenants",
        help="weights and quotas of tenants: list, set, usage, remove",
        description="Changes hold from the next moment on, in the whole cell. What runs is never cut.",
    )
    takes_state_dir(parser)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="what was set")
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.set_defaults(act=acting("tenants", _list))
    setting = actions.add_parser(
        "set",
        help="set a weight or quotas; what is not named stays",
        description=f"NAME=VALUE of weight (positive) and {', '.join(QUOTAS)} (0: nothing; {NO_LIMIT}: no limit).",
    )
    setting.add_argument("tenant", metavar="TENANT")
    setting.add_argument("values", nargs="+", metavar="NAME=VALUE")
    setting.set_defaults(act=acting("tenants", _set))
    usage = actions.add_parser("usage", help="what is used now, against what may be")
    usage.add_argument("tenant", nargs="?", default="", metavar="TENANT", help="only this one")
    usage.add_argument("--json", action="store_true", help="for programs")
    usage.set_defaults(act=acting("tenants", _usage))
    removing = actions.add_parser(
        "remove",
        help="forget weight and quotas, revoke the tenant's live keys",
        description="Keys in a file stay: take them out of the file. What runs goes on to its end.",
    )
    removing.add_argument("tenant", metavar="TENANT")
    removing.set_defaults(act=acting("tenants", _remove))


async def _list(flags: argparse.Namespace, cell: Cell, out: Console) -> None:
    entries = await (await cell.rows(TERMS_BUCKET)).items()
    rows = {tenant: _shown(entry) for tenant, entry in sorted(entries.items())}
    if flags.json:
        print_json({tenant: {"unreadable": row} if isinstance(row, str) else row for tenant, row in rows.items()})
        return
    if not rows:
        out.print("Nothing is set: every tenant has weight 1, or SAGA_ADMISSION_WEIGHTS', and no quotas.")
        return
    table = Table("tenant", "weight", "quotas", box=None, pad_edge=False)
    for tenant, terms in rows.items():
        if isinstance(terms, str):
            table.add_row(tenant, "?", f"unreadable, what was set before holds: {terms}")
            continue
        limits = "  ".join(f"{name}={value}" for name, value in terms.limits.items())
        table.add_row(tenant, "-" if terms.weight is None else f"{terms.weight:g}", limits or "-")
    out.print(table)


async def _set(flags: argparse.Namespace, cell: Cell, out: Console) -> None:
    tenant, changes = _tenant(flags.tenant), dict(map(_change, flags.values))
    store = await cell.rows(TERMS_BUCKET)
    for _ in range(TRIES):
        entry = await store.get(tenant)
        before = TenantTerms() if entry is None else _read(tenant, entry)
        try:
            terms = msgspec.convert(msgspec.structs.asdict(before) | changes, TenantTerms)
        except msgspec.ValidationError as error:
            raise UsageError(str(error)) from None
        try:
            if entry is None:
                await store.create(tenant, write_row(terms))
            else:
                await store.update(tenant, write_row(terms), entry.revision)
        except KvConflict:  # somebody else changed it meanwhile: change theirs
            continue
        out.print(f"{tenant}: " + (_told(terms) or "weight and quotas as if nothing was set"), soft_wrap=True)
        return
    raise NotDoneError(f"{tenant} is being changed by others all the time; try again")


async def _usage(flags: argparse.Namespace, cell: Cell, out: Console) -> None:
    used = await uses_of(cell, flags.tenant)
    if flags.json:
        print_json(used)
        return
    if not used:
        out.print(f"Nothing is known of {flags.tenant}." if flags.tenant else "No tenant uses anything.")
        return
    heads = ("active workflows", "running steps", "waiting", "KV tokens", "input/min", "output/min")
    table = Table("tenant", "weight", *heads, "workflows", "held for", "refused", box=None, pad_edge=False)
    for use in used:
        cells = [_against(getattr(use, name), getattr(use.terms, name)) for name in QUOTAS]
        known, refused = f"{use.known_workflows:,}", f"{use.refused_steps:,}"
        table.add_row(use.tenant, f"{use.weight:g}", *cells, known, use.held_for or "-", refused)
    out.print(table)


async def _remove(flags: argparse.Namespace, cell: Cell, out: Console) -> None:
    tenant = _tenant(flags.tenant)
    keys, terms = await cell.rows(KEYS_BUCKET), await cell.rows(TERMS_BUCKET)
    revoked = 0
    for key_id, entry in (await keys.items()).items():
        try:
            row = read_key(entry.value)
        except BadRowError:
            continue
        if row.tenant == tenant:
            await keys.delete(key_id)
            revoked += 1
    known = await terms.get(tenant) is not None
    if not known and not revoked:
        raise NotDoneError(f"nothing is set for {tenant}, and it has no live keys")
    await terms.delete(tenant)
    out.print(f"{tenant}: {revoked} keys revoked, weight and quotas forgotten. What runs goes on to its end.")


def _tenant(name: str) -> str:
    try:
        return check_tenant(name)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _change(text: str) -> tuple[str, int | float | None]:
    name, equals, value = text.partition("=")
    if not equals or name not in ("weight", *QUOTAS):
        raise UsageError(f"{text!r} is not NAME=VALUE; names are weight, {', '.join(QUOTAS)}")
    if value == NO_LIMIT:
        return name, None
    try:
        return name, float(value) if name == "weight" else int(value)
    except ValueError:
        wanted = "a number" if name == "weight" else "a whole number"
        raise UsageError(f"{name}={value!r} must be {wanted}, or {NO_LIMIT}") from None


def _read(tenant: str, entry: Entry) -> TenantTerms:
    try:
        return read_terms(entry.value)
    except BadRowError as error:
        raise NotDoneError(
            f"the row of {tenant} cannot be read ({error}); `saga tenants remove {tenant}`, then set it again"
        ) from None


def _shown(entry: Entry) -> TenantTerms | str:
    """The row, or why it cannot be read."""
    try:
        return read_terms(entry.value)
    except BadRowError as error:
        return str(error)


def _told(terms: TenantTerms) -> str:
    said = {} if terms.weight is None else {"weight": f"{terms.weight:g}"}
    return "  ".join(f"{name}={value}" for name, value in (said | terms.limits).items())


def _against(used: int, limit: int | None) -> str:
    return f"{used:,}" if limit is None else f"{used:,} / {limit:,}"
