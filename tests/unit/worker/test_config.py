"""Settings of a worker agent: what they mean, and what stops the start."""

from pathlib import Path

import pytest

from saga.runtime.config import load
from saga.runtime.errors import StartError
from saga.worker.config import PREFIX, WorkerConfig


def config(**environ):
    return load(WorkerConfig, PREFIX, environ)


def test_the_id_follows_from_the_engine():
    assert config(SAGA_WORKER_ENGINE_URL="http://10.0.0.7:30000").worker_id == "10-0-0-7-30000"
    assert config(SAGA_WORKER_ENGINE_URL="https://gpu.example").worker_id == "gpu-example-443"
    assert config(SAGA_WORKER_ID="w_1").worker_id == "w_1"
    assert config(SAGA_WORKER_ID="w1").journal_path.name == "worker-w1.journal"
    assert config(SAGA_WORKER_JOURNAL="/tmp/j").journal_path == Path("/tmp/j")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ID", "a.b", "letters"),
        ("ID", "*", "letters"),
        ("ENGINE_URL", "localhost:30000", "no http"),
        ("POLL_S", "0", "poll_s must be above 0"),
        ("TAG_TTL_S", "soon", "SAGA_WORKER_TAG_TTL_S"),
        ("RESYNC_JITTER_S", "-1", "must not be negative"),
        ("RETENTIONS", "tags", "known are"),
        ("SHARED_TIER", "a.b", "letters"),
        ("SHARED_TIER", "flash", "go together"),
        ("SHARED_TOKENS_PER_S", "40000", "go together"),
        ("SHARED_TOKENS_PER_S", "-1", "must be a rate"),
    ],
)
def test_what_cannot_work_stops_the_start(name, value, says):
    with pytest.raises(StartError, match=says):
        config(**{f"SAGA_WORKER_{name}": value})
