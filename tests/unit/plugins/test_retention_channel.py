"""The channel from the worker agent to the plugin in SGLang: both ends on one memory; torn, lapped, full, foreign."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from saga_sglang.channel import open_ring
from saga_sglang.ring import HEADER_BYTES, RECORD, RECORDS, TAG_BYTES, RingReader, empty, ring_bytes

from saga.contract.ids import SessionTag
from saga.worker.retention_ring import RetentionRing


def both(records: int = 8, **bounds) -> tuple[RetentionRing, RingReader, bytearray]:
    memory = bytearray(empty(records))
    return RetentionRing(memoryview(memory)), RingReader(memoryview(memory), **bounds), memory


def tag(number: int) -> SessionTag:
    return SessionTag(f"session-{number}")


def test_what_is_said_is_read_in_order_and_the_last_word_counts():
    agent, engine, _ = both()
    assert agent.set(tag(1), 1.5)
    assert agent.set(tag(2), -3.0)
    assert agent.set(tag(1), 2.5)

    engine.read()

    assert list(engine.values.items()) == [(tag(2), -3.0), (tag(1), 2.5)]
    engine.read()
    assert engine.values == {tag(1): 2.5, tag(2): -3.0}


def test_more_than_the_ring_holds_is_lost_from_its_old_end_and_nothing_else():
    agent, engine, _ = both(records=8)
    agent.set(tag(0), 1.0)
    engine.read()
    for number in range(1, 21):
        agent.set(tag(number), float(number))

    engine.read()

    assert engine.values == {tag(0): 1.0} | {tag(number): float(number) for number in range(13, 21)}
    agent.set(tag(21), 21.0)
    engine.read()
    assert engine.values[tag(21)] == 21.0


def test_a_reader_that_starts_late_and_a_writer_that_starts_again_go_on():
    agent, _, memory = both(records=8)
    for number in range(11):
        agent.set(tag(number), float(number))
    again = RetentionRing(memoryview(memory))
    again.set(tag(11), 11.0)

    late = RingReader(memoryview(memory))

    assert late.values == {tag(number): float(number) for number in range(4, 12)}


def test_a_record_that_is_half_written_is_waited_for():
    agent, engine, memory = both()
    agent.set(tag(1), 1.0)
    agent.set(tag(2), 2.0)
    at = HEADER_BYTES + RECORD.size + 8  # the second one's value
    whole = memory[at : at + 8]
    memory[at : at + 8] = b"\xff" * 8

    engine.read()
    assert engine.values == {tag(1): 1.0}

    memory[at : at + 8] = whole
    engine.read()
    assert engine.values == {tag(1): 1.0, tag(2): 2.0}


def test_a_writer_that_died_in_the_middle_is_followed_by_one_that_writes_over_it():
    agent, engine, memory = both()
    agent.set(tag(1), 1.0)
    agent.set(tag(2), 2.0)
    memory[HEADER_BYTES + RECORD.size + 8] ^= 0xFF

    RetentionRing(memoryview(memory)).set(tag(3), 3.0)

    engine.read()
    assert engine.values == {tag(1): 1.0, tag(3): 3.0}


def test_the_reader_forgets_what_was_said_longest_ago():
    agent, engine, _ = both(records=8, max_values=3)
    for number in (1, 2, 3, 1, 4):
        agent.set(tag(number), float(number))

    engine.read()

    assert list(engine.values) == [tag(3), tag(1), tag(4)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_value_is_not_said(value):
    agent, engine, _ = both()

    assert not agent.set(tag(1), value)
    assert not agent.set(SessionTag("x" * (TAG_BYTES + 1)), 1.0)
    assert agent.set(SessionTag("x" * TAG_BYTES), 1.0)

    engine.read()
    assert engine.values == {"x" * TAG_BYTES: 1.0}


@pytest.mark.parametrize("foreign", [b"", b"hello", bytes(ring_bytes(8)), empty(8)[:-1], empty(8) + b"\0"])
def test_something_else_is_refused_by_both_ends(foreign):
    for end in (RetentionRing, RingReader):
        with pytest.raises(ValueError, match="channel of retention values"):
            end(memoryview(bytearray(foreign)))


def test_noise_never_breaks_the_reader():
    random = os.urandom(ring_bytes(8) - HEADER_BYTES)
    memory = bytearray(empty(8)[:HEADER_BYTES] + random)

    reader = RingReader(memoryview(memory))
    reader.read()

    assert reader.values == {}


def test_the_file_is_made_once_and_shared(tmp_path):
    path = tmp_path / "channel"
    first, second = open_ring(path), open_ring(path)

    with path.open("r+b") as file:
        memory = bytearray(file.read())
        RetentionRing(memoryview(memory)).set(tag(1), 4.0)
        file.seek(0)
        file.write(memory)

    for ring in (first, second):
        assert RingReader(ring).values == {tag(1): 4.0}
    assert path.stat().st_size == ring_bytes(RECORDS)
    assert path.stat().st_mode & 0o777 == 0o660
    assert [found.name for found in tmp_path.iterdir()] == ["channel"]


def test_a_file_that_is_something_else_is_left_alone(tmp_path):
    path = tmp_path / "notes"
    path.write_text("mine")

    with pytest.raises(ValueError, match="notes"):
        open_ring(path)

    assert path.read_text() == "mine"


def test_the_plugin_imports_nothing_but_the_standard_library():
    folder = Path(__file__).parents[3] / "plugins" / "sglang"
    code = "import sys, saga_sglang.plugin, saga_sglang.policy, saga_sglang.channel; print(*sys.modules)"
    ask = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(folder)!r}); {code}"]

    loaded = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()

    assert {name.split(".")[0] for name in loaded} <= {*sys.stdlib_module_names, "saga_sglang", "__main__"}
