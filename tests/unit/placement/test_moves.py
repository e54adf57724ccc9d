"""Steps that wait at home and start elsewhere: when it pays, not too often, and without a step lost."""

from itertools import count, pairwise
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from placement_story import Story, admitted, step_id

from saga.contract.ids import NO_WORKER, SessionId, WorkerId
from saga.contract.messages import CostModel, Grant, PagesStored, ResidencyDelta, SessionsReleased
from saga.kernel.effects import Reconnected, Tick
from saga.placement.policy import SessionAffinity
from saga.placement.pricing import Placed, Price, Priced
from saga.placement.records import STICKY_STEPS
from saga.placement.stealing import IdleAndUneven, SavedWait, stealing_named

COST = CostModel(prompt_s_per_token=1e-4, output_s_per_token=1e-2)


def crowded(*, prompt: int = 1_000, waiting: int = 1, **facts) -> tuple[Story, list[Grant]]:
    """Two workers; sessions `a0`, `a1`, ... at home on w0 have its slots, and more of them wait for one."""
    story = Story(Priced(), SavedWait(), workers=2, **({"cost": COST} | facts))
    grants = []
    for number in range(2 + waiting):
        story.hear(admitted(100 + number, session=f"a{number}", prompt=prompt, home=WorkerId("w0")))
    grants = list(story.core.board.leases.values())
    return story, grants


def granted(messages) -> list[Grant]:
    return [m for m in messages if isinstance(m, Grant)]


def test_a_step_that_waits_starts_where_there_is_room_when_that_saves_more_than_it_costs():
    story, _ = crowded()

    (moved,) = granted(story.tell(Tick()))

    assert (moved.worker_id, moved.reason, moved.moved_from) == ("w1", "saves_wait", "w0")


def test_the_old_home_lets_the_session_go():
    story, _ = crowded()
    (moved,) = granted(story.tell(Tick()))

    (released,) = story.hear_taken(moved)

    assert isinstance(released, SessionsReleased)
    assert (released.worker_id, released.sessions, released.reason) == ("w0", (moved.session,), "moved")


def test_a_step_stays_when_its_context_would_cost_more_than_the_wait():
    story = Story(Priced(), SavedWait(), cost=CostModel(prompt_s_per_token=1e-2, output_s_per_token=1e-4))
    pages = b"".join(bytes([n % 250 + 1, n // 250] * 4) for n in range(430))
    story.hear(ResidencyDelta(worker_id=WorkerId("w0"), epoch=1, seq=1, changes=(PagesStored(pages),)))
    for number in (1, 2):
        story.grant(number, prompt=50, home=WorkerId("w0"))
    story.hear(admitted(3, session="long", prompt=7_000, new_hashes=pages, home=WorkerId("w0")))

    assert granted(story.tell(Tick())) == []
    assert len(story.core.board.at_home[WorkerId("w0")]) == 1


def test_a_worker_whose_sessions_need_its_kv_takes_nothing():
    story, _ = crowded()
    session = story.core.board.session(SessionId("resident"), "r")
    story.core.board.settle(session, WorkerId("w1"), 9_500)

    assert granted(story.tell(Tick())) == []


def test_a_session_that_has_moved_stays_for_ten_steps():
    story, _ = crowded()
    (moved,) = granted(story.tell(Tick()))
    story.take(moved)
    story.finish(moved)
    session = story.core.board.sessions[moved.session]

    for number in range(200, 200 + STICKY_STEPS + 1):
        for blocker in (1, 2):
            story.hear(admitted(1_000 * number + blocker, home=session.home))
        assert granted(story.hear(admitted(number, session=moved.session))) == []
        moves = [g for g in granted(story.tell(Tick())) if g.session == moved.session]
        assert bool(moves) == (session.steps > STICKY_STEPS), f"{session.steps} steps"
        while story.core.board.leases:
            story.end(next(iter(story.core.board.leases.values())))
        if moves:
            break
    else:
        raise AssertionError("it never moved again")


class Listening:
    """Moves nobody, and remembers what was said to wait in front of each, and what its leaving would spare others."""

    every_s = 0.25

    def __init__(self) -> None:
        self.ahead: list[tuple[int, float, float]] = []

    def move(self, _step, home, _others) -> Placed:
        self.ahead.append((home.queued_steps, home.queued_engine_s, home.behind_engine_s))
        return Placed(NO_WORKER, "listens")


def test_a_step_waits_for_those_in_front_of_it_and_those_behind_wait_for_it():
    policy = Listening()
    story = Story(Priced(), policy, workers=2, cost=COST)
    for number in range(5):
        story.hear(admitted(number, session=f"a{number}", home=WorkerId("w0")))

    story.tell(Tick())

    steps, seconds, spared = zip(*policy.ahead, strict=True)
    each_s = seconds[1]
    assert steps == (0, 1, 2)
    assert seconds == (0.0, each_s, 2 * each_s)
    assert spared == (2 * each_s, each_s, 0.0)
    assert each_s > 0.0


def test_a_step_that_is_stolen_by_load_says_what_it_would_have_waited_and_what_it_costs():
    story = Story(SessionAffinity(engine_queues=False), IdleAndUneven(Random(1)), workers=2, cost=COST)
    for number in range(4):
        story.hear(admitted(number, session=f"s{number}", home=WorkerId("w0")))
    story.now_s += 1.0

    (stolen, *_) = granted(story.tell(Tick()))
    there, here = story.core.board.steps[stolen.step_id].prices

    assert stolen.reason == "stolen"
    assert (there.worker_id, here.worker_id) == ("w1", "w0")
    assert here.wait_s > there.wait_s == 0.0


def test_policies_of_stealing_have_names():
    assert stealing_named("off", "seed") is None
    assert isinstance(stealing_named("saga", "seed"), SavedWait)
    assert stealing_named("paper", "seed").every_s == 0.1


def test_without_a_policy_of_stealing_steps_wait():
    story = Story(SessionAffinity(engine_queues=False), None, workers=2)
    for number in range(3):
        story.hear(admitted(number, session=f"s{number}", home=WorkerId("w0")))

    assert granted(story.tell(Tick())) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 11), st.integers(0, 3), st.integers(100, 3_000)), max_size=150))
def test_whatever_happens_no_step_is_lost_and_no_session_goes_to_and_fro(happenings):
    story = Story(Priced(), SavedWait(), workers=3, cost=COST)
    numbers = count(1)
    asked: dict[str, str] = {}  # step, session
    got: list[Grant] = []

    explained: dict[str, tuple[Price, ...]] = {}  # the steps that moved, what they cost there and here

    def hear(messages):
        for grant in granted(messages):
            got.append(grant)
            if grant.reason == "saves_wait":
                explained[grant.step_id] = story.core.board.steps[grant.step_id].prices

    for session, what, prompt in happenings:
        live = {step.admitted.step.session for step in story.core.board.steps.values()}
        if what < 2 and f"s{session}" not in live:
            number = next(numbers)
            asked[step_id(number)] = f"s{session}"
            hear(story.hear(admitted(number, session=f"s{session}", prompt=prompt, home=WorkerId(f"w{session % 2}"))))
        elif what == 2 and story.core.board.leases:
            hear(story.end(next(iter(story.core.board.leases.values()))))
        else:
            story.now_s += 0.25
            story.tell(Reconnected())  # time passes, and nobody is late: neither heartbeats nor renewals
            hear(story.tell(Tick()))
    while story.core.board.leases:
        hear(story.end(next(iter(story.core.board.leases.values()))))

    assert sorted(grant.step_id for grant in got) == sorted(asked), "each step is granted, and once"
    moves = [grant for grant in got if grant.reason == "saves_wait" and grant.ran_at not in ("", grant.worker_id)]
    for there, here in explained.values():
        regenerated_s = max(0.0, there.prefill_s - here.prefill_s)
        saved_s = here.wait_s + here.behind_s - there.wait_s
        assert saved_s > 2.0 * regenerated_s, "prefill that is repeated never comes to half of the waiting saved"
    assert len(moves) <= 1 + len(got) / STICKY_STEPS
    for name in set(asked.values()):
        own = [grant for grant in got if grant.session == name]
        at = [index for index, grant in enumerate(own) if grant in moves]
        assert all(later - earlier >= STICKY_STEPS for earlier, later in pairwise(at))
