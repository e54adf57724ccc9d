"""The worker agent's core: events in, effects out."""

from random import Random

import pytest
from forecasts import forecast

from saga.contract.errors import StartError
from saga.contract.ids import (
    GatewayId,
    LeaseId,
    PoolId,
    RootId,
    SessionId,
    SessionTag,
    StepId,
    TenantId,
    WorkerId,
    rid,
)
from saga.contract.messages import (
    AllCleared,
    Heartbeat,
    LeaseReleased,
    LeaseReturned,
    LeasesRenewed,
    LeaseTaken,
    PagesStored,
    ResidencyDelta,
    ResyncReply,
    ResyncRequest,
    SessionsReleased,
    StepCancelled,
    StepFinished,
    StepProgress,
    WorkerHello,
    WorkerLeaving,
)
from saga.contract.subjects import Subjects
from saga.kernel.effects import Forget, Persist, Publish, Received, Tick, WakeAt
from saga.worker.events import (
    AbortRequest,
    Attached,
    CheckEngine,
    CloseTag,
    EngineFacts,
    EngineGone,
    KvEvents,
    KvEventsLost,
    Leave,
    LoadMissed,
    LoadSeen,
    TagClosed,
)
from saga.worker.journal import Journal
from saga.worker.retention import policy_named
from saga.worker.state import UNCLAIMED_S, WorkerState

W = WorkerId("w")
SUBJECTS = Subjects("c")
FACTS = EngineFacts(
    model="m", page_tokens=16, kv_tokens=1000, context_tokens=500, max_running=8, session_tags=True, speed=2.0
)
TTL_S = 6.0


def core(retention="tags", *, attach=True):
    policy = policy_named(retention, 60.0, 300.0)
    made = WorkerState(W, "http://e", SUBJECTS, policy, Random(1), lease_ttl_s=TTL_S, resync_jitter_s=0.0)
    if attach:
        made.handle(Attached(FACTS, 7), 0.0)
    return made


def taken(lease="l", session="s", tag="s-0"):
    return LeaseTaken(
        step_id=StepId(f"step-{lease}"),
        attempt=0,
        lease_id=LeaseId(lease),
        worker_id=W,
        gateway_id=GatewayId("g"),
        tenant=TenantId("t"),
        root=RootId("r"),
        session=SessionId(session),
        session_tag=SessionTag(tag),
        lease_ttl_s=TTL_S,
    )


def finished(lease="l", session="s", *, final=False):
    return StepFinished(
        step_id=StepId(f"step-{lease}"),
        attempt=0,
        lease_id=LeaseId(lease),
        worker_id=W,
        gateway_id=GatewayId("g"),
        tenant=TenantId("t"),
        root=RootId("r"),
        session=SessionId(session),
        pool=PoolId("m"),
        prompt_tokens=10,
        output_tokens=1,
        cached_tokens=0,
        finish_reason="stop",
        final=final,
    )


def forecast_of(lease="l", session="s", *, gap_p95_s=20.0, returns=0.9):
    return forecast(
        session=SessionId(session),
        step_id=StepId(f"step-{lease}"),
        worker_id=W,
        returns=returns,
        gap_p90_s=10.0,
        gap_p95_s=gap_p95_s,
        gap_p99_s=30.0,
    )


def tell(state, message, now_s):
    effects = state.handle(Received(message), now_s)
    state.check()
    return effects


def published(effects, kind):
    return [e.message for e in effects if isinstance(e, Publish) and isinstance(e.message, kind)]


def of(effects, kind):
    return [e for e in effects if isinstance(e, kind)]


def run_until(state, until_s, now_s=0.0):
    """Ticks as the shell gives them; everything the core asked for on the way."""
    effects = []
    while now_s < until_s:
        now_s = min(until_s, now_s + 0.5)
        effects += state.handle(Tick(), now_s)
        state.check()
    return effects


def test_attach_says_hello_and_beats_every_second():
    state = core(attach=False)
    effects = state.handle(Attached(FACTS, 7), 0.0)
    [hello] = published(effects, WorkerHello)
    assert (hello.worker_id, hello.epoch, hello.pool, hello.session_tags, hello.speed) == (W, 7, "m", True, 2.0)
    [beat] = published(effects, Heartbeat)
    assert beat.healthy
    assert of(effects, WakeAt) == [WakeAt(1.0)]
    state.handle(LoadSeen(3, 2, 100), 0.5)
    beats = published(run_until(state, 3.0, 0.5), Heartbeat)
    assert len(beats) == 3
    assert (beats[0].running, beats[0].waiting, beats[0].used_tokens) == (3, 2, 100)


def test_health_changes_are_told_at_once():
    state = core()
    assert [b.healthy for b in published(state.handle(LoadMissed(), 0.1), Heartbeat)] == [False]
    assert published(state.handle(LoadMissed(), 0.2), Heartbeat) == []
    assert [b.healthy for b in published(state.handle(LoadSeen(0, 0, 0), 0.3), Heartbeat)] == [True]


def test_a_dead_engine_takes_leases_and_tags_with_it():
    state = core()
    tell(state, taken(), 0.0)
    effects = state.handle(EngineGone(), 1.0)
    assert [m.engine_died for m in published(effects, WorkerLeaving)] == [True]
    assert of(effects, Forget) == [Forget("s-0")]
    assert of(effects, AbortRequest) == of(effects, CloseTag) == []
    assert len(state.leases) == len(state.tags) == 0
    assert published(run_until(state, 5.0, 1.0), Heartbeat) == []
    effects = state.handle(Attached(FACTS, 8), 6.0)
    assert [m.epoch for m in published(effects, WorkerHello)] == [8]


def test_leaving_ends_heartbeats_and_keeps_tags():
    state = core()
    tell(state, taken(), 0.0)
    tell(state, finished(), 0.5)
    effects = state.handle(Leave(), 1.0)
    assert [m.engine_died for m in published(effects, WorkerLeaving)] == [False]
    assert of(effects, CloseTag) == of(effects, Forget) == []
    assert published(run_until(state, 4.0, 1.0), Heartbeat) == []


def test_a_lease_that_nobody_renews_is_aborted_and_told():
    state = core()
    tell(state, taken("a"), 0.0)
    tell(state, taken("b", "s2", "s2-0"), 0.0)
    for now_s in (2.0, 4.0):
        tell(state, LeasesRenewed(gateway_id=GatewayId("g"), worker_id=W, lease_ids=(LeaseId("b"),)), now_s)
    effects = run_until(state, 7.0, 4.0)
    assert of(effects, AbortRequest) == [AbortRequest(rid(StepId("step-a"), 0))]
    assert [(m.lease_id, m.step_id) for m in published(effects, LeaseReleased)] == [("a", "step-a")]
    assert published(effects, Heartbeat)[-1].leases == 1


def test_progress_renews():
    state = core()
    tell(state, taken(), 0.0)
    progress = StepProgress(step_id=StepId("step-l"), attempt=0, lease_id=LeaseId("l"), worker_id=W, output_tokens=1)
    tell(state, progress, 5.0)
    assert of(run_until(state, 10.0, 5.0), AbortRequest) == []
    assert len(of(run_until(state, 11.0, 10.0), AbortRequest)) == 1


def test_a_tag_stays_for_the_default_without_a_forecast():
    state = core()
    tell(state, taken(), 0.0)
    tell(state, finished(), 1.0)
    assert of(run_until(state, 30.5, 1.0), CloseTag) == []  # 60 engine-seconds at twice the speed
    effects = run_until(state, 31.5, 30.5)
    assert of(effects, CloseTag) == [CloseTag(SessionTag("s-0"))]
    assert of(state.handle(TagClosed(SessionTag("s-0")), 32.0), Forget) == [Forget("s-0")]


@pytest.mark.parametrize("order", ["forecast last", "forecast first"])
def test_a_tag_stays_for_the_forecast(order):
    state = core()
    tell(state, taken(), 0.0)
    messages = [finished(), forecast_of(gap_p95_s=20.0)]
    for message in messages if order == "forecast last" else messages[::-1]:
        tell(state, message, 1.0)
    assert of(run_until(state, 20.5, 1.0), CloseTag) == []
    assert len(of(run_until(state, 21.5, 20.5), CloseTag)) == 1


def test_a_forecast_is_capped_and_an_old_one_ignored():
    state = core()
    tell(state, taken("a"), 0.0)
    tell(state, finished("a"), 1.0)
    tell(state, forecast_of("a", gap_p95_s=2.0), 1.0)
    tell(state, taken("b"), 2.0)
    tell(state, finished("b"), 3.0)
    assert of(run_until(state, 30.0, 3.0), CloseTag) == []  # that of step a says nothing of this gap
    tell(state, forecast_of("b", gap_p95_s=5000.0), 30.0)
    assert of(run_until(state, 152.5, 30.0), CloseTag) == []
    assert len(of(run_until(state, 153.5, 152.5), CloseTag)) == 1


def test_unlikely_or_final_sessions_go_at_once():
    state = core()
    tell(state, taken(), 0.0)
    tell(state, finished(), 1.0)
    assert of(tell(state, forecast_of(returns=0.0), 1.1), CloseTag) == [CloseTag(SessionTag("s-0"))]
    tell(state, taken("b", "s2", "s2-0"), 2.0)
    assert of(tell(state, finished("b", "s2", final=True), 3.0), CloseTag) == [CloseTag(SessionTag("s2-0"))]


def test_released_sessions_go_when_no_lease_is_out():
    state = core()
    tell(state, taken("a", "s1", "s1-0"), 0.0)
    tell(state, taken("b", "s2", "s2-0"), 0.0)
    tell(state, finished("b", "s2"), 1.0)
    sessions = (SessionId("s1"), SessionId("s2"), SessionId("s3"))
    effects = tell(state, SessionsReleased(worker_id=W, sessions=sessions, reason="paused", fence=1), 2.0)
    assert of(effects, CloseTag) == [CloseTag(SessionTag("s2-0"))]
    cancelled = StepCancelled(
        step_id=StepId("step-a"),
        attempt=0,
        lease_id=LeaseId("a"),
        worker_id=W,
        gateway_id=GatewayId("g"),
        tenant=TenantId("t"),
        root=RootId("r"),
        session=SessionId("s1"),
    )
    assert of(tell(state, cancelled, 3.0), CloseTag) == [CloseTag(SessionTag("s1-0"))]


def test_what_a_replaced_leader_releases_stays():
    state = core()
    for lease, session in (("a", "s1"), ("b", "s2")):
        tell(state, taken(lease, session, f"{session}-0"), 0.0)
        tell(state, finished(lease, session), 1.0)

    def released(session, reason, fence):
        message = SessionsReleased(worker_id=W, sessions=(SessionId(session),), reason=reason, fence=fence)
        return of(tell(state, message, 2.0), CloseTag)

    assert released("elsewhere", "moved", 7) == []
    assert released("s1", "moved", 6) == []
    assert released("s2", "paused", 6) == [CloseTag(SessionTag("s2-0"))], "admission's fences are its own"
    assert released("s1", "superseded", 7) == [CloseTag(SessionTag("s1-0"))]


def test_a_beginning_that_comes_after_its_end_still_gets_its_tag_closed():
    state = core()
    tell(state, finished(), 1.0)
    tell(state, taken(), 1.1)
    assert len(state.leases) == 0
    assert len(of(run_until(state, 40.0, 1.1), CloseTag)) == 1


def test_a_returned_lease_of_a_dead_engine_makes_the_agent_look():
    state = core()
    tell(state, taken(), 0.0)
    returned = LeaseReturned(
        step_id=StepId("step-l"),
        attempt=0,
        lease_id=LeaseId("l"),
        worker_id=W,
        gateway_id=GatewayId("g"),
        reason="engine_died",
    )
    assert of(tell(state, returned, 1.0), CheckEngine) == [CheckEngine()]
    assert len(state.leases) == 0


def test_pages_travel_and_a_loss_clears():
    state = core()
    state.handle(KvEvents((PagesStored(b"12345678"),)), 0.0)
    [delta] = published(run_until(state, 0.5), ResidencyDelta)
    assert delta.changes == (PagesStored(b"12345678"),)
    state.handle(KvEventsLost(), 1.0)
    [delta] = published(run_until(state, 1.5, 1.0), ResidencyDelta)
    assert (delta.seq, delta.changes) == (2, (AllCleared(),))
    assert state.feed.pages == 0


def test_snapshots_go_to_the_inbox():
    state = core()
    state.handle(KvEvents((PagesStored(b"12345678"),)), 0.0)
    effects = tell(state, ResyncRequest(worker_id=W, inbox="there"), 0.01)
    [reply] = [e for e in effects if isinstance(e, Publish) and isinstance(e.message, ResyncReply)]
    assert reply.subject == "there"
    assert reply.message == ResyncReply(worker_id=W, epoch=7, seq=1, part=0, parts=1, hashes=b"12345678")


def test_lru_tags_nothing_and_says_so():
    state = core("lru")
    assert not state.hello.session_tags
    effects = tell(state, taken(), 0.0) + tell(state, finished(), 1.0) + run_until(state, 400.0, 1.0)
    assert of(effects, CloseTag) == of(effects, Persist) == []
    assert len(state.leases) == 0


def test_the_journal_brings_leases_and_tags_back():
    before, journal, written = core(), Journal(), b""
    for message in (taken("a", "s1", "s1-0"), taken("b", "s2", "s2-0"), finished("b", "s2"), taken("c", "s3", "s3-0")):
        for effect in of(tell(before, message, 0.0), Persist):
            written += journal.opened(effect.key, effect.value)
    after = core(attach=False)
    effects = after.restore(Journal(written).records(), 100.0)
    assert (len(after.tags), len(after.leases)) == (3, 2)
    after.check()
    effects += after.handle(Attached(FACTS, 8), 101.0)
    for now_s in range(102, 120):
        effects += tell(
            after, LeasesRenewed(gateway_id=GatewayId("g"), worker_id=W, lease_ids=(LeaseId("a"),)), float(now_s)
        )
        if now_s < 100 + UNCLAIMED_S:
            assert of(effects, CloseTag) == []
    assert of(effects, CloseTag) == [CloseTag(SessionTag("s2-0"))]
    assert of(effects, AbortRequest) == [AbortRequest(rid(StepId("step-c"), 0))]


def test_an_unknown_policy_lists_the_known_ones():
    with pytest.raises(StartError, match=r"'mru'.*known are lru, .*tags"):
        policy_named("mru", 1.0, 1.0)
