"""The host KV tier: what it keeps, what loading back costs, and the link's arithmetic."""

import pytest
from engine_drive import PAGE, Drive, hashes_of, small_profile

from saga.engine.core import EngineCore
from saga.engine.host_tier import HostTier
from saga.engine.profile import load_profile
from saga.engine.settings import EngineSettings
from saga.kv.pages import HASH_BYTES


def returning(**settings) -> Drive:
    """Three prompts that fit the device two at a time, then the first one again."""
    drive = Drive(small_profile(kv_tokens=80, chunk_tokens=64), **settings)
    for rid in ("a", "b", "c", "a"):
        drive.ask(f"{rid}{len(drive.finished)}", rid * 32, "o")
        drive.run()
        drive.check()
    return drive


def test_what_the_device_evicts_comes_back_from_the_host():
    without, with_host = returning(), returning(host_kv_tokens=160)
    assert (without.finished["a3"].cached_tokens, with_host.finished["a3"].cached_tokens) == (0, 28)
    host = with_host.core.pool.host
    assert (host.hits, host.loaded_pages * PAGE) == (1, 28)
    # The last page of a prompt is computed again; it is on the host already, so nothing is written for it.
    assert host.written_pages == 3 * 8
    assert with_host.core.stats.cached_tokens == 28


def test_a_page_is_removed_only_when_it_is_in_no_tier():
    drive = Drive(small_profile(kv_tokens=80, chunk_tokens=64), host_kv_tokens=100)
    for rid in "abcd":
        drive.ask(rid, rid * 32, "o")
        drive.run()
        drive.check()  # what was stored and not removed is what the tree has, in either tier
    tree = drive.core.pool.tree
    assert (tree.pages, tree.total_pages) == (16, 24)
    assert [rid for rid in "abcd" if hashes_of(rid * 32)[-HASH_BYTES:] in drive.resident] == ["b", "c", "d"]


def test_a_session_goes_on_after_its_own_old_pages_from_the_host():
    drive = Drive(small_profile(kv_tokens=160), host_kv_tokens=400)
    drive.ask("one", "s" * 40, "t" * 9)
    drive.run()
    for rid in "abcd":
        drive.ask(rid, rid * 60, "o")
        drive.run()
    drive.ask("two", "s" * 40 + "t" * 9 + "u" * 30, "v" * 20)
    drive.step()
    drive.check()
    drive.run()
    drive.check()
    assert drive.finished["two"].cached_tokens == 48


def test_a_waiter_that_cannot_start_loads_nothing():
    drive = Drive(small_profile(kv_tokens=80, chunk_tokens=64), host_kv_tokens=400)
    for rid in "abc":
        drive.ask(rid, rid * 32, "o")
        drive.run()
    drive.ask("long", "l" * 40, "m" * 38)
    drive.step()
    drive.ask("again", "a" * 32, "o" * 4)
    while not drive.core.pool.host.hits:
        assert drive.core.pool.host.loaded_pages == 0
        drive.step()
        drive.check()
    assert "long" in drive.finished
    drive.run()
    assert drive.finished["again"].cached_tokens == 28


def test_an_iteration_that_loads_takes_as_long_as_the_load():
    """32K tokens of Llama-3-70B are 10.7 GB; four links of 25 GB/s take 107 ms; 10 tokens of prefill take far less."""
    profile = load_profile("a100x4-llama3-70b")
    tier = HostTier(profile, profile.host_kv_tokens)
    pages = 32_768 // profile.page_tokens
    tier.load(pages)
    assert tier.begin(0.0) == pytest.approx(10.737e9 / 100e9, rel=1e-3)
    assert tier.begin(1.0) == 0.0


def test_loads_and_writes_share_the_link():
    profile = load_profile("a100x4-llama3-70b")
    page_bytes = profile.page_tokens * profile.kv_bytes_per_token
    both, alone = profile.host_bytes_per_s_both / page_bytes, profile.host_bytes_per_s / page_bytes  # pages/s
    tier = HostTier(profile, profile.host_kv_tokens)
    tier.write(1000, 0.0)
    tier.load(1000)
    assert tier.begin(0.0) == pytest.approx(1000 / both)  # both directions busy throughout
    tier.load(1000)
    assert tier.begin(1000 / both) == pytest.approx(1000 / alone)  # all is written
    tier.write(500, 10.0)
    tier.load(2000)
    assert tier.begin(10.0) == pytest.approx(500 / both + 1500 / alone)
    tier.write(1000, 20.0)
    # From 20 s on nothing is loaded: writes go at full speed.
    assert tier.begin(20.0) == 0.0
    tier.load(1000)
    assert tier.begin(20.0 + 500 / alone) == pytest.approx(500 / both + 500 / alone)


def test_loading_slows_the_iteration_of_the_engine():
    first_token_s = []
    for bytes_per_s in (50e9, 5e6):
        rates = {"host_bytes_per_s": bytes_per_s, "host_bytes_per_s_both": bytes_per_s / 2}
        drive = Drive(small_profile(kv_tokens=80, chunk_tokens=64, **rates), host_kv_tokens=400)
        for rid in "abca":
            drive.now_s += 100.0
            drive.ask(f"{rid}{len(drive.finished)}", rid * 32, "o")
            drive.run()
        end = drive.finished["a3"]
        first_token_s.append(end.first_token_s - end.started_s)
    fast_s, slow_s = first_token_s
    load_s = 28 * drive.core.profile.kv_bytes_per_token / 5e6
    assert fast_s < 0.01
    assert slow_s == pytest.approx(load_s + drive.core.profile.overhead_s)


def test_a_host_tier_that_cannot_be_is_refused():
    profile = small_profile()
    with pytest.raises(ValueError, match="host_kv_tokens 160 must exceed kv_tokens 160"):
        EngineCore(profile, EngineSettings(host_kv_tokens=160))
    with pytest.raises(ValueError, match="host_bytes_per_s"):
        EngineCore(small_profile(host_bytes_per_s=0.0), EngineSettings(host_kv_tokens=400))
