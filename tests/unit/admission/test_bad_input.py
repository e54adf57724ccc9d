"""What clients, operators and gateways may say that makes no sense, and those who go away without a word.

Quotas of zero and lowered ones are in test_quotas.py, workflows without number in test_known_workflows.py, deadlines
that nobody could meet in test_weights.py.
"""

import pytest
from admission_story import Story, ready

from saga.admission.config import AdmissionSettings
from saga.admission.ending import IDLE_CLOSE_S
from saga.admission.policy import Everybody
from saga.admission.service import making_of
from saga.contract.ids import RootId, TenantId
from saga.contract.messages import Accepted, StepAdmitted
from saga.kernel.effects import Tick
from saga.runtime.errors import StartError

GONE = TenantId("gone")


@pytest.mark.parametrize("entry", ["a=-1", "a=0", "a=inf", "a=nan", "a=much", "=1", "a", ""])
def test_a_weight_that_is_none_stops_the_start_and_is_named(entry: str):
    with pytest.raises(ValueError, match="SAGA_ADMISSION_WEIGHTS"):
        AdmissionSettings(weights=(entry,))


@pytest.mark.parametrize("share", [-0.1, 2.1, float("nan"), float("inf")])
def test_a_share_of_kv_that_is_none_stops_the_start_and_is_named(share: float):
    with pytest.raises(ValueError, match="SAGA_ADMISSION_KV_SHARE"):
        AdmissionSettings(kv_share=share)


@pytest.mark.parametrize("speed", [0.0, -1.0, float("nan"), float("inf")])
def test_a_speed_that_is_none_stops_the_start_and_is_named(speed: float):
    with pytest.raises(ValueError, match="SAGA_ADMISSION_SPEED"):
        AdmissionSettings(speed=speed)


@pytest.mark.parametrize(("name", "setting"), [("policy", "POLICY"), ("order", "ORDER"), ("rank", "RANK")])
def test_a_policy_that_there_is_not_stops_the_start_and_says_which_there_are(name: str, setting: str):
    with pytest.raises(StartError, match=f"SAGA_ADMISSION_{setting}='nonesuch'.*known are"):
        making_of(AdmissionSettings(**{name: "nonesuch"}), 0.0)


def test_a_deadline_before_the_submission_is_none():
    story = Story(Everybody())

    story.hear(ready(1, deadline_s=-5.0))

    assert story.core.roster.weights.of(TenantId("t")) == 1.0


def test_a_deadline_that_passes_buys_nothing_from_then_on():
    story = Story(Everybody())
    story.hear(ready(1, deadline_s=10.0))
    story.now_s += 11.0
    story.hear(ready(2, "root-1"))

    assert story.core.roster.weights.urgency(TenantId("t")) == 0.0
    assert story.core.roster.workflows[RootId("root-1")].deadline_s == 10.0, "it is not moved, whatever comes later"


def test_a_step_that_is_sent_any_number_of_times_is_charged_once():
    story = Story(Everybody())
    story.hear(ready(1))
    charged_s = story.core.book.fair.account(TenantId("t")).finish_s

    for _ in range(50):
        said = story.hear(ready(1))
        assert any(isinstance(m, Accepted) for m in said)

    assert story.core.book.fair.account(TenantId("t")).finish_s == charged_s
    assert len(story.core.book.steps) == 1


def test_a_step_that_is_over_is_accepted_and_does_not_run_again():
    story = Story(Everybody())
    story.hear(ready(1))
    story.take(1)
    story.finish(1)

    said = story.hear(ready(1))

    assert [type(m) for m in said] == [Accepted]
    assert not any(isinstance(m, StepAdmitted) for m in said)


def test_a_tenant_that_vanishes_in_mid_flight_leaves_nothing_behind():
    story = Story(workers=1)
    for number in (1, 2, 3, 4):  # three fit; the fourth waits
        story.hear(ready(number, tenant=GONE, deadline_s=100.0))
    story.take(1)
    story.progress(1, 10)

    story.now_s += 5.1  # nobody names its steps any more
    story.tell(Tick())

    assert story.core.book.steps == {}
    assert story.core.book.fair.account(GONE).live == 0
    pool = next(iter(story.core.roster.pools.values()))
    assert pool.turns.waiting == set()

    story.now_s += IDLE_CLOSE_S + 1.0
    story.tell(Tick())

    assert story.core.roster.workflows == {}
    assert story.rows == {}
    assert story.core.roster.weights.urgency(GONE) == 0.0
