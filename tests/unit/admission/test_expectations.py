"""What a class takes is learnt as soon as workflows of it seem to be over, and corrected when they were not."""

from admission_story import Story, ready

from saga.contract.ids import RootId
from saga.kernel.effects import Tick


def ran(story: Story, number: int, root: str, seconds: float, **finish) -> None:
    """One step of the workflow, from now on."""
    story.hear(ready(number, root, agent_class="coder"))
    story.take(number, root)
    story.now_s += seconds
    story.finish(number, root, **finish)


def passes(story: Story, seconds: float) -> None:
    story.now_s += seconds
    story.tell(Tick())


def expected_s(story: Story) -> float:
    """What a newcomer of the class is given to be on time, over 1.5."""
    number = 100 + len(story.core.roster.workflows)
    story.hear(ready(number, f"newcomer-{number}", agent_class="coder"))
    deadline_s = story.core.roster.workflows[RootId(f"newcomer-{number}")].deadline_s
    story.cancel(number, f"newcomer-{number}")
    return deadline_s / 1.5


def test_a_workflow_that_answered_and_stays_away_tells_what_its_class_takes_before_it_is_closed():
    story = Story()
    ran(story, 1, "root", 40.0)
    assert expected_s(story) == 0.0, "it may come back at any moment"

    passes(story, 120.0)

    assert RootId("root") in story.core.roster.workflows, "and is not closed"
    assert expected_s(story) == 40.0


def test_one_that_waits_for_a_tool_is_not_over_however_long_that_takes():
    story = Story()
    ran(story, 1, "root", 40.0, tools=("bash",), finish_reason="tool_calls")

    passes(story, 1_800.0)

    assert expected_s(story) == 0.0


def test_one_that_came_back_counts_once_with_all_that_it_took():
    story = Story()
    ran(story, 1, "root", 40.0)
    passes(story, 120.0)
    ran(story, 2, "root", 40.0)
    passes(story, 120.0)

    assert expected_s(story) == 200.0
    assert story.core.roster.expectations.of(story.core.roster.workflows[RootId("root")]).samples == 1


def test_closing_one_that_was_taken_in_changes_nothing():
    story = Story()
    ran(story, 1, "root", 40.0)
    passes(story, 120.0)
    passes(story, 7_200.0)

    assert RootId("root") not in story.core.roster.workflows
    assert expected_s(story) == 40.0


def test_what_came_back_is_corrected_among_others():
    story = Story()
    for number, root in enumerate(("a", "b", "c"), 1):
        ran(story, number, root, 40.0)
    passes(story, 120.0)
    assert expected_s(story) == 40.0

    ran(story, 5, "a", 40.0)
    passes(story, 120.0)

    # Until the others were through 80 s, 120 s of silence and 40 s more: 240 more than was taken in of "a".
    assert expected_s(story) == 40.0 + 240.0 / 3
