"""A budget for each worker: who joins where, who waits for whom, and what happens when workers change."""

from admission_story import POOL, Story, beat_of, hello, ready, step_id

from saga.admission.joining import AWAY_S
from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.ids import GatewayId, RootId, SessionId, WorkerId
from saga.contract.messages import GatewayBeat, SessionsReleased, StepAdmitted, StepRefused, WorkerLeaving
from saga.kernel.effects import Tick


def budgets(workers: int = 2, **settings) -> Story:
    """Workers of 10,000 tokens of KV each, of which newcomers may fill 9,500."""
    return Story(WorkerBudgets(), workers=workers, **settings)


def homes(messages) -> dict[int, str]:
    """Where admitted steps are sent, by number."""
    return {int(m.step.step_id, 16): m.home for m in messages if isinstance(m, StepAdmitted)}


def arrive(story: Story, number: int, prompt_tokens: int, root: str = "", **fields) -> dict[int, str]:
    """A step that needs 100 tokens more than its prompt, one second after the last."""
    story.now_s += 1.0
    return homes(story.hear(ready(number, root, prompt_tokens=prompt_tokens, **fields)))


def end(story: Story, number: int, worker: str, root: str = "", **fields) -> dict[int, str]:
    return homes(story.finish(number, root, worker_id=WorkerId(worker), final=True, **fields))


def bound(story: Story, root: str) -> str:
    return story.core.roster.workflows[RootId(root)].bound


def test_a_newcomer_starts_where_most_room_is_left():
    story = budgets()

    assert arrive(story, 1, 6_000) == {1: "w0"}
    assert arrive(story, 2, 1_000) == {2: "w1"}
    assert arrive(story, 3, 4_000) == {3: "w1"}


def test_what_fits_the_pool_but_no_worker_waits():
    story = budgets()
    arrive(story, 1, 6_000)
    arrive(story, 2, 6_000)

    assert arrive(story, 3, 5_000) == {}, "7,800 tokens are free, 3,900 on each"


def test_all_steps_of_a_workflow_go_where_it_is_bound_its_sub_agents_too():
    story = budgets()
    arrive(story, 1, 1_000, "root")

    child = arrive(story, 2, 9_000, "root", session=SessionId("child"), parent=SessionId("root"))

    assert child == {2: "w0"}, "never held back, however much it needs"


def test_one_that_comes_back_joins_where_its_kv_was_though_another_worker_has_more_room():
    story = budgets()
    arrive(story, 1, 3_000)
    arrive(story, 2, 4_000, "stays")
    story.take(2, "stays", worker="w1")
    story.take(1)
    story.finish(1, prompt_tokens=3_000)
    story.now_s += 400.0
    story.hear(hello("w0"))
    story.hear(hello("w1"))
    story.hear(GatewayBeat(gateway_id=GatewayId("g0"), waiting=(beat_of(2),)))
    story.tell(Tick())  # its gap has been too long
    assert not story.core.roster.workflows[RootId("root-1")].active
    arrive(story, 3, 4_500, "other")
    assert bound(story, "other") == "w0"

    assert arrive(story, 4, 3_200, "root-1") == {4: "w0"}


def test_one_that_was_away_for_too_long_takes_its_place_again_from_a_younger_one():
    story = budgets(workers=1)
    arrive(story, 1, 5_000, "old")
    story.take(1, "old")
    story.finish(1, "old", prompt_tokens=5_000)
    story.now_s += 400.0
    story.hear(hello("w0"))
    story.tell(Tick())
    arrive(story, 2, 8_000, "young")
    story.take(2, "young")

    assert arrive(story, 3, 5_100, "old") == {3: "w0"}
    story.finish(2, "young", prompt_tokens=8_000)

    assert story.core.roster.pool(POOL).active == {"old"}
    assert arrive(story, 4, 8_200, "young") == {}


def test_a_newcomer_takes_nobodys_place_however_old_its_submission():
    story = budgets(workers=1)
    arrive(story, 1, 8_000, "young")
    story.now_s += 50.0

    assert homes(story.hear(ready(2, "old", waited_s=49.0, prompt_tokens=5_000))) == {}


def test_one_that_has_to_move_tells_placement_and_its_old_home():
    story = budgets()
    arrive(story, 1, 3_000)
    story.take(1)
    story.finish(1, prompt_tokens=3_000)
    story.now_s += 400.0
    story.hear(hello("w0"))
    story.hear(hello("w1"))
    story.tell(Tick())
    arrive(story, 2, 9_000, "large")
    assert bound(story, "large") == "w0"
    story.now_s += 1.0

    said = story.hear(ready(3, "root-1", prompt_tokens=3_200))

    assert homes(said) == {3: "w1"}
    released = [m for m in said if isinstance(m, SessionsReleased)]
    assert [(m.worker_id, m.reason) for m in released] == [("w0", "unbound"), ("w0", "moved")]


def test_the_youngest_of_a_worker_that_is_overgrown_is_paused_at_its_boundary_and_nobody_elsewhere():
    story = budgets()
    arrive(story, 1, 4_000, "old")
    arrive(story, 2, 6_000, "elsewhere")
    arrive(story, 3, 4_000, "young")
    assert bound(story, "young") == "w0"
    for number, root, worker in ((1, "old", "w0"), (2, "elsewhere", "w1"), (3, "young", "w0")):
        story.take(number, root, worker)
    story.finish(1, "old", prompt_tokens=7_000, output_tokens=500)
    assert story.core.roster.pool(POOL).active == {"old", "elsewhere", "young"}, "what runs is never cut"

    said = story.finish(3, "young", prompt_tokens=4_000)

    assert [m.sessions for m in said if isinstance(m, SessionsReleased)] == [(SessionId("young"),)]
    assert story.core.roster.pool(POOL).active == {"old", "elsewhere"}


def test_the_oldest_of_a_worker_is_never_paused_however_large_it_grows():
    story = budgets(workers=1)
    arrive(story, 1, 2_000, "old")
    story.take(1, "old")

    story.finish(1, "old", prompt_tokens=20_000)

    assert story.core.roster.pool(POOL).active == {"old"}


def test_the_one_that_fits_nowhere_is_promised_a_worker_and_younger_ones_join_only_others():
    story = budgets()
    arrive(story, 1, 5_000)
    arrive(story, 2, 6_000)
    assert arrive(story, 3, 8_000, "large") == {}

    assert arrive(story, 4, 3_000) == {4: "w1"}, "w0 is promised to the large one"
    assert arrive(story, 5, 3_000) == {}
    story.take(1)
    assert end(story, 1, "w0") == {3: "w0"}
    assert arrive(story, 6, 1_000) == {6: "w0"}, "the promise is kept, the worker open again"


def test_one_that_waits_for_a_worker_whose_members_all_rest_joins_once_that_cost_more_than_they_have_there():
    story = budgets(workers=1)
    arrive(story, 1, 6_000, "a")
    arrive(story, 2, 4_000, "b")
    story.finish(1, "a", worker_id=WorkerId("w0"), prompt_tokens=6_000)
    displaced_s = 700 * story.core.roster.pool(POOL).cost.prompt_s_per_token  # about: 10,200 needed, 9,500 there
    assert not story.core.roster.workflows[RootId("b")].active

    story.now_s += 0.9 * displaced_s
    assert homes(story.tell(Tick())) == {}
    story.now_s += 0.2 * displaced_s
    assert homes(story.tell(Tick())) == {2: "w0"}


def test_a_workflow_larger_than_any_budget_runs_alone_on_the_largest_worker():
    story = budgets(workers=0)
    story.hear(hello("small", kv_tokens=10_000))
    story.hear(hello("large", kv_tokens=20_000))
    arrive(story, 1, 9_800)  # more than 95 % of the small one
    assert bound(story, "root-1") == "large"
    assert arrive(story, 2, 19_500) == {}
    assert arrive(story, 3, 1_000) == {3: "small"}
    story.take(1, worker="large")

    assert end(story, 1, "large") == {2: "large"}
    assert arrive(story, 4, 100) == {4: "small"}


def test_with_no_worker_known_one_runs_and_the_others_wait_for_the_first_to_say_hello():
    story = budgets(workers=0)
    assert arrive(story, 1, 3_000) == {1: ""}
    assert arrive(story, 2, 3_000) == {}
    story.now_s += 1.0

    assert homes(story.hear(hello("w0"))) == {2: "w0"}


def test_a_dead_worker_unbinds_its_members_which_go_on_elsewhere_by_age():
    story = budgets()
    arrive(story, 1, 6_000, "gap")
    story.take(1, "gap", "w0")
    story.finish(1, "gap", prompt_tokens=6_000)
    arrive(story, 2, 3_000, "other")
    assert bound(story, "other") == "w1"

    said = story.hear(WorkerLeaving(worker_id=WorkerId("w0"), epoch=1, engine_died=True))

    assert homes(said) == {}
    assert story.core.roster.pool(POOL).active == {"other"}, "no step of it waits: it joins with its next"
    assert arrive(story, 3, 6_200, "gap") == {3: "w1"}


def test_what_ran_on_a_dead_worker_is_counted_where_it_runs_next():
    story = budgets()
    arrive(story, 1, 6_000)
    story.take(1)
    story.hear(WorkerLeaving(worker_id=WorkerId("w0"), epoch=1, engine_died=True))
    assert bound(story, "root-1") == ""
    assert story.core.roster.pool(POOL).active == {"root-1"}

    story.take(1, worker="w1")

    assert story.core.roster.pool(POOL).seats.of(RootId("root-1")) == "w1"
    assert arrive(story, 2, 4_000) == {}


def test_a_worker_that_joins_takes_who_waits():
    story = budgets(workers=1)
    arrive(story, 1, 6_000)
    assert arrive(story, 2, 6_000) == {}

    assert homes(story.hear(hello("w9"))) == {2: "w9"}


def test_one_that_runs_elsewhere_than_it_was_bound_is_bound_there():
    story = budgets()
    arrive(story, 1, 3_000)
    assert bound(story, "root-1") == "w0"

    story.take(1, worker="w1")  # placement could not use its worker

    assert bound(story, "root-1") == "w1"


def test_one_that_is_told_to_come_again_keeps_its_promise_for_a_while():
    story = budgets(workers=1, max_wait_s=5.0)
    arrive(story, 1, 6_000)
    story.take(1)
    assert arrive(story, 2, 6_000, "large") == {}
    told = []
    for _ in range(8):
        story.now_s += 1.0
        story.hear(GatewayBeat(gateway_id=GatewayId("g0"), waiting=(beat_of(1), beat_of(2))))
        story.hear(hello())
        told += [m for m in story.tell(Tick()) if isinstance(m, StepRefused)]
    assert [m.step_id for m in told] == [step_id(2)]

    assert arrive(story, 3, 1_000, "small") == {}
    assert end(story, 1, "w0") == {3: "w0"}, "nobody would run otherwise"
    assert arrive(story, 4, 1_000, "small too") == {}
    story.now_s += AWAY_S
    story.hear(hello())
    assert arrive(story, 5, 1_000, "a third") != {}
