"""Every lease ends once, and it is said how."""

import pytest
from placement_story import Story

from saga.contract.messages import LeaseReleased
from saga.kernel.effects import Tick
from saga.placement.lease_accounts import LeaseAccounts


def ended(story: Story) -> dict[str, int]:
    return {end: count for end, count in story.core.board.lease_accounts.ended.items() if count}


def test_a_finished_step_has_finished_its_lease():
    story = Story()
    grant = story.grant(1)
    story.take(grant)

    story.finish(grant)

    assert ended(story) == {"finished": 1}


def test_a_lease_that_nobody_takes_expires():
    story = Story(workers=1)
    story.grant(1)
    story.now_s += 2.1

    story.tell(Tick())

    assert ended(story) == {"expired": 1}
    assert story.core.board.lease_accounts.granted == 2, "its step was granted again"


@pytest.mark.parametrize(
    ("reason", "how"), [("client_gone", "aborted"), ("not_first", "aborted"), ("expired", "expired")]
)
def test_a_lease_that_its_gateway_gives_back_is_no_orphan(reason: str, how: str):
    story = Story()

    story.give_back(story.grant(1), reason)

    assert ended(story) == {how: 1}


def test_a_lease_of_an_engine_that_died_is_orphaned():
    story = Story()
    grant = story.grant(1)
    story.take(grant)

    story.give_back(grant, "engine_died", next_attempt=1)

    assert ended(story) == {"orphaned": 1}


def test_a_lease_whose_gateway_is_gone_is_orphaned_whoever_notices_first():
    for by_worker in (True, False):
        story = Story(workers=1)
        grant = story.grant(1)
        story.take(grant)
        story.now_s += 5.1

        released = LeaseReleased(step_id=grant.step_id, attempt=0, lease_id=grant.lease_id, worker_id=grant.worker_id)
        story.hear(released) if by_worker else story.tell(Tick())

        assert ended(story) == {"orphaned": 1}


def test_a_lease_that_vanishes_is_noticed():
    accounts = LeaseAccounts()
    accounts.granted = 2
    accounts.ended["finished"] = 1

    accounts.check(live=1)
    with pytest.raises(AssertionError, match="2 leases granted, 1 ended, 0 out"):
        accounts.check(live=0)
