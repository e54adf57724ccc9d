"""Placement's core: give it events, look at its grants."""

import pytest

from saga.contract.ids import NO_WORKER, GatewayId, LeaseId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import (
    CostModel,
    GatewayBeat,
    Grant,
    Heartbeat,
    LeaderHello,
    LeaseReturned,
    LeaseTaken,
    NeedChain,
    PagesStored,
    ResendSteps,
    ResidencyDelta,
    ResyncRequest,
    RunningLease,
    SessionsReleased,
    StepAdmitted,
    StepClaim,
    StepFinished,
    StepReady,
    Tag,
    WaitingStep,
    WorkerHello,
    WorkerLeaving,
)
from saga.contract.subjects import Subjects
from saga.kernel.effects import Demoted, Promoted, Publish, Received, Reconnected, Tick
from saga.placement.policy import CheapestStart, SessionAffinity
from saga.placement.state import PlacementState

POOL = PoolId("model")


def step_id(number: int) -> StepId:
    return StepId(f"{number:032x}")


def admitted(number: int, *, session: str = "", tag: float = 0.0, prompt: int = 1_000, **fields) -> StepAdmitted:
    ready = StepReady(
        step_id=step_id(number),
        attempt=fields.pop("attempt", 0),
        gateway_id=GatewayId("g0"),
        tenant=TenantId("t"),
        root=RootId(f"root-{session or number}"),
        session=SessionId(session or f"session-{number}"),
        pool=POOL,
        prompt_tokens=prompt,
        max_output_tokens=100,
        page_tokens=16,
        base_pages=fields.pop("base_pages", 0),
        base_tip=fields.pop("base_tip", b""),
        new_hashes=fields.pop("new_hashes", b""),
    )
    return StepAdmitted(step=ready, tag=Tag(tag, tag, ready.step_id), fence=fields.pop("fence", 1), **fields)


def hello(name: str, **fields) -> WorkerHello:
    given = {
        "engine_url": f"http://{name}",
        "pool": POOL,
        "epoch": 1,
        "page_tokens": 16,
        "kv_tokens": 10_000,
        "context_tokens": 8_000,
        "max_running": 2,
        "session_tags": True,
        "cost": CostModel(prompt_s_per_token=1e-4, output_s_per_token=1e-3),
    }
    return WorkerHello(worker_id=WorkerId(name), **(given | fields))


class Story:
    """A placement core, and short words for what happens to it."""

    def __init__(self, policy=None, *, workers: int = 2, leading: bool = True, lookahead: int = 0) -> None:
        self.now_s = 10.0
        self.core = PlacementState("p0", Subjects(), policy or CheapestStart(), lookahead=lookahead, now_s=10.0)
        if leading:
            self.tell(Promoted(7))
        for number in range(workers):
            self.hear(hello(f"w{number}"))

    def tell(self, event):
        effects = self.core.handle(event, self.now_s)
        self.core.check()
        return [effect.message for effect in effects if isinstance(effect, Publish)]

    def hear(self, message):
        return self.tell(Received(message))

    def grant(self, *args, **fields) -> Grant:
        (grant,) = self.hear(admitted(*args, **fields))
        assert isinstance(grant, Grant)
        return grant

    def take(self, grant: Grant) -> None:
        self.hear(
            LeaseTaken(
                step_id=grant.step_id,
                attempt=grant.attempt,
                lease_id=grant.lease_id,
                worker_id=grant.worker_id,
                gateway_id=GatewayId("g0"),
                tenant=TenantId("t"),
                root=grant.root,
                session=grant.session,
                session_tag=grant.session_tag,
                lease_ttl_s=5.0,
                moved_from=grant.moved_from,
            )
        )

    def finish(self, grant: Grant, *, final: bool = False):
        return self.hear(
            StepFinished(
                step_id=grant.step_id,
                attempt=grant.attempt,
                lease_id=grant.lease_id,
                worker_id=grant.worker_id,
                gateway_id=GatewayId("g0"),
                tenant=TenantId("t"),
                root=grant.root,
                session=grant.session,
                pool=POOL,
                prompt_tokens=1_000,
                output_tokens=100,
                cached_tokens=0,
                finish_reason="stop",
                final=final,
            )
        )

    def give_back(self, grant: Grant, reason, next_attempt: int = 0):
        return self.hear(
            LeaseReturned(
                step_id=grant.step_id,
                attempt=grant.attempt,
                lease_id=grant.lease_id,
                worker_id=grant.worker_id,
                gateway_id=GatewayId("g0"),
                reason=reason,
                next_attempt=next_attempt,
            )
        )


def test_a_step_that_finds_a_free_slot_has_not_waited():
    story = Story()

    grant = story.grant(1)

    assert grant.waited == "none"
    assert (grant.fence, grant.admission_fence) == (7, 1)
    assert grant.engine_url == f"http://{grant.worker_id}"


def test_a_session_returns_to_where_it_ran():
    story = Story(workers=4)
    first = story.grant(1, session="s")
    story.take(first)
    story.finish(first)

    assert story.grant(2, session="s").worker_id == first.worker_id


def test_a_step_waits_for_its_home_even_when_another_worker_is_free():
    story = Story()
    grants = [story.grant(1, session="a")]
    story.take(grants[0])
    story.finish(grants[0])
    busy = story.grant(2, session="a")
    other = story.grant(3, home=busy.worker_id)

    assert story.hear(admitted(4, session="a")) == []
    (late,) = story.finish(other)
    assert late.step_id == step_id(4)
    assert (late.worker_id, late.waited) == (busy.worker_id, "home")


def test_the_lowest_tag_gets_the_next_slot():
    story = Story(workers=1)
    running = [story.grant(1), story.grant(2)]
    story.hear(admitted(3, tag=9.0))
    story.hear(admitted(4, tag=3.0))
    story.hear(admitted(5, tag=6.0))

    (next_grant,) = story.finish(running[0])

    assert next_grant.step_id == step_id(4)


def test_slots_count_tokens_too():
    story = Story(workers=1)
    story.grant(1, prompt=7_000)

    assert story.hear(admitted(2, prompt=7_000)) == []


def test_a_step_larger_than_what_is_left_runs_alone_rather_than_never():
    story = Story(workers=1)

    assert story.grant(1, prompt=50_000).worker_id == "w0"


def test_look_ahead_hides_the_round_trip():
    story = Story(workers=1, lookahead=1)

    assert [story.grant(n).worker_id for n in (1, 2, 3)] == ["w0"] * 3
    assert story.hear(admitted(4)) == []


def test_the_baseline_lets_engines_queue():
    story = Story(SessionAffinity(), workers=1)

    assert len([story.grant(n) for n in range(20)]) == 20


def test_a_prefix_that_is_resident_draws_the_step():
    story = Story(workers=3)
    pages = b"".join(bytes([n] * 8) for n in range(60))
    story.hear(ResidencyDelta(worker_id=WorkerId("w2"), epoch=1, seq=1, changes=(PagesStored(pages),)))

    grant = story.grant(1, new_hashes=pages)

    assert (grant.worker_id, grant.cached_tokens, grant.reason) == ("w2", 60 * 16, "resident_prefix")


def test_the_last_token_of_a_prompt_is_never_cached():
    story = Story(workers=1)
    pages = b"".join(bytes([n] * 8) for n in range(4))
    story.hear(ResidencyDelta(worker_id=WorkerId("w0"), epoch=1, seq=1, changes=(PagesStored(pages),)))

    assert story.grant(1, new_hashes=pages, prompt=64).cached_tokens == 48


def test_an_unknown_base_asks_for_the_whole_chain_and_does_not_wait_for_it():
    story = Story()

    need, grant = story.hear(admitted(1, base_pages=3, base_tip=b"x" * 8, new_hashes=b"y" * 8))

    assert isinstance(need, NeedChain)
    assert isinstance(grant, Grant)


def test_an_untaken_lease_dies_and_its_step_is_granted_again():
    story = Story(workers=1)
    lost = story.grant(1)
    story.now_s += 1.9
    assert [m for m in story.tell(Tick()) if isinstance(m, Grant)] == []
    story.hear(GatewayBeat(gateway_id=GatewayId("g0"), waiting=(waiting(1),)))
    story.hear(Heartbeat(worker=hello("w0"), healthy=True, running=0, waiting=0, used_tokens=0, residency_seq=0))
    story.now_s += 0.2

    (again,) = [m for m in story.tell(Tick()) if isinstance(m, Grant)]

    assert again.step_id == lost.step_id
    assert again.lease_id != lost.lease_id
    assert again.waited == "retry"


def waiting(number: int, *, attempt: int = 0, waited_s: float = 1.0) -> WaitingStep:
    return WaitingStep(step_id=step_id(number), attempt=attempt, waited_s=waited_s)


def test_a_dead_engines_step_starts_elsewhere_at_once():
    story = Story()
    grant = story.grant(1)
    story.take(grant)

    (again,) = story.give_back(grant, "engine_died", next_attempt=1)

    assert again.worker_id != grant.worker_id
    assert (again.attempt, again.waited) == (1, "retry")
    assert again.moved_from == grant.worker_id


def test_what_waits_at_a_worker_that_leaves_goes_anywhere():
    story = Story()
    full = [story.grant(1, session="a")]
    story.take(full[0])
    story.finish(full[0])
    home = full[0].worker_id
    story.grant(2, session="a")
    story.grant(3, home=home)
    assert story.hear(admitted(4, session="a")) == []

    (moved,) = story.hear(WorkerLeaving(worker_id=home, epoch=1, engine_died=False))

    assert moved.step_id == step_id(4)
    assert moved.worker_id != home


def test_a_move_releases_the_session_at_its_old_home():
    story = Story()
    first = story.grant(1, session="s")
    story.take(first)
    second = story.give_back(first, "engine_died", next_attempt=1)[0]

    messages = story.hear(
        LeaseTaken(
            step_id=second.step_id,
            attempt=1,
            lease_id=second.lease_id,
            worker_id=second.worker_id,
            gateway_id=GatewayId("g0"),
            tenant=TenantId("t"),
            root=second.root,
            session=second.session,
            session_tag=second.session_tag,
            lease_ttl_s=5.0,
            moved_from=second.moved_from,
        )
    )

    (released,) = [m for m in messages if isinstance(m, SessionsReleased)]
    assert (released.worker_id, released.reason) == (first.worker_id, "moved")


def test_a_step_that_nobody_names_for_five_seconds_is_aborted_and_its_slot_freed():
    story = Story(workers=1)
    grant = story.grant(1)
    story.take(grant)
    story.now_s += 5.1

    story.tell(Tick())

    assert story.core.board.leases == {}
    assert story.core.board.steps == {}


def test_beats_renew_leases():
    story = Story(workers=1)
    grant = story.grant(1)
    story.take(grant)
    running = RunningLease(
        step_id=grant.step_id, attempt=0, lease_id=grant.lease_id, worker_id=grant.worker_id, output_tokens=3
    )
    for _ in range(10):
        story.now_s += 1.0
        story.hear(GatewayBeat(gateway_id=GatewayId("g0"), running=(running,)))
        story.tell(Tick())

    assert set(story.core.board.leases) == {grant.lease_id}


def test_time_without_a_bus_is_not_counted_against_anybody():
    story = Story(workers=1)
    grant = story.grant(1)
    story.take(grant)
    story.now_s += 30.0

    story.tell(Reconnected())
    story.tell(Tick())

    assert set(story.core.board.leases) == {grant.lease_id}


def test_a_beat_that_names_unknown_steps_is_asked_back():
    story = Story()
    lease = RunningLease(step_id=step_id(2), attempt=0, lease_id=LeaseId("x"), worker_id=WorkerId("w0"))
    beat = GatewayBeat(gateway_id=GatewayId("g0"), waiting=(waiting(1), waiting(3, waited_s=0.1)), running=(lease,))

    to_admission, to_gateway = story.hear(beat)

    assert isinstance(to_admission, ResendSteps)
    assert to_admission.step_ids == (step_id(1),)  # step 3 may still be on its way
    assert to_gateway.step_ids == (step_id(2),)


def test_a_claim_occupies_the_slot_it_names():
    story = Story(workers=1)
    claim = admitted(1)
    story.hear(
        StepClaim(step=claim.step, lease_id=LeaseId("old"), worker_id=WorkerId("w0"), session_tag="", output_tokens=5)
    )

    story.grant(2)

    assert story.hear(admitted(3)) == []


def test_a_standby_follows_in_silence_and_leads_from_where_the_leader_was():
    leader, standby = Story(workers=1), Story(workers=1, leading=False)
    taken = leader.grant(1)
    untaken = leader.grant(2)
    for message in (admitted(1), admitted(2), taken, untaken):
        assert standby.hear(message) == []
    standby.take(taken)
    standby.hear(admitted(3))

    said = standby.tell(Promoted(8))

    assert isinstance(said[0], LeaderHello)
    assert [grant.step_id for grant in said[1:]] == [step_id(2)]  # granted but untaken; one slot is held by step 1


def test_a_standby_asks_for_snapshots_too():
    standby = Story(workers=1, leading=False)

    (asked,) = standby.hear(ResidencyDelta(worker_id=WorkerId("w0"), epoch=1, seq=5, changes=(PagesStored(b"p" * 8),)))

    assert isinstance(asked, ResyncRequest)


def test_a_higher_fence_silences_a_leader():
    story = Story()

    story.hear(LeaderHello(service="placement", fence=9))

    assert story.hear(admitted(1)) == []


def test_a_replaced_admission_is_not_heard():
    story = Story()
    story.hear(LeaderHello(service="admission", fence=5))

    assert story.hear(admitted(1, fence=4)) == []
    assert story.grant(2, fence=5).admission_fence == 5


def test_a_late_message_does_not_bring_a_finished_step_back():
    story = Story()
    grant = story.grant(1)
    story.take(grant)
    story.finish(grant)

    assert story.hear(admitted(1)) == []
    assert story.core.board.steps == {}


def test_a_demoted_leader_grants_nothing():
    story = Story()
    story.tell(Demoted())

    assert story.hear(admitted(1)) == []


def test_a_worker_with_a_cold_home_waits_for_nobody():
    """A home that admission remembers and that no longer exists is no reason to wait."""
    story = Story()

    assert story.grant(1, home=WorkerId("gone")).worker_id in ("w0", "w1")


@pytest.mark.parametrize("policy", [CheapestStart(), SessionAffinity()])
def test_new_sessions_spread(policy):
    story = Story(policy, workers=4)

    workers = [story.grant(n).worker_id for n in range(4)]

    assert sorted(workers) == ["w0", "w1", "w2", "w3"]
    assert NO_WORKER not in workers
