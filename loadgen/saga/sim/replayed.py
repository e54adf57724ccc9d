"""Recorded events to a fresh core: does it answer now what it answered then?

Reads what a live service wrote under SAGA_RECORD (`saga.runtime.recording`). Nothing is sent and no time passes: each
event comes with the time at which it came. Called by `replay_cli` and by the parity tests.
"""

import gzip
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from saga.admission import making as admission
from saga.contract.errors import StartError
from saga.contract.unreadable import UNREADABLE
from saga.gateway import making as gateway
from saga.graph import making as graph
from saga.kernel.record import (
    Entry,
    Events,
    Header,
    RecordError,
    decode_effects,
    encode_effects,
    read_entry,
    read_frames,
    read_header,
    same_effects,
)
from saga.placement import making as placement
from saga.worker import making as worker


class Moment(msgspec.Struct, frozen=True):
    """One event with what was answered. Effects are (class, fields), with messages as mappings."""

    number: int
    now_s: float
    event: Any
    effects: list[tuple[str, Any]]


class Difference(msgspec.Struct, frozen=True):
    """The first event that a fresh core answers otherwise."""

    then: Moment
    again: list[tuple[str, Any]]


class Verdict(msgspec.Struct, frozen=True):
    """What came of replaying one recording, up to its end or the first difference."""

    service: str
    name: str
    events: int
    effects: int
    seconds: float  # from the first event to the last, on the core's clock
    difference: Difference | None


def replay(path: Path, told: Callable[[Moment], None] | None = None) -> Verdict:
    """Feed a recording to a fresh core. `told` hears every event. Raises RecordError, OSError."""
    header, entries = read_recording(path)
    core, events = fresh_core(header.service, header.making)
    count = effects_count = 0
    first_s = now_s = -1.0
    difference = None
    for entry in entries:
        event = events.of(entry)
        now_s = entry.now_s
        first_s = now_s if count == 0 else first_s
        recorded = bytes(entry.effects)
        again = encode_effects(core.handle(event, now_s))
        count += 1
        same = same_effects(recorded, again)
        effects = decode_effects(recorded) if told is not None or not same else []
        moment = Moment(count, now_s, event, effects)
        if told is not None:
            told(moment)
        if not same:
            difference = Difference(moment, decode_effects(again))
            break
        effects_count += _length(recorded)
    return Verdict(header.service, header.name, count, effects_count, now_s - first_s, difference)


def read_recording(path: Path) -> tuple[Header, Iterator[Entry]]:
    """What a file holds, without feeding it to anybody. Raises RecordError, OSError."""
    frames = read_frames(_Unzipped(path))
    first = next(frames, None)
    if first is None:
        raise RecordError(f"{path}: empty, or cut short within its first second")
    return read_header(first), (read_entry(frame) for frame in frames)


def fresh_core(service: str, making: msgspec.Raw) -> tuple[Any, Events]:
    """A core as it was made then, and the events that it knows. Raises RecordError."""
    try:
        match service:
            case "admission":
                return admission.make_core(_made(making, admission.Making)), Events(admission.EVENTS)
            case "placement":
                return placement.make_core(_made(making, placement.Making)), Events(placement.EVENTS)
            case "graph":
                return graph.make_core(_made(making, graph.Making)), Events(graph.EVENTS)
            case "gateway":
                return gateway.make_core(_made(making, gateway.Making)), Events(gateway.EVENTS)
            case "worker":
                return worker.make_core(_made(making, worker.Making)), Events(worker.EVENTS)
    except (*UNREADABLE, StartError, KeyError) as error:
        raise RecordError(f"the {service} of this recording cannot be made any more: {error}") from error
    raise RecordError(f"a recording of {service!r}, which is no service of ours")


def _made(making: msgspec.Raw, kind: type[Any]) -> Any:  # noqa: ANN401 - each service has its own
    return msgspec.msgpack.decode(making, type=kind)


def _length(effects: bytes) -> int:
    return len(decode_effects(effects))


class _Unzipped:
    """A recording's bytes; a last part that was cut short is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begun = False
        self._file = gzip.open(path)  # noqa: SIM115 - closed with the last reference: a reader may stop anywhere

    def read(self, size: int, /) -> bytes:
        """As Source. Raises RecordError for what was never one of ours."""
        try:
            data = self._file.read(size)
        except EOFError:
            return b""
        except (gzip.BadGzipFile, zlib.error) as error:
            if self._begun and isinstance(error, gzip.BadGzipFile):
                return b""  # cut within the first bytes of a part
            raise RecordError(f"{self._path}: {error}") from None
        self._begun = True
        return data
