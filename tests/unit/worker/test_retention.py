"""How long idle sessions are kept, and what their worker tells the engine they are worth."""

from random import Random

import msgspec
import pytest
from forecasts import forecast

from saga.contract.errors import StartError
from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, SessionTag, StepId, TenantId, WorkerId
from saga.contract.messages import LeaseTaken, PagesStored, StepFinished
from saga.contract.subjects import Subjects
from saga.kernel.effects import Decision, Received
from saga.worker.events import Attached, CloseTag, EngineFacts, KvEvents, SetRetention
from saga.worker.retention import Idle, Lru, RetentionPolicy, Saga, Tags, Values, policy_named
from saga.worker.state import WorkerState

FACTS = EngineFacts(model="m", page_tokens=16, kv_tokens=160, context_tokens=100, max_running=4, session_tags=True)
FORECAST = forecast()


class Worth(RetentionPolicy):
    """A policy that remembers what it was asked, and counts up."""

    tells = True

    def __init__(self) -> None:
        self.asked: list[tuple[bool, Idle]] = []

    def keep_s(self, forecast, idle):
        del forecast, idle
        return Decision(60.0, "test")

    def value(self, forecast, idle):
        self.asked.append((forecast is not None, idle))
        return float(len(self.asked))


def values_told(policy: RetentionPolicy) -> list[SetRetention]:
    """What the engine is told when a session's step ends at 10 s and its forecast comes."""
    core = WorkerState(WorkerId("w"), "http://w", Subjects(), policy, Random(1), lease_ttl_s=5.0)
    core.handle(Attached(FACTS, 1), 0.0)
    core.handle(KvEvents((PagesStored(b"12345678" + b"abcdefgh"),)), 1.0)
    who = {
        "step_id": StepId("x"),
        "attempt": 0,
        "lease_id": LeaseId("l"),
        "worker_id": WorkerId("w"),
        "gateway_id": GatewayId("g"),
        "tenant": TenantId("t"),
        "root": RootId("r"),
        "session": SessionId("s"),
    }
    taken = LeaseTaken(**who, session_tag=SessionTag("s#0"), lease_ttl_s=5.0)
    finished = StepFinished(
        **who, pool=PoolId("m"), prompt_tokens=70, output_tokens=7, cached_tokens=0, finish_reason="stop"
    )
    effects = []
    for message, now_s in ((taken, 5.0), (finished, 10.0), (FORECAST, 10.1)):
        effects += core.handle(Received(message), now_s)
    return [effect for effect in effects if isinstance(effect, SetRetention)]


def test_the_engine_is_told_at_the_end_of_a_step_and_again_when_its_forecast_comes():
    policy = Worth()

    assert values_told(policy) == [SetRetention(SessionTag("s#0"), 1.0), SetRetention(SessionTag("s#0"), 2.0)]
    assert [known for known, _ in policy.asked] == [False, True]


def test_a_policy_knows_when_the_step_ended_how_large_its_context_is_and_how_full_the_engine():
    policy = Worth()
    values_told(policy)

    assert policy.asked[-1][1] == Idle(ended_s=10.0, now_s=10.1, context_tokens=77, used_share=0.2)


def test_policies_that_go_by_age_tell_the_engine_nothing():
    for policy in (Tags(60.0, 300.0), Lru(60.0, 300.0)):
        assert values_told(policy) == []


def test_times_set_in_engine_seconds_shrink_with_a_faster_engine():
    tags = Tags(60.0, 300.0)

    assert tags.keep_s(None, Idle()).choice == 60.0
    assert tags.keep_s(None, Idle(speed=10.0)).choice == 6.0
    assert tags.keep_s(FORECAST, Idle()).choice == 3.0
    assert tags.keep_s(FORECAST, Idle(final=True)).choice == 0.0


def test_saga_keeps_while_there_is_room_unless_it_is_over():
    saga = Saga(60.0, 300.0)

    assert saga.keep_s(FORECAST, Idle()).choice > 3600.0
    assert saga.keep_s(None, Idle(final=True)).choice == 0.0
    assert saga.keep_s(msgspec.structs.replace(FORECAST, returns=0.01), Idle()).choice == 0.0
    assert saga.keep_s(msgspec.structs.replace(FORECAST, returns=0.01, samples=0), Idle()).choice > 0.0


def test_saga_prefers_who_returns_sooner_and_likelier_and_asks_again_ever_less_often():
    saga = Saga(60.0, 300.0)
    idle = Idle(ended_s=1.0, now_s=1.0)
    soon = msgspec.structs.replace(FORECAST, gap_p50_s=0.1)
    unlikely = msgspec.structs.replace(FORECAST, returns=0.1)

    assert saga.value(soon, idle) > saga.value(FORECAST, idle) > saga.value(unlikely, idle) > 0.0
    assert saga.good_s(FORECAST, idle) == 1.0
    assert saga.good_s(FORECAST, Idle(now_s=100.0)) == 30.0
    assert saga.good_s(FORECAST, Idle(speed=10.0)) == 0.1


def test_only_an_engine_with_the_plugin_is_told_values():
    assert values_told(Saga(60.0, 300.0)) == []
    assert len(values_told(Values(60.0, 300.0))) == 2


def test_the_published_rules_are_there_by_name_alone_and_together():
    ttl, walru, paper = (policy_named(name, 60.0, 300.0) for name in ("ttl", "walru", "paper"))
    idle = Idle(context_tokens=100, used_share=1.0)

    assert ttl.keep_s(FORECAST, idle) == paper.keep_s(FORECAST, idle)
    assert ttl.value(FORECAST, idle) is None
    assert walru.value(FORECAST, idle) == paper.value(FORECAST, idle)
    assert walru.keep_s(FORECAST, idle).choice > 300.0 > paper.keep_s(FORECAST, idle).choice


def test_an_unknown_policy_is_refused_with_the_known_ones():
    with pytest.raises(StartError, match="lru, paper, saga, tags, ttl, values, walru"):
        policy_named("best", 60.0, 300.0)


def test_a_worker_whose_tags_cover_more_than_its_engine_has_closes_the_least_worth():
    core = WorkerState(WorkerId("w"), "http://w", Subjects(), Saga(60.0, 300.0), Random(1), lease_ttl_s=5.0)
    core.handle(Attached(FACTS, 1), 0.0)
    closed = []
    for number, name in enumerate(("a", "b")):
        who = {
            "step_id": StepId(name),
            "attempt": 0,
            "lease_id": LeaseId(name),
            "worker_id": WorkerId("w"),
            "gateway_id": GatewayId("g"),
            "tenant": TenantId("t"),
            "root": RootId("r"),
            "session": SessionId(name),
        }
        taken = LeaseTaken(**who, session_tag=SessionTag(name), lease_ttl_s=5.0, prompt_tokens=90)
        finished = StepFinished(
            **who, pool=PoolId("m"), prompt_tokens=90, output_tokens=5, cached_tokens=0, finish_reason="stop"
        )
        for message in (taken, finished):
            effects = core.handle(Received(message), 10.0 + number)
            closed += [effect.tag for effect in effects if isinstance(effect, CloseTag)]
            core.check()

    assert closed == ["a"], "as soon as the prompt of b wants its room"
