"""Who a process is to NATS, and whom it believes: user and password, TLS. From the settings every service shares."""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import nats.errors

from saga.contract.permissions import inbox_of
from saga.runtime.config import Shared
from saga.runtime.errors import StartError


class NatsAccess(msgspec.Struct, frozen=True):
    """How to connect. Nothing given: as anybody, and TLS only if the server asks for it, with the system's CAs."""

    user: str = ""
    password: str = ""
    tls: ssl.SSLContext | None = None

    def options(self) -> dict[str, Any]:
        """For nats-py's `connect`. A user has an inbox of its own, which its permissions name."""
        given: dict[str, Any] = {}
        if self.user:
            given |= {"user": self.user, "password": self.password, "inbox_prefix": inbox_of(self.user).encode()}
        if self.tls is not None:
            given["tls"] = self.tls
        return given


ANYBODY = NatsAccess()


def access_of(shared: Shared) -> NatsAccess:
    """Reads what the settings point to. Raises StartError naming the setting."""
    if bool(shared.nats_user) != (shared.nats_password_file is not None):
        raise StartError("SAGA_NATS_USER and SAGA_NATS_PASSWORD_FILE go together: one of them is not set")
    password = "" if shared.nats_password_file is None else _password(shared.nats_password_file)
    return NatsAccess(shared.nats_user, password, _tls(shared))


def why_not(url: str, user: str, errors: Sequence[Exception]) -> str:
    """Why there is no connection, and what to do, in one line. `errors`: of all attempts; a server that refuses a user
    resets the connection, too, and either may be seen last."""
    for error in errors:
        if isinstance(error, nats.errors.AuthorizationError) or "authorization" in str(error).lower():
            who = f"user {user!r}" if user else "whoever has no user"
            return f"NATS at {url} refuses {who}: see SAGA_NATS_USER and SAGA_NATS_PASSWORD_FILE"
        if isinstance(error, ssl.SSLError | nats.errors.SecureConnRequiredError | nats.errors.SecureConnWantedError):
            return f"NATS at {url}: no TLS between us ({error}): see SAGA_NATS_CA_FILE, SAGA_NATS_CERT_FILE"
    return (
        f"NATS is not reachable at {url}: start it there, set SAGA_NATS_URL to where it runs, "
        "or unset SAGA_NATS_URL and let `saga up` start one"
    )


def _password(file: Path) -> str:
    try:
        password = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"SAGA_NATS_PASSWORD_FILE={str(file)!r}: {error}") from error
    if not password:
        raise StartError(f"SAGA_NATS_PASSWORD_FILE={str(file)!r} is empty")
    return password


def _tls(shared: Shared) -> ssl.SSLContext | None:
    if bool(shared.nats_cert_file) != bool(shared.nats_key_file):
        raise StartError("SAGA_NATS_CERT_FILE and SAGA_NATS_KEY_FILE go together: one of them is not set")
    if shared.nats_ca_file is None and shared.nats_cert_file is None:
        return None
    try:
        context = ssl.create_default_context(cafile=shared.nats_ca_file)
        if shared.nats_cert_file is not None:
            context.load_cert_chain(shared.nats_cert_file, shared.nats_key_file)
    except (OSError, ssl.SSLError) as error:
        files = (shared.nats_ca_file, shared.nats_cert_file, shared.nats_key_file)
        raise StartError(f"TLS of NATS, {', '.join(str(file) for file in files if file)}: {error}") from error
    return context
