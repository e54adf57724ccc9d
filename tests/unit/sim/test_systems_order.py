"""Orders of steps and of workflows, other than saga's."""

from admission_story import Story, ready

from saga.admission.policy import Everybody, OldestThatFit
from saga.admission.records import Session, Step, Workflow
from saga.contract.ids import SessionId, TenantId, WorkerId
from saga.contract.messages import StepAdmitted, Tag
from saga.sim.systems.caps import FirstThatFit, StaticCap
from saga.sim.systems.orders import By, ByRank, LeastAttainedSteps, TaskTimes
from saga.sim.systems.paper import AgentFairShare


def workflow(number: int, submitted_s: float = 0.0, **fields) -> Workflow:
    return Workflow(ready(number, **fields), submitted_s)


def tag_of(order, of: Workflow, at_s: float = 0.0, home: str = "") -> Tag:
    of.sessions[SessionId(of.root)] = Session(SessionId(of.root), SessionId(""), WorkerId(home))
    return order.tag(of, Step(ready(9, of.root, tenant=of.tenant), at_s), 0.0)


def over(of: Workflow, after_s: float) -> Workflow:
    of.last_sign_s = of.submitted_s + after_s
    return of


def test_the_deadline_of_a_class_is_one_and_a_half_times_its_mean():
    times = TaskTimes()

    times.learn(over(workflow(1, agent_class="long"), 200.0))
    times.learn(over(workflow(2, agent_class="short"), 20.0))

    assert times.deadline_s(workflow(3, 10.0, agent_class="long")) == 310.0
    assert times.deadline_s(workflow(4, 10.0, agent_class="short")) == 40.0


def test_before_anything_is_learnt_the_earliest_deadline_is_the_earliest_submission():
    times = TaskTimes()
    order = ByRank(times.deadline_s, times.learn)

    assert tag_of(order, workflow(1, 1.0)) < tag_of(order, workflow(2, 2.0))


def test_a_short_task_that_came_later_passes_a_long_one():
    times = TaskTimes()
    order = ByRank(times.deadline_s, times.learn)
    order.closed(over(workflow(1, agent_class="long"), 200.0))
    order.closed(over(workflow(2, agent_class="short"), 20.0))

    assert tag_of(order, workflow(4, 60.0, agent_class="short")) < tag_of(order, workflow(3, agent_class="long"))


def test_who_has_been_served_less_goes_first_and_inside_a_level_who_came_first():
    order = LeastAttainedSteps(first_level_s=10.0)
    fresh, served, well_served = workflow(1), workflow(2), workflow(3)
    served.served_s, well_served.served_s = 9.0, 50.0

    assert tag_of(order, fresh, at_s=5.0) < tag_of(order, well_served, at_s=1.0)
    assert tag_of(order, served, at_s=1.0) < tag_of(order, fresh, at_s=5.0)


def test_urgency_puts_the_tenant_with_more_work_and_less_time_first():
    order = AgentFairShare()
    relaxed, urgent = workflow(1, tenant=TenantId("relaxed")), workflow(2, tenant=TenantId("urgent"))
    relaxed.remaining_engine_s, urgent.remaining_engine_s = 10.0, 100.0
    tag_of(order, relaxed)
    tag_of(order, urgent, at_s=0.05)

    later = tag_of(order, relaxed, at_s=1.0), tag_of(order, urgent, at_s=1.01)

    assert later[1] < later[0]


def test_a_session_that_has_a_cache_goes_before_one_that_starts():
    order = AgentFairShare()

    assert tag_of(order, workflow(1), at_s=9.0, home="w0") < tag_of(order, workflow(2), at_s=1.0)


def test_a_static_cap_counts_workflows():
    story = Story(StaticCap(2))

    assert [len(story.admitted(ready(n))) for n in (1, 2, 3)] == [1, 1, 0]
    story.take(1)

    assert [m.step.step_id[-1] for m in story.finish(1, final=True) if isinstance(m, StepAdmitted)] == ["3"]


def test_less_remaining_work_takes_the_place_of_more_at_its_step_boundary():
    for policy in (FirstThatFit(), OldestThatFit()):
        story = Story(policy, rank=By(lambda w: w.remaining_engine_s))
        story.admitted(ready(1, prompt_tokens=6_000))
        story.take(1)
        story.core.roster.workflows["root-1"].remaining_engine_s = 50.0
        assert story.admitted(ready(2, prompt_tokens=6_000)) == []
        story.core.roster.workflows["root-2"].remaining_engine_s = 1.0
        story.core.roster.rank(story.core.roster.workflows["root-2"])

        said = story.finish(1, prompt_tokens=6_000)

        assert [m.step.step_id[-1] for m in said if isinstance(m, StepAdmitted)] == ["2"]
        assert not story.core.roster.workflows["root-1"].active


def test_an_older_step_of_another_session_follows_the_rank_of_its_workflow():
    story = Story(Everybody(), ByRank(lambda w: w.remaining_engine_s))
    story.admitted(ready(1, "root"))
    story.core.roster.workflows["root"].remaining_engine_s = 7.0

    said = story.hear(ready(2, "root", session=SessionId("other")))

    assert next(m for m in said if isinstance(m, StepAdmitted)).tag.virtual_start_s == 7.0
