"""`saga keys`: API keys of tenants, made and revoked while the mesh runs. Only digests are stored."""

import argparse
import hashlib
import re
import secrets
import time
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.table import Table

from saga.cli.operating import (
    EXIT_USAGE,
    Cell,
    NotDoneError,
    UsageError,
    acting,
    print_json,
    refuse,
    takes_state_dir,
)
from saga.contract.tenants import KEY_ID, KEYS_BUCKET, BadRowError, KeyRow, check_tenant, read_key, write_row
from saga.runtime.errors import KvConflict

PREFIX: Final = "sk-saga-"
SECRET_BYTES: Final = 32
_KEY: Final = re.compile(rf"{PREFIX}({KEY_ID.pattern})-.*")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The flags of `saga keys`."""
    parser = commands.add_parser(
        "keys",
        help="API keys of tenants: create, list, revoke",
        description="For gateways with SAGA_GATEWAY_LIVE_KEYS=true (`saga up --live-keys`): changes hold at once.",
    )
    takes_state_dir(parser)
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    creating = actions.add_parser("create", help="make a key; it is shown once and stored nowhere")
    creating.add_argument("tenant", metavar="TENANT")
    creating.add_argument("--note", default="", metavar="TEXT", help="for people: whose it is, what for")
    creating.add_argument(
        "--hash-only", action="store_true", help="for a file of keys: store nothing, print key and digest"
    )
    creating.set_defaults(act=_create_main)
    listing = actions.add_parser("list", help="whose keys there are")
    listing.add_argument("--tenant", default="", metavar="T", help="only this tenant's")
    listing.add_argument("--json", action="store_true", help="for programs")
    listing.set_defaults(act=acting("keys", _list))
    revoking = actions.add_parser("revoke", help="nobody is let in by it from now on; what runs goes on")
    revoking.add_argument("ids", nargs="+", metavar="ID", help="as listed, or the key itself")
    revoking.set_defaults(act=acting("keys", _revoke))


def make_key() -> tuple[str, str]:
    """A new key, and its id."""
    key_id = secrets.token_hex(6)
    return f"{PREFIX}{key_id}-{secrets.token_urlsafe(SECRET_BYTES)}", key_id


def row_of(key: str, tenant: str, note: str = "") -> KeyRow:
    """What is stored of it. Raises UsageError for a tenant that cannot be."""
    try:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return KeyRow(tenant=check_tenant(tenant), sha256=digest, made_at=time.time(), note=note)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _create_main(flags: argparse.Namespace) -> int:
    if not flags.hash_only:
        return acting("keys", _create)(flags)

    key, _ = make_key()
    try:
        row = row_of(key, flags.tenant)
    except UsageError as error:
        return refuse("keys", str(error), EXIT_USAGE)
    print(f'{key}\n[tenants.{row.tenant}]\nsha256 = ["{row.sha256}"]')
    return 0


async def _create(flags: argparse.Namespace, cell: Cell, out: Console) -> None:
    del out  # the key goes to stdout as it is
    key, key_id = make_key()
    row = row_of(key, flags.tenant, flags.note)
    try:
        await (await cell.rows(KEYS_BUCKET)).create(key_id, write_row(row))
    except KvConflict:
        raise NotDoneError("another key has this id; try again") from None
    print(key)


async def _list(flags: argparse.Namespace, cell: Cell, out: Console) -> None:
    rows: dict[str, KeyRow | None] = {}
    for key_id, entry in (await (await cell.rows(KEYS_BUCKET)).items()).items():
        try:
            rows[key_id] = read_key(entry.value)
        except BadRowError:
            rows[key_id] = None
    known = {i: row for i, row in rows.items() if row is not None and flags.tenant in ("", row.tenant)}
    unreadable = sorted(key_id for key_id, row in rows.items() if row is None)
    if flags.json:
        print_json([{"id": i, "tenant": r.tenant, "made_at": r.made_at, "note": r.note} for i, r in known.items()])
        return
    if not known:
        out.print("No live keys" + (f" of {flags.tenant}." if flags.tenant else "."))
    else:
        table = Table("id", "tenant", "made", "note", box=None, pad_edge=False)
        for key_id, row in sorted(known.items(), key=lambda item: (item[1].tenant, item[1].made_at)):
            made = datetime.fromtimestamp(row.made_at, UTC).strftime("%Y-%m-%d %H:%M")
            table.add_row(key_id, row.tenant, made, row.note or "-")
        out.print(table)
    if unreadable:
        out.print(f"Unreadable, so nobody is let in by them: {', '.join(unreadable)}", soft_wrap=True)


async def _revoke(flags: argparse.Namespace, cell: Cell, out: Console) -> None:
    store = await cell.rows(KEYS_BUCKET)
    known = await store.items()
    ids = [found[1] if (found := _KEY.fullmatch(text)) else text for text in flags.ids]
    missing = [key_id for key_id in ids if key_id not in known]
    if missing:
        raise NotDoneError(f"no live key {', '.join(missing)}; nothing is revoked. `saga keys list` lists all")
    for key_id in ids:
        await store.delete(key_id)
        out.print(f"{key_id}: revoked")
