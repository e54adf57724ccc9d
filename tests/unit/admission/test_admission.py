"""Admission's core: give it events, look at what it admits, refuses and releases."""

import pytest

from saga.admission.policy import Everybody, OldestThatFit
from saga.admission.state import AdmissionState, Loaded
from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import (
    Accepted,
    CostModel,
    Forecast,
    GatewayBeat,
    LeaderHello,
    LeaseReturned,
    LeaseTaken,
    Refused,
    ResendSteps,
    SessionsReleased,
    StepAdmitted,
    StepCancelled,
    StepFinished,
    StepReady,
    StepRefused,
    WaitingStep,
    WorkerHello,
    WorkerLeaving,
)
from saga.contract.subjects import Subjects
from saga.kernel.effects import Answer, Forget, Persist, Promoted, Publish, Received, Tick

POOL = PoolId("model")


def step_id(number: int) -> StepId:
    return StepId(f"{number:032x}")


def ready(number: int, root: str = "", **fields) -> StepReady:
    given = {
        "attempt": 0,
        "gateway_id": GatewayId("g0"),
        "tenant": TenantId("t"),
        "root": RootId(root or f"root-{number}"),
        "session": SessionId(root or f"root-{number}"),
        "pool": POOL,
        "prompt_tokens": 3_000,
        "max_output_tokens": 100,
        "page_tokens": 16,
    }
    return StepReady(step_id=step_id(number), **(given | fields))


def hello(name: str = "w0", **fields) -> WorkerHello:
    given = {
        "engine_url": "http://w",
        "pool": POOL,
        "epoch": 1,
        "page_tokens": 16,
        "kv_tokens": 10_000,
        "context_tokens": 8_000,
        "max_running": 8,
        "session_tags": True,
        "cost": CostModel(prompt_s_per_token=1e-3, output_s_per_token=1e-2),
    }
    return WorkerHello(worker_id=WorkerId(name), **(given | fields))


class Story:
    """An admission core, and short words for what happens to it."""

    def __init__(self, policy=None, *, leading: bool = True, workers: int = 1, **settings) -> None:
        self.now_s = 100.0
        self.core = AdmissionState(Subjects(), policy or OldestThatFit(), **settings)
        self.rows: dict[str, bytes] = {}
        if leading:
            self.tell(Promoted(3))
        for number in range(workers):
            self.hear(hello(f"w{number}"))

    def tell(self, event):
        effects = self.core.handle(event, self.now_s)
        self.core.check()
        for effect in effects:
            if isinstance(effect, Persist):
                self.rows[effect.key] = effect.value
            elif isinstance(effect, Forget):
                self.rows.pop(effect.key, None)
        return [effect.message for effect in effects if isinstance(effect, Publish | Answer)]

    def hear(self, message):
        return self.tell(Received(message))

    def admitted(self, message) -> list[StepId]:
        return [m.step.step_id for m in self.hear(message) if isinstance(m, StepAdmitted)]

    def take(self, number: int, root: str = "", worker: str = "w0") -> None:
        self.hear(
            LeaseTaken(
                step_id=step_id(number),
                attempt=0,
                lease_id=LeaseId(f"lease-{number}"),
                worker_id=WorkerId(worker),
                gateway_id=GatewayId("g0"),
                tenant=TenantId("t"),
                root=RootId(root or f"root-{number}"),
                session=SessionId(root or f"root-{number}"),
                session_tag="",
                lease_ttl_s=5.0,
            )
        )

    def finish(self, number: int, root: str = "", **fields):
        given = {
            "attempt": 0,
            "lease_id": LeaseId(f"lease-{number}"),
            "worker_id": WorkerId("w0"),
            "gateway_id": GatewayId("g0"),
            "tenant": TenantId("t"),
            "root": RootId(root or f"root-{number}"),
            "session": SessionId(root or f"root-{number}"),
            "pool": POOL,
            "prompt_tokens": 3_000,
            "output_tokens": 100,
            "cached_tokens": 0,
            "finish_reason": "stop",
        }
        return self.hear(StepFinished(step_id=step_id(number), **(given | fields)))


def test_a_step_of_a_workflow_that_fits_goes_on_at_once():
    story = Story()

    accepted, admitted = story.hear(ready(1))

    assert accepted == Accepted(step_id=step_id(1), attempt=0, fence=3)
    assert isinstance(admitted, StepAdmitted)
    assert admitted.waited == "none"


def test_workflows_beyond_the_kv_wait_their_turn_oldest_first():
    story = Story()  # 10,000 tokens of KV, three workflows of 3,100 fit in 95 % of it
    for number in (1, 2, 3):
        assert story.admitted(ready(number)) == [step_id(number)]
        story.now_s += 1.0
    assert story.admitted(ready(4)) == []
    story.now_s += 1.0
    assert story.admitted(ready(5)) == []

    messages = story.finish(2, final=True)

    (next_up,) = [m for m in messages if isinstance(m, StepAdmitted)]
    assert next_up.step.step_id == step_id(4)
    assert next_up.waited == "inactive"


def test_a_large_workflow_is_not_overtaken():
    story = Story()
    story.admitted(ready(1, prompt_tokens=5_000))
    story.now_s += 1.0
    assert story.admitted(ready(2, prompt_tokens=6_000)) == []
    story.now_s += 1.0

    assert story.admitted(ready(3, prompt_tokens=1_000)) == []


def test_one_workflow_is_always_active_even_if_it_is_larger_than_the_budget():
    story = Story()

    assert story.admitted(ready(1, prompt_tokens=9_900)) == [step_id(1)]


def test_steps_of_an_active_workflow_are_never_held_back():
    story = Story()
    for number in (1, 2, 3):
        story.admitted(ready(number))
        story.take(number)

    assert story.admitted(ready(9, "root-1", session=SessionId("sub-agent"), parent=SessionId("root-1"))) == [
        step_id(9)
    ]


def test_a_workflow_is_paused_at_its_step_boundary_and_its_kv_released():
    story = Story()
    for number in (1, 2, 3):
        story.admitted(ready(number))
        story.take(number)
        story.now_s += 1.0
    story.finish(1, prompt_tokens=3_000, output_tokens=3_000)  # the oldest has grown: 6,000 + 3 x 3,100 do not fit

    messages = story.finish(3)

    (released,) = [m for m in messages if isinstance(m, SessionsReleased)]
    assert released.sessions == (SessionId("root-3"),)
    assert released.reason == "paused"
    assert story.admitted(ready(8, "root-3")) == []


def test_a_workflow_that_stays_away_longer_than_forecast_makes_room():
    story = Story()
    for number in (1, 2, 3):
        story.admitted(ready(number))
        story.take(number)
        story.finish(number)
        story.now_s += 0.1
    assert story.admitted(ready(4)) == []
    story.hear(
        Forecast(
            root=RootId("root-1"),
            session=SessionId("root-1"),
            step_id=step_id(1),
            worker_id=WorkerId("w0"),
            returns=0.9,
            gap_p50_s=1.0,
            gap_p90_s=2.0,
            gap_p95_s=3.0,
            gap_p99_s=9.0,
            new_tokens=100.0,
            remaining_steps=5.0,
            remaining_engine_s=3.0,
            samples=10,
        )
    )
    story.hear(hello())
    story.now_s += 2.1
    story.hear(GatewayBeat(gateway_id=GatewayId("g0"), waiting=(beat_of(4),)))

    messages = story.tell(Tick())

    assert [m.step.step_id for m in messages if isinstance(m, StepAdmitted)] == [step_id(4)]


def beat_of(number: int, attempt: int = 0, waited_s: float = 1.0) -> WaitingStep:
    return WaitingStep(step_id=step_id(number), attempt=attempt, waited_s=waited_s)


def test_a_parent_that_waits_for_its_children_claims_nothing():
    story = Story()
    story.admitted(ready(1, "root"))
    story.take(1, "root")
    story.finish(1, "root")
    before = story.core.roster.pool(POOL).total_claim_tokens

    story.hear(ready(2, "root", session=SessionId("child"), parent=SessionId("root"), prompt_tokens=500))

    assert before == 3_100
    assert story.core.roster.pool(POOL).total_claim_tokens == 600


def test_the_baseline_admits_everybody():
    story = Story(Everybody())

    assert [story.admitted(ready(n)) for n in range(20)] == [[step_id(n)] for n in range(20)]


def test_tenants_take_turns_whatever_they_send():
    story = Story(Everybody())
    tags = {}
    for number in range(12):
        tenant = "light" if number in (10, 11) else "flood"
        (admitted,) = [m for m in story.hear(ready(number, tenant=TenantId(tenant))) if isinstance(m, StepAdmitted)]
        tags[number] = admitted.tag

    order = sorted(tags, key=lambda n: tags[n])

    assert set(order[:4]) == {0, 10, 1, 11}


def test_a_heavier_tenant_gets_more_turns():
    story = Story(Everybody())
    story.core.book.fair.set_weight(TenantId("heavy"), 3.0)
    tags = {}
    for number in range(16):
        tenant = TenantId("heavy" if number % 2 else "light")
        (admitted,) = [m for m in story.hear(ready(number, tenant=tenant)) if isinstance(m, StepAdmitted)]
        tags[number] = admitted.tag

    first = sorted(tags, key=lambda n: tags[n])[:8]

    assert sum(number % 2 for number in first) == 6


def test_a_charge_is_corrected_when_the_truth_is_known():
    story = Story(Everybody())
    story.admitted(ready(1))
    story.take(1)
    estimated = story.core.book.steps[step_id(1)].charged_s

    story.finish(1, cached_tokens=3_000, output_tokens=10)

    assert estimated == pytest.approx(3.0 + 100 * 0.01)
    assert story.core.roster.workflows[RootId("root-1")].served_s == pytest.approx(0.1)


def test_a_step_cancelled_before_it_ran_costs_nothing():
    story = Story(Everybody())
    story.admitted(ready(1))

    story.hear(
        StepCancelled(
            step_id=step_id(1),
            attempt=0,
            gateway_id=GatewayId("g0"),
            tenant=TenantId("t"),
            root=RootId("root-1"),
            session=SessionId("root-1"),
        )
    )

    (admitted,) = [m for m in story.hear(ready(2)) if isinstance(m, StepAdmitted)]
    assert admitted.tag.virtual_start_s == 0.0


def test_a_model_nobody_serves_is_refused_with_those_that_are():
    story = Story()

    (refused,) = story.hear(ready(1, pool=PoolId("gpt-9")))

    assert isinstance(refused, Refused)
    assert refused.reason == "unknown_model"
    assert "model" in refused.detail


def test_a_prompt_no_worker_can_hold_is_refused():
    story = Story()

    (refused,) = story.hear(ready(1, prompt_tokens=10_001))

    assert refused.reason == "too_large"


def test_waiting_is_bounded_in_number():
    story = Story(max_waiting_steps=2)
    story.admitted(ready(1, prompt_tokens=9_000))
    for number in (2, 3):
        story.hear(ready(number))

    (refused,) = story.hear(ready(4))

    assert (refused.reason, refused.retry_after_s > 0) == ("too_many_waiting", True)


def test_waiting_is_bounded_in_time():
    story = Story(max_wait_s=10.0)
    story.admitted(ready(1, prompt_tokens=9_000))
    story.hear(ready(2))
    beat = GatewayBeat(gateway_id=GatewayId("g0"), waiting=(beat_of(1), beat_of(2)))
    refused = []
    for _ in range(12):
        story.now_s += 1.0
        story.hear(beat)
        story.hear(hello())
        refused += [m for m in story.tell(Tick()) if isinstance(m, StepRefused)]

    assert [(m.step_id, m.reason) for m in refused] == [(step_id(2), "wait_bound")]


def test_a_step_sent_twice_is_admitted_to_placement_again_but_charged_once():
    story = Story(Everybody())
    story.hear(ready(1))
    finish_before = story.core.book.fair.charge(TenantId("t"), 0.0)

    accepted, again = story.hear(ready(1, waited_s=0.25))

    assert isinstance(accepted, Accepted)
    assert isinstance(again, StepAdmitted)
    assert story.core.book.fair.charge(TenantId("t"), 0.0) == finish_before


def test_a_dead_engine_leads_back_to_admitted_with_the_next_attempt():
    story = Story()
    story.admitted(ready(1))
    story.take(1)
    story.hear(
        LeaseReturned(
            step_id=step_id(1),
            attempt=0,
            lease_id=LeaseId("lease-1"),
            worker_id=WorkerId("w0"),
            gateway_id=GatewayId("g0"),
            reason="engine_died",
            next_attempt=1,
        )
    )

    (again,) = story.hear(LeaderHello(service="placement", fence=2))

    assert again.step.attempt == 1


def test_a_step_nobody_names_is_aborted():
    story = Story()
    story.admitted(ready(1))
    story.now_s += 6.0

    story.tell(Tick())

    assert story.core.book.steps == {}


def test_a_beat_that_names_unknown_steps_is_asked_back():
    story = Story()

    (ask,) = story.hear(GatewayBeat(gateway_id=GatewayId("g0"), waiting=(beat_of(1), beat_of(2, waited_s=0.1))))

    assert isinstance(ask, ResendSteps)
    assert ask.step_ids == (step_id(1),)


def test_the_end_of_a_workflow_releases_its_kv_and_its_row():
    story = Story()
    story.admitted(ready(1))
    story.take(1)
    assert len(story.rows) == 1

    messages = story.finish(1, final=True)

    assert [m.reason for m in messages if isinstance(m, SessionsReleased)] == ["closed"]
    assert story.rows == {}
    assert story.core.roster.workflows == {}


def test_a_new_leader_knows_ages_and_homes_from_the_table():
    old = Story(wall_offset_s=1_000.0)
    old.admitted(ready(1))
    old.take(1)
    old.now_s += 50.0
    old.finish(1)

    new = Story(leading=False, wall_offset_s=500.0)  # another machine: its monotonic clock began elsewhere
    new.now_s = 700.0
    new.tell(Loaded(tuple(old.rows.values())))
    new.tell(Promoted(4))
    (admitted,) = [m for m in new.hear(ready(2, "root-1")) if isinstance(m, StepAdmitted)]

    assert admitted.home == "w0"
    assert admitted.tag.order == pytest.approx(100.0 + 1_000.0 - 500.0)


def test_a_standby_follows_in_silence_and_admits_again_when_promoted():
    standby = Story(leading=False)
    assert standby.hear(ready(1)) == []

    hello_, admitted = standby.tell(Promoted(9))

    assert hello_ == LeaderHello(service="admission", fence=9)
    assert (admitted.step.step_id, admitted.fence) == (step_id(1), 9)


def test_lost_workers_shrink_the_active_set_but_cut_nothing_that_runs():
    story = Story(workers=2)
    for number in range(1, 6):
        story.admitted(ready(number))
        story.take(number)
        story.now_s += 0.01

    story.hear(WorkerLeaving(worker_id=WorkerId("w1"), epoch=1, engine_died=True))

    assert len(story.core.book.steps) == 5
    assert story.admitted(ready(9)) == []
