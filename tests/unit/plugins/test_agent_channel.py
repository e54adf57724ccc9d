"""The agent's end of the channel as a file: found, fed, silent without a plugin, and honest about a bad file."""

from saga_sglang.channel import open_ring
from saga_sglang.ring import RingReader

from saga.contract.ids import SessionTag
from saga.worker.events import SetRetention
from saga.worker.service import RetentionChannel


def test_what_the_agent_says_the_plugin_reads(tmp_path):
    reader = RingReader(open_ring(tmp_path / "channel"))
    channel = RetentionChannel(str(tmp_path / "channel"))

    channel.set(SetRetention(SessionTag("a"), 2.5))
    channel.beat(123.0)

    reader.read()
    assert reader.values == {"a": 2.5}
    assert reader.beat_s() == 123.0


def test_without_a_plugin_or_with_a_foreign_file_nothing_happens(tmp_path):
    foreign = tmp_path / "notes"
    foreign.write_bytes(b"mine" * 100)
    for path in ("", str(tmp_path / "missing"), str(foreign)):
        channel = RetentionChannel(path)
        channel.set(SetRetention(SessionTag("a"), 2.5))
        channel.beat(1.0)
    assert foreign.read_bytes() == b"mine" * 100
    assert not (tmp_path / "missing").exists(), "the server makes it, not the agent"
