"""Leases, beats, claims and leaders: what placement believes when messages are lost."""

from placement_story import Story, admitted, hello, step_id, waiting

from saga.contract.ids import GatewayId, LeaseId, TenantId, WorkerId
from saga.contract.messages import (
    GatewayBeat,
    Grant,
    Heartbeat,
    LeaderHello,
    LeaseReturned,
    LeaseTaken,
    PagesStored,
    ResendSteps,
    ResidencyDelta,
    ResyncRequest,
    RunningLease,
    SessionsReleased,
    StepClaim,
)
from saga.kernel.effects import Demoted, Promoted, Reconnected, Tick


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


def test_a_dead_engines_step_starts_elsewhere_at_once():
    story = Story()
    grant = story.grant(1)
    story.take(grant)

    (again,) = story.give_back(grant, "engine_died", next_attempt=1)

    assert again.worker_id != grant.worker_id
    assert (again.attempt, again.waited) == (1, "retry")
    assert again.moved_from == grant.worker_id


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


def test_a_grant_that_comes_back_fenced_is_not_made_again_until_somebody_admits_the_step_anew():
    story = Story(workers=1)
    grant = story.grant(1)  # its gateway has heard of a later admission, this placement has not
    fenced = LeaseReturned(
        step_id=grant.step_id,
        attempt=0,
        lease_id=grant.lease_id,
        worker_id=grant.worker_id,
        gateway_id=GatewayId("g0"),
        reason="fenced",
    )

    assert story.hear(fenced) == []
    assert story.core.board.leases == {}

    (ask,) = story.hear(GatewayBeat(gateway_id=GatewayId("g0"), waiting=(waiting(1),)))
    assert isinstance(ask, ResendSteps)
    assert story.grant(1, fence=9).admission_fence == 9


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
