"""Who pays for a prefill that is done again: the tenant, or the cell whose doing it was."""

import pytest
from admission_story import Story, hello, ready, step_id

from saga.admission.overheads import EVICTED, MOVED, PAUSED
from saga.admission.policy import OldestThatFit
from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.ids import LeaseId, RootId, SessionId, WorkerId
from saga.contract.messages import Grant

PREFILL_S = 1e-3  # a token, in `hello`
PAGES = {"base_pages": 3_000 // 16, "page_tokens": 16}
KNOWN_TOKENS = 3_000 // 16 * 16


def told(story: Story, number: int) -> float:
    """What the step has cost its tenant."""
    return story.core.book.steps[step_id(number)].charged_s


def granted(story: Story, number: int, root: str, moved_from: str = "", cached_tokens: int = 0) -> None:
    story.hear(
        Grant(
            step_id=step_id(number),
            attempt=0,
            lease_id=LeaseId("lease"),
            root=RootId(root),
            session=SessionId(root),
            worker_id=WorkerId("w0"),
            engine_url="",
            session_tag="",
            cached_tokens=cached_tokens,
            moved_from=WorkerId(moved_from),
            ttl_s=1.0,
            lease_ttl_s=1.0,
            admission_fence=3,
            fence=1,
        )
    )


def served_s(story: Story, root: str = "root") -> float:
    return story.core.roster.workflows[RootId(root)].served_s


def begun(policy=None, **settings) -> Story:
    """A session of 3,100 tokens that has cost its tenant 4 s."""
    story = Story(policy or WorkerBudgets(), **settings)
    story.hear(ready(1, "root"))
    story.take(1, "root")
    story.finish(1, "root")
    assert served_s(story) == pytest.approx(3.0 + 1.0)
    return story


def returns(story: Story, gap_s: float, **fields) -> None:
    story.now_s += gap_s
    story.hear(ready(2, "root", prompt_tokens=3_200, **(PAGES | fields)))
    story.take(2, "root")


def test_kv_that_was_promised_and_evicted_is_the_cells_loss():
    story = begun()
    returns(story, 5.0)

    story.finish(2, "root", prompt_tokens=3_200, cached_tokens=0)

    lost_s = KNOWN_TOKENS * PREFILL_S
    assert story.core.book.overheads.lost_s == {PAUSED: 0.0, MOVED: 0.0, EVICTED: pytest.approx(lost_s)}
    assert served_s(story) == pytest.approx(4.0 + 3.2 + 1.0 - lost_s)


def test_a_session_that_stays_away_longer_than_its_claim_pays_itself():
    story = begun()
    returns(story, 500.0)

    story.finish(2, "root", prompt_tokens=3_200, cached_tokens=0)

    assert sum(story.core.book.overheads.lost_s.values()) == 0.0
    assert served_s(story) == pytest.approx(4.0 + 3.2 + 1.0)


def test_a_prompt_that_was_rewritten_is_paid_for():
    story = begun()
    returns(story, 5.0, base_pages=0)

    story.finish(2, "root", prompt_tokens=3_200, cached_tokens=0)

    assert sum(story.core.book.overheads.lost_s.values()) == 0.0


def test_what_a_steal_costs_is_known_at_the_grant_and_not_charged():
    story = begun(workers=2)
    story.now_s += 500.0
    story.hear(ready(2, "root", prompt_tokens=3_200, **PAGES))

    granted(story, 2, "root", moved_from="w1")

    assert told(story, 2) == pytest.approx((3_200 - KNOWN_TOKENS) * PREFILL_S + 1.0)
    story.finish(2, "root", prompt_tokens=3_200, cached_tokens=0)
    assert story.core.book.overheads.lost_s[MOVED] == pytest.approx(KNOWN_TOKENS * PREFILL_S)


def test_a_home_that_died_is_no_steal():
    story = begun()
    story.now_s += 500.0
    story.hear(ready(2, "root", prompt_tokens=3_200, **PAGES))

    granted(story, 2, "root", moved_from="w9")

    assert told(story, 2) == pytest.approx(3.2 + 1.0)


def test_a_pause_in_a_gap_is_the_cells_doing():
    story = Story(OldestThatFit(0.95, 1.0), workers=0)
    story.hear(hello(kv_tokens=7_500))
    story.hear(ready(1, "old"))
    story.take(1, "old")
    story.now_s += 1.0
    story.hear(ready(2, "root"))
    story.take(2, "root")
    story.finish(2, "root")
    story.finish(1, "old", prompt_tokens=5_000)
    assert not story.core.roster.workflows[RootId("root")].active, "paused: the older one has grown"
    story.now_s += 1.0
    story.hear(ready(3, "root", prompt_tokens=3_200, **PAGES))
    story.hear(ready(4, "old", prompt_tokens=5_100, final=True))
    story.take(4, "old")
    story.finish(4, "old", prompt_tokens=5_100, final=True)
    story.take(3, "root")

    story.finish(3, "root", prompt_tokens=3_200, cached_tokens=1_000)

    assert story.core.book.overheads.lost_s[PAUSED] == pytest.approx((KNOWN_TOKENS - 1_000) * PREFILL_S)
    assert served_s(story) == pytest.approx(4.0 + (3_200 - KNOWN_TOKENS) * PREFILL_S + 1.0)


def test_an_answer_longer_than_expected_is_charged_while_it_grows():
    story = Story(WorkerBudgets())
    story.hear(ready(1, "root", max_output_tokens=500))
    story.take(1, "root")
    before_s = told(story, 1)

    story.progress(1, 400)

    assert before_s == pytest.approx(3.0 + 2.56)
    assert told(story, 1) == pytest.approx(3.0 + 4.0)


def test_an_aborted_step_pays_for_what_it_had_not_cached():
    story = begun()
    returns(story, 5.0)
    assert story.core.book.steps[step_id(2)].paid_tokens == 100

    story.cancel(2, "root")

    assert served_s(story) == pytest.approx(4.0 + 0.1)
