"""Loading ahead, as the agent's core does it: who was let go for want of room is asked for, unless it is back first."""

from itertools import pairwise
from random import Random

from forecasts import forecast
from msgspec.structs import replace

from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, SessionTag, StepId, TenantId, WorkerId
from saga.contract.messages import (
    CostModel,
    LeaseTaken,
    PrefetchAsked,
    SessionsReleased,
    StepFinished,
)
from saga.contract.subjects import Subjects
from saga.kernel.effects import Publish, Received, Tick
from saga.worker.events import Attached, EngineFacts, EngineGone
from saga.worker.prefetch import NearReturn
from saga.worker.retention import policy_named
from saga.worker.state import WorkerState

W = WorkerId("w")
FACTS = EngineFacts(
    model="m",
    page_tokens=64,
    kv_tokens=250_000,
    context_tokens=250_000,
    max_running=8,
    session_tags=True,
    cost=CostModel(prompt_s_per_token=100e-6),
    host_kv_tokens=1_000_000,
    load_s_per_token=4e-6,
)


class Agent:
    """One core, and what it published."""

    def __init__(self, facts: EngineFacts = FACTS, *, prefetch: bool = True) -> None:
        policy = policy_named("saga", 60.0, 300.0)
        self.core = WorkerState(
            W,
            "http://e",
            Subjects("c"),
            policy,
            Random(1),
            lease_ttl_s=1e9,
            prefetch=NearReturn() if prefetch else None,
        )
        self.asked: list[tuple[float, PrefetchAsked]] = []
        self.do(Attached(facts, 1), 0.0)

    def do(self, event, now_s: float) -> None:
        for effect in self.core.handle(event, now_s):
            if isinstance(effect, Publish) and isinstance(effect.message, PrefetchAsked):
                assert effect.subject == "saga.c.gateway.g"
                self.asked.append((now_s, effect.message))
        self.core.check()

    def begin(self, session: str, now_s: float, tokens: int, *, again: str = "") -> None:
        taken = LeaseTaken(
            step_id=StepId(f"step-{session}{again}"),
            attempt=0,
            lease_id=LeaseId(session + again),
            worker_id=W,
            gateway_id=GatewayId("g"),
            tenant=TenantId("t"),
            root=RootId(session),
            session=SessionId(session),
            session_tag=SessionTag(f"tag-{session}"),
            lease_ttl_s=1e9,
            prompt_tokens=tokens,
        )
        self.do(Received(taken), now_s)

    def end(self, session: str, now_s: float, tokens: int, *, final: bool = False) -> None:
        finished = StepFinished(
            step_id=StepId(f"step-{session}"),
            attempt=0,
            lease_id=LeaseId(session),
            worker_id=W,
            gateway_id=GatewayId("g"),
            tenant=TenantId("t"),
            root=RootId(session),
            session=SessionId(session),
            pool=PoolId("m"),
            prompt_tokens=tokens,
            output_tokens=0,
            cached_tokens=0,
            finish_reason="tool_calls",
            final=final,
        )
        self.do(Received(finished), now_s)

    def expect(self, session: str, now_s: float, gaps_s: tuple[float, ...]) -> None:
        told = forecast(
            root=RootId(session),
            session=SessionId(session),
            step_id=StepId(f"step-{session}"),
            worker_id=W,
            returns=1.0,
            gap_p50_s=gaps_s[3],
            gap_p90_s=gaps_s[5],
            gap_p95_s=gaps_s[6],
            gap_p99_s=gaps_s[7],
            gap_quantiles_s=gaps_s,
        )
        self.do(Received(told), now_s)

    def pass_time(self, until_s: float) -> None:
        for now_s in range(1, int(until_s) + 1):
            self.do(Tick(), float(now_s))


AT_THIRTY = (30.0, 30.05, 30.1, 30.15, 30.2, 30.25, 30.3, 30.35)


def let_go(agent: Agent) -> None:
    """A session of 100,000 tokens that returns after 30 s, and another that takes its room for ten."""
    agent.begin("a", 0.0, 100_000)
    agent.end("a", 0.0, 100_000)
    agent.expect("a", 0.0, AT_THIRTY)
    agent.begin("b", 1.0, 200_000)
    agent.end("b", 10.0, 200_000, final=True)


def test_who_was_let_go_is_asked_for_just_before_it_returns():
    agent = Agent()
    let_go(agent)
    agent.pass_time(40.0)
    ((at_s, asked),) = agent.asked
    assert 29.0 <= at_s <= 30.0
    assert (asked.session, asked.step_id, asked.prompt_tokens) == ("a", "step-a", 100_000)
    assert (asked.engine_url, asked.tenant) == ("http://e", "t")


def test_who_was_never_let_go_is_not_asked_for():
    agent = Agent()
    agent.begin("a", 0.0, 100_000)
    agent.end("a", 0.0, 100_000)
    agent.expect("a", 0.0, AT_THIRTY)
    agent.pass_time(40.0)
    assert agent.asked == []


def test_a_session_that_is_back_first_is_not_asked_for():
    agent = Agent()
    let_go(agent)
    agent.begin("a", 20.0, 100_000, again="2")
    agent.pass_time(40.0)
    assert agent.asked == []


def test_nor_one_that_is_over():
    agent = Agent()
    let_go(agent)
    agent.do(Received(SessionsReleased(worker_id=W, sessions=(SessionId("a"),), reason="closed", fence=1)), 20.0)
    agent.pass_time(40.0)
    assert agent.asked == []


def test_nor_one_whose_engine_died():
    agent = Agent()
    let_go(agent)
    agent.do(EngineGone(), 20.0)
    agent.do(Attached(FACTS, 2), 21.0)
    agent.pass_time(40.0)
    assert agent.asked == []


def test_while_others_hold_the_room_nothing_is_loaded_for_later():
    agent = Agent()
    let_go(agent)
    agent.begin("c", 11.0, 200_000)
    agent.pass_time(40.0)
    assert agent.asked == []
    assert len(agent.core.ahead) == 0


def test_guesses_get_a_quarter_of_the_link():
    """0.16 s of load each: the next is asked for 0.64 s later at the earliest."""
    agent = Agent(replace(FACTS, kv_tokens=1_000_000, host_kv_tokens=2_000_000, load_s_per_token=1.6e-6))
    for name in "abcd":
        agent.begin(name, 0.0, 100_000)
        agent.end(name, 0.0, 100_000)
        agent.expect(name, 0.0, AT_THIRTY)
    agent.begin("z", 1.0, 1_000_000)
    agent.end("z", 10.0, 1_000_000, final=True)
    for tick in range(2_900, 3_300):
        agent.do(Tick(), tick / 100)
    times_s = [at_s for at_s, _ in agent.asked]
    assert len(times_s) == 4
    assert all(later - sooner >= 0.639 for sooner, later in pairwise(times_s))


def test_without_a_tier_or_a_policy_nobody_is_asked_for():
    for agent in (Agent(replace(FACTS, host_kv_tokens=0)), Agent(prefetch=False)):
        let_go(agent)
        agent.pass_time(40.0)
        assert agent.asked == []
