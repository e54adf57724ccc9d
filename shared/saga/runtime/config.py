"""Settings of a service: environment variables to one frozen msgspec Struct, read once in `__main__`.

Strict on purpose: a misspelt name or a value that does not parse stops the start, names itself and lists what is
known. `nats_url`, `cell` and `log` are the same for every service: a Struct that has such a field gets SAGA_NATS_URL,
SAGA_CELL or SAGA_LOG. Lists are comma-separated.
"""

import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import msgspec

from saga.contract.subjects import CELL_NAME
from saga.runtime.errors import StartError

DEFAULT_NATS_URL = "nats://127.0.0.1:4222"
_SHARED = {"nats_url": "SAGA_NATS_URL", "cell": "SAGA_CELL", "log": "SAGA_LOG"}

SettingsT = TypeVar("SettingsT", bound=msgspec.Struct)


class Shared(msgspec.Struct, frozen=True, kw_only=True):
    """What every service is told."""

    nats_url: str = DEFAULT_NATS_URL  # the cell's NATS, with JetStream; of several nodes: all, comma-separated
    nats_user: str = ""  # the service's name where NATS has users, see saga.contract.permissions
    nats_password_file: Path | None = None  # its password; the file's first and only line
    nats_ca_file: Path | None = (
        None  # whom to believe that a server is ours; PEM. None: the system's, if it asks for TLS
    )
    nats_cert_file: Path | None = None  # what to show a server that asks, with its key; PEM
    nats_key_file: Path | None = None
    nats_replicas: typing.Annotated[int, msgspec.Meta(ge=1, le=5)] = 1  # of what JetStream keeps
    cell: str = "main"  # part of every subject
    log: typing.Literal["", "json", "pretty"] = ""  # empty: pretty on a terminal, else JSON
    log_level: typing.Literal["debug", "info", "warning", "error"] = "info"
    metrics_port: int = -1  # Prometheus text; 0: any free port; negative: none
    metrics_host: str = "127.0.0.1"  # where that listens
    record: Path | None = None  # folder for what the core is told and answers; none: nothing is recorded

    def __post_init__(self) -> None:
        """Raises ValueError naming the setting."""
        if not CELL_NAME.fullmatch(self.cell):
            raise ValueError(f"SAGA_CELL={self.cell!r}: expected {CELL_NAME.pattern}")


def load(settings: type[SettingsT], prefix: str, environ: Mapping[str, str] | None = None) -> SettingsT:
    """Reads `settings` from variables named prefix + FIELD. Raises StartError, see above."""
    environ = os.environ if environ is None else environ
    variables = {variable_of(field.name, prefix): field for field in msgspec.structs.fields(settings)}
    unknown = sorted(name for name in environ if name.startswith(prefix) and name not in variables)
    if unknown:
        raise StartError(f"unknown setting {unknown[0]}; known are {describe(settings, prefix)}")
    values = {}
    for name, field in variables.items():
        if name in environ:
            values[field.name] = _parse(name, environ[name], field.type, settings, prefix)
        elif field.required:
            raise StartError(f"{name} is not set, expected {_name_of(field.type)}")
    try:
        return settings(**values)
    except ValueError as error:  # a check of the Struct's own __post_init__
        raise StartError(f"{settings.__name__}: {error}") from error


def load_shared(environ: Mapping[str, str] | None = None) -> Shared:
    """Reads the settings every service shares. Raises StartError for a value that does not parse."""
    environ = os.environ if environ is None else environ
    known = {variable_of(name, "SAGA_") for name in Shared.__struct_fields__}
    return load(Shared, "SAGA_", {name: value for name, value in environ.items() if name in known})


def variable_of(field: str, prefix: str) -> str:
    """The environment variable behind a settings field."""
    return _SHARED.get(field) or prefix + field.upper()


def describe(settings: type[msgspec.Struct], prefix: str) -> str:
    """All settings with type and default, in one line."""
    return ", ".join(
        f"{variable_of(field.name, prefix)} ({_name_of(field.type)}{_default_of(field)})"
        for field in msgspec.structs.fields(settings)
    )


def _parse(variable: str, text: str, wanted: object, settings: type[msgspec.Struct], prefix: str) -> object:
    value: object = text.strip()
    if typing.get_origin(_plain(wanted)) in {tuple, list, set, frozenset}:
        value = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return msgspec.convert(value, wanted, strict=False, dec_hook=_to_path)
    except msgspec.ValidationError as error:
        known = describe(settings, prefix)
        raise StartError(
            f"{variable}={text!r}: expected {_name_of(wanted)} ({error}); known settings are {known}"
        ) from error


def _to_path(wanted: type, value: object) -> object:
    if wanted is Path:
        return Path(str(value))
    raise NotImplementedError(wanted)


def _plain(wanted: object) -> object:
    """The type without Annotated and without `| None`."""
    if typing.get_origin(wanted) is typing.Annotated:
        return _plain(typing.get_args(wanted)[0])
    if typing.get_origin(wanted) in {typing.Union, types.UnionType}:
        rest = [part for part in typing.get_args(wanted) if part is not type(None)]
        return _plain(rest[0]) if len(rest) == 1 else wanted
    return wanted


def _name_of(wanted: object) -> str:
    plain = _plain(wanted)
    if typing.get_origin(plain) is typing.Literal:
        return " | ".join(str(choice) for choice in typing.get_args(plain))
    if typing.get_origin(plain) in {tuple, list, set, frozenset}:
        return "comma-separated list"
    return getattr(plain, "__name__", str(plain))


def _default_of(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return ", required"
    default = field.default_factory() if field.default is msgspec.NODEFAULT else field.default
    return f", default {default}"
