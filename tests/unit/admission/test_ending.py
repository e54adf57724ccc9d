"""A client's word that something is over."""

from admission_story import POOL, Story, hello, ready

from saga.contract.ids import RootId, SessionId, TenantId
from saga.contract.messages import SessionsReleased, WorkflowEnded
from saga.kernel.effects import Tick


def ended(root="r", session="", tenant="t") -> WorkflowEnded:
    return WorkflowEnded(tenant=TenantId(tenant), root=RootId(root), session=SessionId(session))


def released(messages) -> list[tuple[str, list[str]]]:
    return [(m.reason, list(m.sessions)) for m in messages if isinstance(m, SessionsReleased)]


def running(*sessions: str) -> Story:
    """A workflow with a step of each of these sessions."""
    story = Story()
    for number, session in enumerate(sessions, 1):
        story.hear(ready(number, "r", session=SessionId(session), parent=SessionId("" if session == "r" else "r")))
        story.take(number, "r", session=session)
    return story


def test_a_workflow_without_steps_is_closed_at_once():
    story = running("r")
    story.finish(1, "r")

    assert released(story.hear(ended())) == [("closed", ["r"])]
    assert not story.core.roster.workflows
    assert not story.rows


def test_one_with_a_step_that_runs_is_closed_when_that_ends():
    """The word overtakes the end of the last step, or the client is done with an answer that nobody reads."""
    story = running("r")

    assert released(story.hear(ended())) == []
    assert released(story.finish(1, "r")) == [("closed", ["r"])]
    assert not story.core.roster.workflows


def test_a_session_ends_alone():
    story = running("r", "r/helper")
    story.finish(1, "r")
    story.finish(2, "r", session=SessionId("r/helper"))

    assert released(story.hear(ended(session="r/helper"))) == [("closed", ["r/helper"])]
    assert list(story.core.roster.workflows["r"].sessions) == ["r"]
    assert story.core.roster.pool(POOL).needs["r"][0] == 3_100


def test_a_session_ends_when_its_step_does():
    story = running("r", "r/helper")

    assert released(story.hear(ended(session="r/helper"))) == []
    assert released(story.finish(1, "r")) == []
    assert released(story.finish(2, "r", session=SessionId("r/helper"))) == [("closed", ["r/helper"])]


def test_a_session_that_goes_on_all_the_same_is_not_over():
    story = running("r", "r/helper")
    story.hear(ended(session="r/helper"))
    story.hear(ready(3, "r", session=SessionId("r/helper"), parent=SessionId("r")))
    story.take(3, "r", session="r/helper")

    assert released(story.finish(2, "r", session=SessionId("r/helper"))) == []
    assert released(story.finish(3, "r", session=SessionId("r/helper"))) == []


def test_a_workflow_that_comes_back_after_its_end_is_a_new_one():
    story = running("r")
    story.finish(1, "r")
    story.hear(ended())
    story.now_s += 5

    assert story.admitted(ready(2, "r")) == ["2".zfill(32)]
    assert story.core.roster.workflows["r"].submitted_s == story.now_s


def test_what_nobody_knows_or_another_tenant_has_does_not_end():
    story = running("r")
    story.finish(1, "r")

    for word in (ended("other"), ended(tenant="u"), ended(session="r/none")):
        assert released(story.hear(word)) == []
    assert "r" in story.core.roster.workflows


def test_a_standby_says_nothing():
    story = Story(leading=False, workers=0)
    story.hear(hello())

    assert story.hear(ended()) == []


# --- by silence ----------------------------------------------------------------------------------------------------


def silent(story: Story, for_s: float) -> tuple[list[tuple[str, list[str]]], bool]:
    """(what is let go, whether the workflow is still in the books) after so long a silence."""
    said = []
    for _ in range(int(for_s)):
        story.now_s += 1.0
        said += story.tell(Tick())
    return [one for one in released(said) if one[0] == "closed"], "r" in story.core.roster.workflows


def test_a_workflow_that_has_answered_and_stays_away_is_closed_and_its_kv_stays():
    story = Story(infer_end_s=120.0)
    for number, session in ((1, "r"), (2, "r/helper")):
        story.hear(ready(number, "r", session=SessionId(session)))
        story.take(number, "r", session=session)
        story.finish(number, "r", session=SessionId(session))

    assert silent(story, 118) == ([], True)
    assert silent(story, 4) == ([], False)
    assert not story.rows


def test_one_that_has_called_a_tool_is_waited_for():
    story = Story(infer_end_s=120.0)
    story.hear(ready(1, "r"))
    story.take(1, "r")
    story.finish(1, "r", tools=("bash",), finish_reason="tool_calls")

    assert silent(story, 600) == ([], True)


def test_one_whose_gaps_are_mostly_that_long_is_waited_for():
    """Longer than forecast: a person who reads for ten minutes is not gone."""
    story = Story(infer_end_s=30.0)
    story.core._set.held_s = lambda _forecast: 600.0
    story.hear(ready(1, "r"))
    story.take(1, "r")
    story.finish(1, "r")

    assert silent(story, 590) == ([], True)
    assert silent(story, 15) == ([], False)


def test_unless_it_is_asked_for_an_hour_of_silence_ends_it():
    story = running("r")
    story.finish(1, "r")

    assert silent(story, 3_500) == ([], True)
    assert silent(story, 120) == ([("closed", ["r"])], False)
