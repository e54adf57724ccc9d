"""EngineCore: caching, batching, retraction, aborts, sessions, and its invariants under any story."""

import pytest
from engine_drive import PAGE, Drive, hashes_of, small_profile

from saga.engine.events import Abort, CloseSession, Flush, OpenSession, SetRetention
from saga.engine.profile import load_profile


def test_one_request_from_arrival_to_end():
    drive = Drive()
    drive.ask("r", "p" * 10, "o" * 5)
    drive.run()
    end = drive.finished["r"]
    assert (end.reason, end.prompt_tokens, end.cached_tokens, end.output_tokens) == ("stop", 10, 0, 5)
    assert drive.progress["r"] == [1, 2, 3, 4, 5]
    assert 0.0 == end.arrived_s == end.started_s < end.first_token_s < end.finished_s == drive.now_s
    drive.check()
    assert drive.core.idle


def test_prompt_and_answer_are_cached_but_for_the_last_token():
    drive = Drive()
    drive.ask("r", "p" * 8, "o" * 4)
    drive.run()
    # 12 tokens, the last of them never fed back: 11 with KV, two full pages.
    assert drive.resident == {hashes_of("pppppppp")[i : i + 8] for i in (0, 8)}
    drive.ask("s", "q" * 8, "o" * 5)
    drive.run()
    assert len(drive.resident) == 5


def test_a_prompt_cached_in_full_still_computes_its_last_token():
    drive = Drive()
    for rid in ("first", "again"):
        drive.ask(rid, "p" * 16, "o")
        drive.run()
    assert drive.finished["again"].cached_tokens == 12
    drive.ask("longer", "p" * 17, "o")
    drive.run()
    assert drive.finished["longer"].cached_tokens == 16


def test_next_step_of_a_session_hits_prompt_and_answer():
    drive = Drive()
    drive.ask("one", "p" * 10, "o" * 11)
    drive.run()
    drive.ask("two", "p" * 10 + "o" * 11 + "q" * 5, "o")
    drive.run()
    assert drive.finished["two"].cached_tokens == 20


def test_a_long_prompt_is_prefilled_in_chunks_while_others_decode():
    drive = Drive()
    drive.ask("talker", "t" * 4, "x" * 30)
    drive.step()
    drive.ask("long", "p" * 60, "o" * 2)
    said = drive.progress["talker"][-1]
    while "long" not in drive.progress:
        drive.step()
        drive.check()
    # 60 tokens in chunks of 16 tokens less one for the decode, whole pages: 12 a time, five chunks.
    assert drive.progress["talker"][-1] - said == 6
    drive.run()
    assert drive.finished["long"].output_tokens == 2


def test_pages_of_a_prompt_are_shared_as_soon_as_their_chunk_is_done():
    drive = Drive()
    drive.ask("a", "p" * 40, "o")
    drive.step()
    drive.ask("b", "p" * 20, "o")
    drive.run()
    assert drive.finished["b"].cached_tokens == 16


def test_running_limit_and_first_come_first_served():
    drive = Drive()
    for number in range(6):
        drive.ask(f"r{number}", str(number) * 4, "o" * 4)
    drive.step()
    drive.step()
    assert (drive.core.running, drive.core.waiting) == (4, 2)
    drive.run()
    assert drive.finish_order == [f"r{number}" for number in range(6)]


def test_priority_goes_first_only_when_enabled():
    for enabled, order in ((False, ["a", "b", "c"]), (True, ["a", "c", "b"])):
        drive = Drive(small_profile(max_running=1), priority_scheduling=enabled)
        drive.ask("a", "a" * 4, "o" * 4)
        drive.ask("b", "b" * 4, "o" * 4, priority=0)
        drive.ask("c", "c" * 4, "o" * 4, priority=5)
        drive.run()
        assert drive.finish_order == order


def test_a_far_higher_priority_preempts_a_decode():
    drive = Drive(small_profile(max_running=1), priority_scheduling=True)
    drive.ask("low", "a" * 4, "o" * 20)
    drive.step()
    drive.step()
    drive.ask("high", "b" * 4, "o" * 2, priority=100)
    drive.run()
    assert drive.finish_order == ["high", "low"]
    assert drive.finished["low"].retractions == 1
    assert drive.finished["low"].output_tokens == 20


def test_decode_out_of_kv_retracts_and_nothing_is_lost():
    drive = Drive(small_profile(max_running=8))
    for number in range(4):
        drive.ask(f"r{number}", str(number) * 4, "o" * 40)
    while drive.wake_s is not None:
        drive.step()
        drive.check()
    assert sorted(drive.finished) == ["r0", "r1", "r2", "r3"]
    assert all(end.output_tokens == 40 for end in drive.finished.values())
    assert sum(end.retractions for end in drive.finished.values()) == drive.core.stats.retractions > 0
    for rid, tokens in drive.progress.items():
        assert tokens == sorted(set(tokens)), f"{rid} said a token twice"


def test_what_can_never_run_is_rejected():
    drive = Drive()
    drive.ask("big", "p" * 150, "o" * 20)
    assert "170" in drive.rejected["big"]
    drive.ask("r", "p", "o" * 10)
    drive.ask("r", "p", "o")
    assert drive.rejected["r"] == "rid is in use"
    drive.ask("none", "", "o")
    assert "at least one" in drive.rejected["none"]


def test_abort_by_prefix_ends_running_and_waiting_and_keeps_kv():
    drive = Drive(small_profile(max_running=1))
    for rid in ("x-1", "x-2", "y-1"):
        drive.ask(rid, rid[0] * 8, "o" * 20)
    drive.step()
    drive.step()
    drive.do(Abort("x-"))
    drive.check()
    assert {rid: end.reason for rid, end in drive.finished.items()} == {"x-1": "abort", "x-2": "abort"}
    assert drive.finished["x-2"].started_s < 0.0
    assert hashes_of("x" * 8)[:8] in drive.resident
    drive.run()
    assert drive.finished["y-1"].reason == "stop"


def test_aborting_in_the_middle_of_a_prefill_gives_its_pages_back():
    drive = Drive()
    drive.ask("a", "p" * 80, "o" * 2)
    drive.step()
    drive.do(Abort(""))
    drive.check()
    assert drive.wake_s is None
    assert drive.core.pool.used_tokens == 0
    assert len(drive.resident) * PAGE == 16


def test_session_tags_keep_older_kv_until_they_are_closed():
    for closed, survivor in ((False, "tagged"), (True, "plain")):
        drive = Drive(small_profile(kv_tokens=80))
        drive.ask("tagged", "t" * 24, "o", session_id="s")
        drive.run()
        drive.ask("plain", "p" * 24, "o")
        drive.run()
        if closed:
            drive.do(CloseSession("s"))
        drive.ask("filler", "f" * 48, "o")
        drive.run()
        drive.check()
        keeps = {"tagged": hashes_of("t" * 24)[:8], "plain": hashes_of("p" * 24)[:8]}
        assert [name for name, page in keeps.items() if page in drive.resident] == [survivor]


def test_a_request_older_than_its_sessions_close_tags_nothing():
    drive = Drive()
    drive.ask("r", "t" * 8, "o" * 5, session_id="s")
    drive.step()
    drive.do(CloseSession("s"))
    drive.run()
    assert drive.core.pool.tree.tagged_sessions() == {}
    drive.do(OpenSession("s"))
    drive.ask("next", "t" * 8, "o" * 5, session_id="s")
    drive.run()
    assert list(drive.core.pool.tree.tagged_sessions()) == ["s"]


def test_without_the_session_cache_nothing_is_tagged():
    drive = Drive(session_radix_cache=False)
    drive.ask("r", "t" * 8, "o", session_id="s")
    drive.run()
    assert drive.core.pool.tree.tagged_sessions() == {}


def test_flush_only_when_idle():
    drive = Drive()
    drive.ask("r", "t" * 8, "o" * 5)
    drive.step()
    drive.do(Flush())
    drive.run()
    assert drive.resident
    drive.do(Flush())
    drive.check()
    assert not drive.resident


def test_skipping_quiet_iterations_changes_nothing_but_the_number_of_wakes():
    ends = []
    for progress in (True, False):
        drive = Drive(small_profile(kv_tokens=4000, context_tokens=4000), progress=progress)
        for number in range(3):
            drive.ask(f"r{number}", str(number) * 9, "o" * (200 + 70 * number))
        drive.run()
        ends.append((drive.finished, drive.wakes))
        drive.check()
    (each, many), (skipped, few) = ends
    assert few * 10 < many
    for rid, end in each.items():
        assert skipped[rid].finished_s == pytest.approx(end.finished_s)
        assert skipped[rid].first_token_s == pytest.approx(end.first_token_s)


def test_one_late_wake_up_equals_many_in_time():
    in_time, late = Drive(), Drive()
    for drive in (in_time, late):
        drive.ask("a", "a" * 30, "o" * 20)
        drive.ask("b", "b" * 9, "o" * 30)
    in_time.run()
    late.now_s = 100.0
    late.do(Abort("nobody"))
    assert late.finished == in_time.finished


def times_of(factor):
    """Three requests on a profile shrunk by `factor`, all lengths divided by it."""
    profile = load_profile("a100x4-llama3-70b").with_page_tokens(4).shrunk(factor)
    drive = Drive(profile, progress=False)
    for number, at_s in enumerate((0.0, 1.0, 3.0)):
        drive.run(at_s)
        drive.now_s = at_s
        drive.ask(f"r{number}", str(number) * (12_800 // factor), "o" * (1600 // factor))
    drive.run()
    drive.check()
    return [
        seconds
        for number in range(3)
        for end in [drive.finished[f"r{number}"]]
        for seconds in (end.first_token_s - end.arrived_s, end.finished_s - end.arrived_s)
    ]


def test_a_shrunk_engine_takes_as_long_for_the_shorter_requests():
    assert times_of(16) == pytest.approx(times_of(1), rel=0.03)


def test_what_a_session_is_worth_decides_among_equals_until_it_closes():
    for closed, survivors in ((False, ["old"]), (True, ["new"])):
        drive = Drive(small_profile(kv_tokens=80))
        for session in ("old", "new"):
            drive.ask(session, session[0] * 24, "o", session_id=session)
            drive.run()
        drive.do(SetRetention("old", 2.0))
        drive.do(SetRetention("new", 1.0))
        drive.do(SetRetention("nobody", 9.0))
        if closed:
            drive.do(CloseSession("old"))
        drive.ask("filler", "f" * 48, "o")
        drive.run()
        drive.check()
        left = [session for session in ("old", "new") if hashes_of(session[0] * 24)[:8] in drive.resident]
        assert left == survivors
