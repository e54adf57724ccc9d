"""What Prometheus is told of tasks: how long, on time or not, and what their prompts cost."""

import pytest
from admission_story import Story, ready

from saga.admission.events import Loaded
from saga.admission.task_metrics import OTHER, UNKNOWN, Names, TaskMetrics
from saga.contract.ids import RootId, SessionId, TenantId
from saga.contract.messages import WorkflowEnded
from saga.kernel.effects import Demoted, Promoted, Tick
from saga.runtime.metrics import REGISTRY


def value(name: str, **labels: str) -> float:
    """As scraped; 0 where there is no such series."""
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Watch:
    """What has been counted of one tenant and class since this was made. Each test has a tenant of its own."""

    def __init__(self, tenant: str, agent_class: str) -> None:
        self._labels = {"tenant": tenant, "agent_class": agent_class}

    def tasks(self, outcome: str) -> float:
        return value("saga_tasks_total", **self._labels, outcome=outcome)

    @property
    def seconds(self) -> tuple[float, float]:
        return value("saga_task_seconds_count", **self._labels), value("saga_task_seconds_sum", **self._labels)


def ended(tenant: str) -> WorkflowEnded:
    return WorkflowEnded(tenant=TenantId(tenant), root=RootId("r"), session=SessionId(""))


def runs(story: Story, tenant: str, takes_s: float, **fields) -> None:
    """A workflow of one step that takes so long; then its client says that it is over."""
    story.hear(ready(1, "r", tenant=TenantId(tenant), agent_class="coder", **fields))
    story.take(1, "r")
    story.now_s += takes_s
    story.finish(1, "r", tenant=TenantId(tenant))
    story.hear(ended(tenant))
    assert not story.core.roster.workflows


def watched(**settings) -> Story:
    story = Story(**settings)
    TaskMetrics(story.core)
    return story


def test_a_task_within_its_clients_deadline_is_on_time():
    runs(watched(), "early", 7.0, deadline_s=8.0)

    watch = Watch("early", "coder")
    assert (watch.tasks("on_time"), watch.tasks("late"), watch.seconds) == (1.0, 0.0, (1.0, pytest.approx(7.0)))


def test_one_beyond_it_is_late():
    runs(watched(), "tardy", 9.0, deadline_s=8.0)

    watch = Watch("tardy", "coder")
    assert (watch.tasks("on_time"), watch.tasks("late"), watch.seconds) == (0.0, 1.0, (1.0, pytest.approx(9.0)))


def test_the_first_of_all_has_no_deadline_if_its_client_names_none():
    runs(watched(), "first", 9.0)

    assert Watch("first", "coder").tasks("no_deadline") == 1.0


def test_the_wait_before_the_gateway_was_heard_counts():
    runs(watched(), "waited", 7.0, waited_s=2.0, deadline_s=8.0)

    watch = Watch("waited", "coder")
    assert (watch.tasks("late"), watch.seconds) == (1.0, (1.0, pytest.approx(9.0)))


def test_a_task_of_which_nothing_ran_has_no_time():
    story = watched()
    story.hear(ready(1, "r", tenant=TenantId("gone"), agent_class="coder"))
    story.cancel(1, "r")
    story.hear(ended("gone"))

    watch = Watch("gone", "coder")
    assert (watch.tasks("nothing_ran"), watch.seconds) == (1.0, (0.0, 0.0))


def test_an_hours_silence_ends_a_task_whose_time_is_up_to_its_last_answer():
    story = watched()
    story.hear(ready(1, "r", tenant=TenantId("silent"), agent_class="coder", deadline_s=8.0))
    story.take(1, "r")
    story.now_s += 5.0
    story.finish(1, "r", tenant=TenantId("silent"))
    story.now_s += 3_601.0
    story.tell(Tick())

    watch = Watch("silent", "coder")
    assert (watch.tasks("on_time"), watch.seconds) == (1.0, (1.0, pytest.approx(5.0)))


def test_who_is_taken_over_and_never_heard_of_again_has_no_time():
    """When its last answer was, only the leader before this one knew."""
    before = watched()
    before.hear(ready(1, "r", tenant=TenantId("heir"), agent_class="coder"))
    before.take(1, "r")
    before.finish(1, "r", tenant=TenantId("heir"))
    after = watched(leading=False)
    after.tell(Loaded(tuple(before.rows.values())))
    after.tell(Promoted(4))
    after.now_s += 3_601.0
    after.tell(Tick())

    watch = Watch("heir", UNKNOWN)
    assert (watch.tasks("taken_over"), watch.seconds) == (1.0, (0.0, 0.0))


def test_one_that_has_lost_the_lead_counts_nothing():
    """Its books go stale, and the new leader counts."""
    story = watched()
    story.hear(ready(1, "r", tenant=TenantId("stale"), agent_class="coder"))
    story.take(1, "r")
    story.finish(1, "r", tenant=TenantId("stale"))
    story.tell(Demoted())
    story.now_s += 3_601.0
    story.tell(Tick())

    assert not story.core.roster.workflows
    assert Watch("stale", "coder").seconds == (0.0, 0.0)


def test_clients_cannot_make_series_without_end():
    names = Names(most_tenants=2, most_classes=2)
    labels = {names.of(f"t{tenant}", f"c{number}") for tenant in range(50) for number in range(50)}

    assert labels == {
        *((tenant, name) for tenant in ("t0", "t1") for name in ("c0", "c1", OTHER)),
        (OTHER, OTHER),
    }
    assert names.of("t1", "c1") == ("t1", "c1"), "a series keeps its meaning"


def test_a_class_without_a_name_is_unknown():
    assert Names().of("t", "") == ("t", UNKNOWN)


def test_each_token_of_a_prompt_is_cached_or_new_or_regenerated():
    """100 pages of 16 tokens are known from before; 1,200 tokens of the prompt were still there."""
    story = watched()
    story.hear(ready(1, "r", base_pages=100))
    story.take(1, "r")
    story.finish(1, "r", prompt_tokens=3_000, cached_tokens=1_200)

    assert value("saga_prompt_tokens_total", prefill="cached") == 1_200.0
    assert value("saga_prompt_tokens_total", prefill="regenerated") == 400.0
    assert value("saga_prompt_tokens_total", prefill="new") == 1_400.0
    assert value("saga_regenerated_tokens_total", cause="own") == 400.0


def test_a_prompt_that_is_cached_beyond_what_its_session_had_regenerates_nothing():
    story = watched()
    story.hear(ready(1, "r", base_pages=10))
    story.take(1, "r")
    story.finish(1, "r", prompt_tokens=3_000, cached_tokens=2_999)

    assert story.core.book.overheads.prompt_tokens == {"cached": 2_999.0, "new": 1.0, "regenerated": 0.0}
