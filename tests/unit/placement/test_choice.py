"""Policies that are asked for each step, workers that steal, and sessions that are unbound."""

from random import Random

from placement_story import Story, admitted, hello

from saga.contract.ids import SessionId, WorkerId
from saga.contract.messages import Grant, LeaderHello, SessionsReleased
from saga.kernel.effects import Decision, Tick
from saga.placement.policy import CheapestStart, SessionAffinity
from saga.placement.stealing import IdleAndUneven, Load


class AwayFromHome:
    """Anywhere but at home."""

    engine_queues = False
    stays_home = False

    def choose(self, step, candidates):
        del step
        return Decision(min(c.worker_id for c in candidates if not c.is_home), "away")


def load(name: str, running: int, queued: int, idle_s: float = 0.0) -> Load:
    return Load(worker_id=WorkerId(name), running=running, queued=queued, idle_s=idle_s)


def test_a_session_stays_home_unless_its_policy_is_asked_for_each_step():
    for policy, second in ((CheapestStart(), "w0"), (AwayFromHome(), "w1")):
        story = Story(policy)
        grant = story.grant(1, session="s")
        story.take(grant)
        story.finish(grant)

        assert grant.worker_id == "w0"
        assert story.grant(2, session="s").worker_id == second


def test_a_step_that_moves_says_so_and_its_old_home_hears_of_it():
    story = Story(AwayFromHome())
    first = story.grant(1, session="s")
    story.take(first)
    story.finish(first)

    second = story.grant(2, session="s")

    assert second.moved_from == "w0"


def test_affinity_without_engine_queues_lets_steps_wait_in_the_order_of_tags():
    story = Story(SessionAffinity(engine_queues=False), workers=1)
    first = story.grant(1)
    story.take(first)
    story.take(story.grant(2))
    assert story.hear(admitted(3, tag=5.0)) == []
    assert story.hear(admitted(4, tag=1.0)) == []

    (grant,) = [m for m in story.finish(first, final=True) if isinstance(m, Grant)]

    assert grant.step_id.endswith("4")


def test_an_unbound_session_may_go_on_anywhere():
    story = Story()
    grant = story.grant(1, session="s")
    story.take(grant)
    story.finish(grant)

    story.hear(SessionsReleased(worker_id=grant.worker_id, sessions=(SessionId("s"),), reason="unbound", fence=1))

    assert story.grant(2, session="s", home=WorkerId("w1")).worker_id == "w1"


def test_what_a_replaced_admission_releases_stays_at_home():
    story = Story()
    grant = story.grant(1, session="s")
    story.take(grant)
    story.finish(grant)
    story.hear(LeaderHello(service="admission", fence=9))

    story.hear(SessionsReleased(worker_id=grant.worker_id, sessions=(SessionId("s"),), reason="unbound", fence=8))

    assert story.core.board.sessions["s"].home == grant.worker_id


def test_a_worker_steals_when_it_has_been_idle_and_another_is_twice_as_loaded():
    rule = IdleAndUneven(Random(1))

    assert rule.victim(load("thief", 1, 0, idle_s=0.2), [load("busy", 2, 1)]) == "busy"
    assert rule.victim(load("thief", 1, 0, idle_s=0.05), [load("busy", 2, 1)]) is None
    assert rule.victim(load("thief", 2, 0, idle_s=0.2), [load("busy", 3, 1)]) is None
    assert rule.victim(load("thief", 0, 0, idle_s=0.2), [load("busy", 3, 0)]) is None
    assert rule.victim(load("thief", 0, 1), [load("busy", 3, 9)]) is None


def test_the_stolen_step_starts_at_the_thief_and_is_homed_there():
    story = Story(SessionAffinity(engine_queues=False), IdleAndUneven(Random(1)), workers=1)
    grants = [story.grant(n, session=f"s{n}") for n in (1, 2)]
    for grant in grants:
        story.take(grant)
    assert story.hear(admitted(3, session="s3")) == []  # it waits at w0, where there is no slot
    story.hear(hello("w1"))
    story.tell(Tick())
    story.now_s += 0.2

    (stolen,) = [m for m in story.tell(Tick()) if isinstance(m, Grant)]

    assert (stolen.worker_id, stolen.reason, stolen.step_id[-1]) == ("w1", "stolen", "3")
    assert story.core.board.sessions[SessionId("s3")].home == "w1"
