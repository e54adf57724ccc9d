"""The pages of a session, told by the engine's own events to placement, for a gateway that cannot tell them."""

from random import Random

from saga.contract.ids import GatewayId, LeaseId, RootId, SessionId, SessionTag, StepId, TenantId, WorkerId
from saga.contract.messages import LeaseTaken, PagesRemoved, PagesStored, StepChain
from saga.contract.subjects import Subjects
from saga.kernel.effects import Publish, Received, Tick
from saga.worker.events import Attached, EngineFacts, EngineGone, KvEvents, KvEventsLost, StoredBy, TagClosed
from saga.worker.retention import policy_named
from saga.worker.state import WorkerState

W = WorkerId("w")
FACTS = EngineFacts(
    model="m", page_tokens=64, kv_tokens=250_000, context_tokens=250_000, max_running=8, session_tags=True
)


def pages(*names):
    return b"".join(name.encode().ljust(8, b"_") for name in names)


def stored(tag, parent, *names):
    by = StoredBy(0, SessionTag(tag), pages(parent) if parent else b"")
    return KvEvents((PagesStored(pages(*names)),), stored_by=(by,))


class Agent:
    def __init__(self):
        policy = policy_named("saga", 60.0, 300.0)
        self.core = WorkerState(W, "http://e", Subjects("c"), policy, Random(1), lease_ttl_s=1e9)
        self.now_s = 0.0
        self.do(Attached(FACTS, 1))

    def do(self, event):
        """The chains that placement gets of it, once the batch has left."""
        self.now_s += 1.0
        effects = [*self.core.handle(event, self.now_s), *self.core.handle(Tick(), self.now_s + 0.5)]
        told = [effect for effect in effects if isinstance(effect, Publish) and isinstance(effect.message, StepChain)]
        assert all(effect.subject == "saga.c.leaders.word" for effect in told)
        return [(effect.message.session, effect.message.hashes) for effect in told]

    def run(self, session, tag, *, pages_known=False):
        return self.do(
            Received(
                LeaseTaken(
                    step_id=StepId(f"step-{session}"),
                    attempt=0,
                    lease_id=LeaseId(f"{session}-{self.now_s}"),
                    worker_id=W,
                    gateway_id=GatewayId("g"),
                    tenant=TenantId("t"),
                    root=RootId(session),
                    session=SessionId(session),
                    session_tag=SessionTag(tag),
                    lease_ttl_s=1e9,
                    pages_known=pages_known,
                )
            )
        )


def test_placement_learns_the_chain_as_the_engine_stores_it():
    agent = Agent()
    agent.run("s", "tag-s")
    assert agent.do(stored("tag-s", "", "a", "b")) == [("s", pages("a", "b"))]
    assert agent.do(stored("tag-s", "b", "c")) == [("s", pages("a", "b", "c"))]


def test_pages_that_another_session_stored_are_part_of_it():
    agent = Agent()
    agent.run("one", "tag-1")
    agent.do(stored("tag-1", "", "system", "x"))
    agent.run("two", "tag-2")
    assert agent.do(stored("tag-2", "system", "y")) == [("two", pages("system", "y"))]


def test_a_history_that_was_rewritten_is_another_chain():
    agent = Agent()
    agent.run("s", "tag-s")
    agent.do(stored("tag-s", "", "a", "b", "c"))
    assert agent.do(stored("tag-s", "a", "d")) == [("s", pages("a", "d"))]


def test_what_the_engine_stored_before_anybody_asked_is_known_too():
    agent = Agent()
    agent.do(stored("", "", "root", "system"))
    agent.run("s", "tag-s")
    assert agent.do(stored("tag-s", "system", "a")) == [("s", pages("root", "system", "a"))]


def test_what_was_lost_of_the_events_is_missing_at_the_head():
    agent = Agent()
    agent.do(stored("", "", "root", "system"))
    agent.do(KvEventsLost())
    agent.run("s", "tag-s")
    assert agent.do(stored("tag-s", "system", "a")) == [("s", pages("system", "a"))]


def test_pages_that_went_are_forgotten():
    agent = Agent()
    agent.do(stored("", "", "root", "x"))
    agent.do(KvEvents((PagesRemoved(pages("x")),)))
    assert list(agent.core.attribution._before) == [pages("root")]


def test_nothing_is_told_of_sessions_whose_pages_are_known_or_of_nothing_new():
    agent = Agent()
    agent.run("s", "tag-s", pages_known=True)
    assert agent.do(stored("tag-s", "", "a")) == []
    agent.run("t", "tag-t")
    agent.do(stored("tag-t", "", "b"))
    assert agent.do(KvEvents((PagesRemoved(pages("b")),))) == []


def test_a_closed_tag_and_a_dead_engine_are_forgotten():
    agent = Agent()
    agent.run("s", "tag-s")
    agent.do(TagClosed(SessionTag("tag-s")))
    assert agent.do(stored("tag-s", "", "a")) == []
    agent.run("t", "tag-t")
    agent.do(EngineGone())
    agent.do(Attached(FACTS, 2))
    assert agent.do(stored("tag-t", "", "b")) == []
