"""Which session tag a grant carries, over compactions, retries and deaths of leaders; and sub-agents that are done."""

import pytest
from placement_story import Story, admitted

from saga.contract.ids import LeaseId, SessionId, WorkerId, session_tag
from saga.contract.messages import Grant, SessionsReleased, StepClaim, StepFinished
from saga.kernel.effects import Demoted, Log, Promoted, Received


def pages(name: str, count: int) -> bytes:
    return b"".join(f"{name[:3]:3}{number:05}".encode() for number in range(count))


LONG = pages("s", 5) + pages("a", 45)
COMPACTED = pages("s", 5) + pages("c", 5)


def ran(story: Story, number: int, chain: bytes, **fields) -> Grant:
    """A step of session `s` with this chain that is over."""
    grant = story.grant(number, session="s", new_hashes=chain, **fields)
    story.take(grant)
    story.finish(grant)
    return grant


def test_a_session_keeps_its_tag_while_it_grows():
    story = Story()
    first = ran(story, 1, LONG)

    second = ran(story, 2, pages("b", 3), base_pages=50, base_tip=LONG[-8:])

    assert second.session_tag == first.session_tag


def test_a_compaction_gets_a_fresh_tag_and_says_why():
    story = Story()
    first = ran(story, 1, LONG)

    effects = story.core.handle(Received(admitted(2, session="s", new_hashes=COMPACTED)), story.now_s)

    (said,) = [effect for effect in effects if isinstance(effect, Log)]
    assert said.facts["reason"] == "compacted"
    assert said.facts["pages"] == story.core.superseded_pages == 45
    assert ran(story, 3, COMPACTED).session_tag != first.session_tag


def test_a_switch_turns_it_off():
    story = Story(supersede=False)

    assert ran(story, 1, LONG).session_tag == ran(story, 2, COMPACTED).session_tag == session_tag(SessionId("s"))
    assert story.core.superseded_pages == 0


def test_a_step_that_is_granted_again_keeps_the_tag_that_it_began():
    story = Story()
    ran(story, 1, LONG)
    first = story.grant(2, session="s", new_hashes=COMPACTED)
    story.take(first)

    (again,) = story.give_back(first, "engine_died", next_attempt=1)

    assert (again.attempt, again.session_tag) == (1, first.session_tag)


def test_a_chain_whose_base_is_unknown_here_decides_nothing():
    story = Story()
    first = ran(story, 1, LONG)

    _need, grant = story.hear(admitted(2, session="s", base_pages=7, base_tip=b"elsewher", new_hashes=COMPACTED))

    assert grant.session_tag == first.session_tag


def test_a_new_leader_never_gives_a_tag_again_that_another_gave():
    """It knows no branches: each session begins a tag with it, whose name nobody gave before."""
    given = set()
    for fence in (7, 8, 9):
        story = Story(leading=False)
        story.tell(Promoted(fence))
        grants = [ran(story, 10 * fence + n, chain) for n, chain in enumerate((LONG, COMPACTED, LONG + COMPACTED))]
        tags = {grant.session_tag for grant in grants}
        assert len(tags) == 2
        assert not tags & given
        given |= tags


def test_a_leader_that_is_promoted_anew_forgets_what_it_knew_of_tags():
    story = Story()
    first = ran(story, 1, LONG)
    story.tell(Demoted())  # and another led, and gave the session a fresh tag
    story.tell(Promoted(9))

    assert ran(story, 2, LONG).session_tag != first.session_tag


def test_two_leaders_name_the_tag_of_one_step_alike():
    step = admitted(1, session="s", new_hashes=LONG)

    (old,), (new,) = (Story(workers=1).hear(step) for _ in range(2))

    assert old.session_tag == new.session_tag


def test_a_session_that_runs_goes_on_under_the_tag_that_it_has():
    story = Story()
    claim = StepClaim(
        step=admitted(1, session="s", new_hashes=LONG).step,
        lease_id=LeaseId("old"),
        worker_id=WorkerId("w0"),
        session_tag="saga-s-old",
        output_tokens=5,
    )
    story.hear(claim)
    story.hear(ended(claim.step, claim.lease_id))

    assert ran(story, 2, LONG + pages("b", 3)).session_tag == "saga-s-old"
    assert ran(story, 3, COMPACTED).session_tag != "saga-s-old"


def test_an_engine_without_session_tags_is_given_none():
    story = Story(session_tags=False)

    assert ran(story, 1, LONG).session_tag == ran(story, 2, COMPACTED).session_tag == ""
    assert story.core.superseded_pages == 0


def ended(step, lease_id, *, tools: tuple[str, ...] = ()) -> StepFinished:
    return StepFinished(
        step_id=step.step_id,
        attempt=0,
        lease_id=lease_id,
        worker_id=WorkerId("w0"),
        gateway_id=step.gateway_id,
        tenant=step.tenant,
        root=step.root,
        session=step.session,
        parent=step.parent,
        pool=step.pool,
        prompt_tokens=1_000,
        output_tokens=100,
        cached_tokens=0,
        finish_reason="tool_calls" if tools else "stop",
        tools=tools,
    )


class Family:
    """A session with sub-agents, on one worker."""

    def __init__(self, **fields) -> None:
        self.story = Story(workers=1, **fields)
        self.count = 0

    def step(self, session: str, parent: str = "", *, tools: tuple[str, ...] = ()) -> list[SessionId]:
        """A step from beginning to end. The sessions whose KV may go when it begins."""
        self.count += 1
        asked = admitted(self.count, session=session, parent=SessionId(parent))
        said = self.story.hear(asked)
        (grant,) = [message for message in said if isinstance(message, Grant)]
        self.story.take(grant)
        self.story.hear(ended(asked.step, grant.lease_id, tools=tools))
        released = [message for message in said if isinstance(message, SessionsReleased)]
        assert all((message.worker_id, message.reason) == ("w0", "superseded") for message in released)
        for message in released:
            self.story.hear(message)
        return [session for message in released for session in message.sessions]


def test_sub_agents_that_have_answered_are_let_go_when_their_parent_goes_on():
    family = Family()
    family.step("main", tools=("task",))
    family.step("sub1", "main", tools=("grep",))
    family.step("sub1", "main")
    family.step("sub2", "main")
    family.step("sub3", "main", tools=("grep",))

    assert family.step("main") == ["sub1", "sub2"]
    assert family.step("main") == []


def test_a_sub_agent_that_is_asked_again_is_not_done():
    family = Family()
    family.step("sub", "main")
    family.step("sub", "main", tools=("grep",))
    assert family.step("main") == []

    family.step("sub", "main")
    assert family.step("main") == ["sub"]


def test_a_sub_agent_that_was_let_go_may_come_back():
    family = Family()
    family.step("sub", "main")
    family.step("main")

    assert family.step("sub", "main") == []
    assert family.step("main") == ["sub"]


@pytest.mark.parametrize("parent", ["", "s"])
def test_only_sub_agents_can_be_done(parent):
    family = Family()
    family.step("s", parent)

    assert family.step("s", parent) == []


def test_the_switch_holds_for_sub_agents_too():
    family = Family(supersede=False)
    family.step("sub", "main")

    assert family.step("main") == []
