"""Parsers at the edge beside HTTP: broken input is refused by each in its own way, and never breaks one."""

import io

import fuzz_seeds
import msgspec
import pytest
import structlog
from fuzz_parsers import MAX_CPU_S, one_input, parsers, quiet, run

from saga.admission.records import load
from saga.contract.errors import MessageError
from saga.contract.messages import decode
from saga.graph.storing import decode_model
from saga.kernel.record import READ_BYTES, RecordError, read_entry, read_frames, read_header
from saga.load.traces.files import read_sessions
from saga.load.traces.session import TraceError
from saga.worker.zmq_events import events_of

INPUTS = 12_000


@pytest.fixture(autouse=True)
def _quiet():
    before = structlog.get_config()
    quiet()
    yield
    structlog.configure(**before)


def test_thousands_of_broken_inputs_are_taken_or_refused_by_each_parser(tmp_path):
    told = run(7, INPUTS, tmp_path)
    assert [(found.parser, found.number, found.problem) for found in told.findings] == []
    assert sum(told.taken.values()) + sum(told.refused.values()) >= INPUTS
    assert all(told.taken.values())  # mutations leave something to take in everywhere
    assert all(count for name, count in told.refused.items() if name != "journal")  # which leaves bad lines out
    assert max(told.slowest_s.values()) < MAX_CPU_S


def test_every_parser_takes_what_it_is_seeded_with(tmp_path):
    for name, parser in parsers(tmp_path).items():
        assert all(map(parser.parse, parser.seeds)), name


def test_an_input_depends_on_its_seed_and_number_only(tmp_path):
    for name, parser in parsers(tmp_path).items():
        again = parsers(tmp_path)[name]
        same = [one_input(parser, name, 3, number) for number in range(20)]
        assert same == [one_input(again, name, 3, number) for number in range(20)]
        assert same != [one_input(again, name, 4, number) for number in range(20)]


def test_a_string_that_is_no_utf8_is_a_message_error():
    refused = 0
    for message in fuzz_seeds.bus_messages():
        for byte in range(len(message)):
            broken = message[:byte] + b"\xff" + message[byte + 1 :]
            try:
                decode(broken)
            except MessageError:
                refused += 1
    assert refused > 1_000


def test_nesting_without_end_is_a_message_error():
    deep = b"\x82\xa4type\xa4Tick\xa1x" + b"\x91" * 100_000
    with pytest.raises(MessageError):
        decode(deep)


def test_kv_events_with_a_session_id_that_is_no_utf8_are_refused():
    (batch, *_) = fuzz_seeds.kv_events()
    assert events_of(batch) is not None
    assert events_of(batch.replace(b"acme/fix~1", b"acme/fix\xff1")) is None


def test_a_workflow_row_that_is_none_keeps_no_leader_from_leading():
    (row,) = fuzz_seeds.workflow_rows()
    assert load(row) is not None
    assert load(b"") is None
    assert load(row.replace(b"acme", b"\xff\xfe\xfd\xfc")) is None
    assert load(row.replace(msgspec.msgpack.encode(60.0), msgspec.msgpack.encode(float("nan")))) is None


def test_a_model_with_a_name_that_is_no_utf8_counts_as_another_versions():
    assert decode_model(fuzz_seeds.graph_models()[0].replace(b"tenant/acme", b"tenant/\xff\xff\xff\xff")) is None


def test_a_recording_with_broken_text_is_damaged():
    header, entry, *_ = read_frames(io.BytesIO(fuzz_seeds.recordings()[0]))
    with pytest.raises(RecordError, match="no recording"):
        read_header(header.replace(b"admission-1", b"admission\xff\xff"))
    with pytest.raises(RecordError, match="damaged entry"):
        read_entry(entry.replace(b"Received", b"Receive\xff"))


def test_a_length_of_four_gigabytes_asks_for_no_more_than_a_part_at_once():
    asked = []

    class Source(io.BytesIO):
        def read(self, size=-1, /):
            asked.append(size)
            return super().read(size)

    assert list(read_frames(Source(b"\xff\xff\xff\xff" + bytes(3 * READ_BYTES)))) == []
    assert max(asked) == READ_BYTES


def test_lines_that_are_no_csv_are_bad_lines(tmp_path):
    path = tmp_path / "trace.csv"
    (good,) = fuzz_seeds.traces()["tracelab"]
    path.write_bytes(good + b"\ns\r9,0,0,0,1,1,0\n" + b"s9,0,0,0,1,1," + b"0" * 140_000)
    with pytest.raises(TraceError, match="expected 7 values as in the header, found 0"):
        read_sessions(path)
    assert read_sessions(path, skip_bad=True).skipped == 2


def test_a_channel_with_records_of_another_checksum_tells_no_values():
    _, told = fuzz_seeds.rings()
    broken = bytearray(told)
    for slot in range(fuzz_seeds.RING_RECORDS):
        broken[fuzz_seeds.ring.HEADER_BYTES + slot * fuzz_seeds.ring.RECORD.size + 16] ^= 1
    assert fuzz_seeds.ring.RingReader(memoryview(told)).values
    assert fuzz_seeds.ring.RingReader(memoryview(bytes(broken))).values == {}
