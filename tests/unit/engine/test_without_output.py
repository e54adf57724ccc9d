"""A request without output: it has its prompt loaded or prefilled, ahead of one that goes on from it."""

import msgspec
from engine_drive import PAGE, Drive, small_profile

from saga.engine.events import Abort
from saga.engine.profile import load_profile


def let_go(**settings) -> Drive:
    """Three prompts of 32 tokens where two fit: the first is no longer on the device."""
    drive = Drive(small_profile(kv_tokens=80, chunk_tokens=64), **settings)
    for rid in "abc":
        drive.ask(rid, rid * 32, "o")
        drive.run()
    return drive


def test_it_loads_a_prompt_back_and_says_nothing():
    drive = let_go(host_kv_tokens=160)
    generated = drive.core.stats.generated_tokens
    drive.ask("ahead", "a" * 32, "")
    drive.run()
    drive.check()
    end = drive.finished["ahead"]
    assert (end.output_tokens, end.cached_tokens, end.reason) == (0, 28, "length")
    assert drive.progress.get("ahead") is None
    assert drive.core.stats.generated_tokens == generated
    assert drive.core.pool.host.loaded_pages * PAGE == 28


def test_the_step_that_it_was_sent_for_finds_its_prompt_on_the_device():
    drive = let_go(host_kv_tokens=160)
    drive.ask("ahead", "a" * 32, "")
    drive.run()
    loaded = drive.core.pool.host.loaded_pages
    drive.ask("step", "a" * 32 + "new!", "o")
    drive.run()
    assert drive.finished["step"].cached_tokens == 32
    assert drive.core.pool.host.loaded_pages == loaded


def test_without_a_host_tier_it_prefills():
    drive = let_go()
    prefilled = drive.core.stats.prefilled_tokens
    drive.ask("ahead", "a" * 32, "")
    drive.run()
    drive.check()
    assert drive.core.stats.prefilled_tokens == prefilled + 32


def test_its_time_is_charged():
    """40,000 tokens of Qwen3-Coder are 5 GB: 25 ms over eight links of 25 GB/s, for one page of prefill."""
    profile = msgspec.structs.replace(load_profile("h200x8-qwen3-coder-480b"), kv_tokens=260_032)
    drive = Drive(profile, host_kv_tokens=900_096, progress=False)
    for rid in "abc":
        drive.ask(rid, rid * 100_000, "o")
        drive.run()
    began_s = drive.now_s
    drive.ask("ahead", "a" * 100_000, "")
    drive.run()
    loaded = drive.core.pool.host.loaded_pages * profile.page_tokens
    assert loaded > 40_000
    assert drive.now_s - began_s >= loaded * profile.load_s_per_token > 0.025


def test_it_can_be_ended_while_it_waits():
    drive = let_go(host_kv_tokens=160)
    drive.ask("long", "l" * 40, "m" * 38)
    drive.step()
    drive.ask("ahead", "a" * 32, "")
    drive.do(Abort("ahead"))
    drive.check()
    assert drive.finished["ahead"].reason == "abort"
    assert drive.core.pool.host.loaded_pages == 0
