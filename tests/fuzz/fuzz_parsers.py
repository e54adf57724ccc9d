"""Every parser at the edge beside HTTP bodies, given inputs that went wrong, and what must hold for each.

An input is a function of (parser, seed, number). A parser may take it or refuse it with its own type of error, within
MAX_CPU_S and without holding on to much memory; anything else is a finding.
"""

import gc
import gzip
import io
import resource
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import fuzz_bytes
import fuzz_seeds
import structlog
from model_folder import TEMPLATE

from saga.admission.making import EVENTS
from saga.admission.records import load
from saga.contract.messages import encode
from saga.contract.tenants import BadRowError, read_key, read_terms
from saga.gateway.chat_template import BadTemplateError, ChatTemplate, RenderError
from saga.gateway.prompt_tokens import model_tokenizer
from saga.gateway.vocabulary import BadVocabularyError
from saga.graph.storing import decode_model
from saga.kernel.record import Events, RecordError, encode_effects, read_entry, read_frames, read_header, same_effects
from saga.load.traces.files import FORMATS, read_sessions
from saga.load.traces.session import FormatName, TraceError
from saga.runtime.bus import pack, unpack
from saga.worker.journal import Journal
from saga.worker.zmq_events import events_of, numbered

MAX_CPU_S: Final = 1.0  # for one input of at most 1 MiB; nearly all take less than 1 ms
MAX_GROWTH_MIB: Final = 64  # of the most memory ever resident, by one input
_UNTOUCHED_SHARE: Final = 0.01  # of inputs, to see that valid ones are taken


class Parser(NamedTuple):
    """One parser, what it is given, and how it may refuse."""

    seeds: list[bytes]
    mutation: fuzz_bytes.Mutation
    parse: Callable[[bytes], bool]  # whether it took it
    refuses_by: tuple[type[Exception], ...]
    share: int  # of inputs, in parts


class Finding(NamedTuple):
    """What must not be."""

    parser: str
    number: int
    problem: str
    data: bytes


class Told(NamedTuple):
    """What came of a run."""

    taken: dict[str, int]
    refused: dict[str, int]
    slowest_s: dict[str, float]
    findings: list[Finding]


def parsers(folder: Path) -> dict[str, Parser]:
    """All of them by name. Trace files are written to `folder`."""
    pack_, json_ = fuzz_bytes.message_pack, fuzz_bytes.json
    found = {
        "bus message": Parser(fuzz_seeds.bus_messages(), pack_, _bus, (), 32),
        "KV events": Parser(fuzz_seeds.kv_events(), pack_, _kv_events, (), 20),
        "tenant row": Parser(fuzz_seeds.tenant_rows(), json_, _does(read_terms), (BadRowError,), 6),
        "key row": Parser(fuzz_seeds.key_rows(), json_, _does(read_key), (BadRowError,), 6),
        "workflow row": Parser(fuzz_seeds.workflow_rows(), pack_, lambda data: load(data) is not None, (), 6),
        "graph model": Parser(fuzz_seeds.graph_models(), pack_, lambda data: decode_model(data) is not None, (), 6),
        "journal": Parser(fuzz_seeds.journals(), fuzz_bytes.journal, _journal, (), 4),
        "recording": Parser(fuzz_seeds.recordings(), fuzz_bytes.framed, _recording, (RecordError,), 6),
        "channel": Parser(fuzz_seeds.rings(), fuzz_bytes.raw, _ring, (ValueError,), 3),
        "model files": Parser(
            fuzz_seeds.model_files(), fuzz_bytes.json_lines, _model, (BadTemplateError, BadVocabularyError), 1
        ),
        "chat template": Parser([TEMPLATE.encode()], fuzz_bytes.raw, _template, (BadTemplateError, RenderError), 1),
    }
    seeds = fuzz_seeds.traces()
    for name in FORMATS:
        mutation = fuzz_bytes.rows if name == "tracelab" else fuzz_bytes.json_lines
        found[f"trace: {name}"] = Parser(seeds[name], mutation, _trace(folder, name), (TraceError,), 2)
    return found


def quiet() -> None:
    """Refusals are logged as warnings: a million of them are not worth the time."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=False)


def run(seed: int, inputs: int, folder: Path, only: str = "") -> Told:
    """So many inputs, spread over the parsers by their shares."""
    known = {name: parser for name, parser in parsers(folder).items() if not only or name == only}
    shares = sum(parser.share for parser in known.values())
    told = Told({}, {}, {}, [])
    for name, parser in known.items():
        taken = refused = 0
        slowest_s = 0.0
        for number in range(-(-inputs * parser.share // shares)):
            data = one_input(parser, name, seed, number)
            peak_mib, begun_s = _peak_mib(), time.thread_time()
            try:
                if parser.parse(data):
                    taken += 1
                else:
                    refused += 1
            except parser.refuses_by:
                refused += 1
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                told.findings.append(Finding(name, number, f"{type(error).__name__}: {error}"[:300], data))
            took_s = time.thread_time() - begun_s
            slowest_s = max(slowest_s, took_s)
            if took_s > MAX_CPU_S:
                told.findings.append(Finding(name, number, f"took {took_s:.2f} s", data))
            if (grown := _peak_mib() - peak_mib) > MAX_GROWTH_MIB:
                told.findings.append(Finding(name, number, f"took {grown:.0f} MiB", data))
        told.taken[name], told.refused[name], told.slowest_s[name] = taken, refused, slowest_s
        gc.collect()
    return told


def one_input(parser: Parser, name: str, seed: int, number: int) -> bytes:
    """Input `number`: a valid one with something wrong, now and then with nothing wrong."""
    random = Random(f"{name}/{seed}/{number}")
    valid = random.choice(parser.seeds)
    return valid if random.random() < _UNTOUCHED_SHARE else parser.mutation(random, valid)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _does(read: Callable[[bytes], object]) -> Callable[[bytes], bool]:
    def parse(data: bytes) -> bool:
        read(data)
        return True

    return parse


def _bus(data: bytes) -> bool:
    message = unpack("fuzz", data)
    if message is None:
        return False
    if len(data) < fuzz_bytes.MAX_BYTES // 2:
        pack("fuzz", message)  # who can read it can pass it on
    else:
        encode(message)
    return True


def _kv_events(data: bytes) -> bool:
    message = numbered([b"", bytes(8), data])
    return message is not None and events_of(message[1]) is not None


def _journal(data: bytes) -> bool:
    journal = Journal(data)
    return bool(journal.records()) or not journal.anew()


def _recording(data: bytes) -> bool:
    frames: Iterator[bytes] = read_frames(io.BytesIO(data))
    first = next(frames, None)
    if first is None:
        return False
    read_header(first)
    events = Events(EVENTS)
    for frame in frames:
        entry = read_entry(frame)
        events.of(entry)
        same_effects(bytes(entry.effects), encode_effects([]))
    return True


def _ring(data: bytes) -> bool:
    reader = fuzz_seeds.ring.RingReader(memoryview(data), max_values=100)
    reader.read()
    reader.beat_s()
    return True


def _trace(folder: Path, file_format: FormatName) -> Callable[[bytes], bool]:
    plain, zipped = folder / "trace.jsonl", folder / "trace.jsonl.gz"

    def parse(data: bytes) -> bool:
        asked = zlib.crc32(data)  # how it is asked is a function of the input, too
        path = zipped if asked % 16 == 1 else plain
        if path is zipped:
            data = gzip.compress(data, 1, mtime=0)
            data = data[: len(data) - asked // 16 % 32]
        path.write_bytes(data)
        read_sessions(path, skip_bad=asked % 3 == 0, file_format=None if asked % 4 == 0 else file_format)
        return True

    return parse


def _model(data: bytes) -> bool:
    lines = [line.decode("utf-8", "replace") for line in data.split(b"\n")] + ["", ""]
    model_tokenizer(lines[0], lines[1], None, lambda: 0.0)  # what a model's own rules do to text is not bounded by us
    return True


def _template(data: bytes) -> bool:
    template = ChatTemplate(data.decode("utf-8", "replace"), {"bos_token": "<|bos|>"}, lambda: 0.0)
    template.render([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}], None, {})
    return True
