"""EngineCore under random stories: its invariants, and that everybody is served, with every setting and tier."""

from engine_drive import PAGE, Drive, small_profile
from hypothesis import given, settings
from hypothesis import strategies as st

from saga.engine.events import Abort, CloseSession, Flush, SetRetention
from saga.kernel.effects import WakeAt

ENGINES = [
    {},
    {"priority_scheduling": True},
    {"schedule": "lpm"},
    {"schedule": "lof"},
    {"schedule": "lof", "priority_scheduling": True},
    {"eviction": "priority"},
    {"eviction": "priority", "priority_scheduling": True},
]
shrinks = st.sampled_from([1, 3])
steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("ask"),
            st.text("ab", min_size=1, max_size=50),
            st.integers(1, 30),
            st.sampled_from(["", "s", "t"]),
            st.integers(0, 20),
        ),
        st.tuples(st.just("step"), st.integers(1, 6)),
        st.tuples(st.just("wait"), st.floats(0, 0.05)),
        st.tuples(st.just("abort"), st.integers(0, 8)),
        st.tuples(st.just("close"), st.sampled_from(["s", "t"])),
        st.tuples(st.just("worth"), st.sampled_from(["s", "t"]), st.sampled_from([0.0, 1.0, 2.5])),
        st.tuples(st.just("flush"), st.none()),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=300)
@given(steps, st.sampled_from(ENGINES), st.booleans(), st.integers(16, 40), st.sampled_from([0, 1, 30]), shrinks)
def test_invariants_hold_and_everybody_is_served(story, engine, progress, kv_pages, host_extra_pages, shrink):
    profile = small_profile(kv_tokens=kv_pages * PAGE, shrink=shrink)
    host = {"host_kv_tokens": (kv_pages + host_extra_pages) * PAGE} if host_extra_pages else {}
    drive = Drive(profile, progress=progress, **engine, **host)
    asked = {}
    for number, (action, *what) in enumerate(story):
        match action:
            case "ask":
                prompt, output_tokens, session, priority = what
                rid = f"{number:02d}"
                drive.ask(rid, prompt, "o" * output_tokens, session_id=session, priority=priority)
                asked[rid] = output_tokens
            case "step":
                for _ in range(what[0]):
                    if drive.wake_s is not None:
                        drive.step()
            case "wait":
                drive.now_s += what[0]
                drive.do(Abort("nobody"))
            case "abort":
                drive.do(Abort(f"{what[0]:02d}"))
            case "close":
                drive.do(CloseSession(what[0]))
            case "worth":
                drive.do(SetRetention(what[0], what[1]))
            case "flush":
                drive.do(Flush())
        drive.check()
    drive.run()
    drive.check()
    assert drive.core.idle
    assert drive.core.pool.used_tokens == 0
    pool = drive.core.pool
    used_page_s = pool.in_use_page_s(drive.now_s) + pool.reused_page_s
    assert 0.0 <= pool.reused_page_s <= used_page_s <= kv_pages * drive.now_s * (1 + 1e-9)
    for rid, output_tokens in asked.items():
        assert rid in drive.rejected or rid in drive.finished
        if rid in drive.finished and drive.finished[rid].reason != "abort":
            assert drive.finished[rid].output_tokens == output_tokens
    assert not any(isinstance(effect, WakeAt) for effect in drive.do(Abort("nobody")))
