"""`saga nats-users`: users of a cell's NATS, one for each service, as a part of a nats-server's configuration."""

import argparse
import os
import secrets
import sys
from pathlib import Path

from saga.contract.permissions import ROLES, allowed
from saga.contract.subjects import CELL_NAME

_INDENT = "    "


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The flags of `saga nats-users`."""
    parser = commands.add_parser(
        "nats-users",
        help="users and permissions for the cell's NATS",
        description="Prints an `authorization` block for a nats-server's configuration: a user for each service, with "
        "the subjects that it needs. Passwords are read by the server from its environment.",
    )
    parser.add_argument(
        "--into", type=Path, metavar="DIR", help="write users.conf, new passwords (ROLE.password) and nats.env there"
    )
    parser.add_argument("--cell", default=os.environ.get("SAGA_CELL", "main"), metavar="NAME", help="default main")
    parser.set_defaults(act=_act)


def _act(flags: argparse.Namespace) -> int:
    if not CELL_NAME.fullmatch(flags.cell):
        print(f"saga nats-users: {flags.cell!r} is no name of a cell: {CELL_NAME.pattern}", file=sys.stderr)
        return 2
    if flags.into is None:
        print(configuration(flags.cell))
        return 0
    try:
        _write(flags.into, flags.cell)
    except OSError as error:
        print(f"saga nats-users: {error}", file=sys.stderr)
        return 2
    print(f"Written to {flags.into}: users.conf, nats.env, {', '.join(f'{role}.password' for role in ROLES)}")
    return 0


def _write(folder: Path, cell: str) -> None:
    """Makes a folder that nobody else may enter. Raises OSError, also when the folder is there already: new passwords
    would lock out whoever runs with the old ones. Files in it may be read by all, since a container's user has to."""
    folder.mkdir(mode=0o700, parents=True)
    (folder / "users.conf").write_text(configuration(cell) + "\n")
    passwords = {role: secrets.token_urlsafe(32) for role in ROLES}
    for role, password in passwords.items():
        (folder / f"{role}.password").write_text(password + "\n")
    lines = (f"{password_variable(role)}={password}\n" for role, password in passwords.items())
    (folder / "nats.env").write_text("".join(lines))


def configuration(cell: str) -> str:
    """The block. Passwords are variables, so that it holds no secret: SAGA_NATS_<ROLE>_PASSWORD."""
    users = "\n".join(_user(role, cell) for role in ROLES)
    return (
        f"# Users of cell {cell}, made by `saga nats-users --cell {cell}`. The server reads passwords from its own\n"
        f"# environment: {', '.join(password_variable(role) for role in ROLES)}.\n"
        f"authorization {{\n  users: [\n{users}\n  ]\n}}"
    )


def password_variable(role: str) -> str:
    """The environment variable of nats-server that holds this role's password, or a bcrypt hash of it."""
    return f"SAGA_NATS_{role.upper()}_PASSWORD"


def _user(role: str, cell: str) -> str:
    may = allowed(role, cell)
    return (
        f"{_INDENT}{{\n{_INDENT}  user: {role}\n{_INDENT}  password: ${password_variable(role)}\n"
        f"{_INDENT}  permissions: {{\n"
        f"{_list('publish', may.publish)}{_list('subscribe', may.subscribe)}"
        f"{_INDENT}    allow_responses: true\n{_INDENT}  }}\n{_INDENT}}}"
    )


def _list(name: str, subjects: tuple[str, ...]) -> str:
    lines = "".join(f'{_INDENT}      "{subject}"\n' for subject in subjects)
    return f"{_INDENT}    {name}: [\n{lines}{_INDENT}    ]\n"
