"""A KV store that an engine shares is declared by its operator, and only for an engine that has one."""

import pytest

from saga.contract.errors import StartError
from saga.worker.events import EngineFacts
from saga.worker.sharing import with_shared_tier

FACTS = EngineFacts(
    model="m", page_tokens=16, kv_tokens=4_096, context_tokens=1_024, max_running=4, session_tags=True, speed=2.0
)


def test_nothing_is_shared_unless_it_is_declared():
    assert with_shared_tier(FACTS, "", 0.0, "mooncake", "http://h:1") is FACTS


def test_the_mesh_hears_its_name_and_what_a_token_takes():
    facts = with_shared_tier(FACTS, "flash", 40_000.0, "mooncake", "http://h:1")

    assert facts.shared_tier == "flash"
    assert facts.shared_load_s_per_token / facts.speed == pytest.approx(1 / 40_000)


def test_an_engine_without_a_store_is_refused_with_the_flags_to_set():
    with pytest.raises(StartError, match=r"SAGA_WORKER_SHARED_TIER=flash, but http://h:1 .*--hicache-storage-backend"):
        with_shared_tier(FACTS, "flash", 40_000.0, "", "http://h:1")
