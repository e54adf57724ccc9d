"""A worker's members may outgrow its KV, and others join beyond it, for as long as prefilling again what does not fit
costs less than a pause, or than waiting outside."""

import pytest
from admission_story import POOL, Story, ready

from saga.admission.leeway import LONGEST_CYCLE_S, Cycle, leeway_tokens
from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.ids import RootId, TenantId


def outgrown(gap_s: float, *, beside: int = 0) -> Story:
    """A worker of 10,000 tokens. "old" and "young" have sent three steps each, `gap_s` apart, and now need 12,000
    together; steps of `beside` others are under way."""
    story = Story(WorkerBudgets(), workers=1)
    for turn, tokens in enumerate((1_000, 1_000, 6_000)):
        for number, root in ((1, "old"), (2, "young")):
            story.hear(ready(10 * turn + number, root, prompt_tokens=tokens))
            story.take(10 * turn + number, root)
        if turn == 1:
            for number in range(beside):
                story.hear(ready(30 + number, prompt_tokens=10, max_output_tokens=1))
                story.take(30 + number)
        for number, root in ((1, "old"), (2, "young")):
            story.finish(10 * turn + number, root, prompt_tokens=tokens, output_tokens=0)
        story.now_s += gap_s
    return story


def active(story: Story, root: str) -> bool:
    return story.core.roster.workflows[RootId(root)].active


def test_on_an_engine_that_idles_between_tool_calls_nobody_is_paused_for_a_little_kv():
    assert active(outgrown(gap_s=10.0), "young"), "2,000 tokens are 2 s of prefill every 10 s"


def test_where_sessions_come_back_at_once_the_youngest_is_paused():
    assert not active(outgrown(gap_s=2.0), "young"), "2 s of prefill every 2 s"


def crowded(gap_s: float, tenant: str = "t") -> Story:
    """The same worker: one session of 6,000 tokens comes back every `gap_s`, and has a step under way; another workflow
    of 5,000, `tenant`'s, asks to be let in."""
    story = Story(WorkerBudgets(learns=False), workers=1)
    for turn, tokens in enumerate((1_000, 1_000, 6_000)):
        story.hear(ready(turn, "inside", prompt_tokens=tokens, max_output_tokens=1))
        story.take(turn, "inside")
        story.finish(turn, "inside", prompt_tokens=tokens, output_tokens=0)
        story.now_s += gap_s
    story.hear(ready(3, "inside", prompt_tokens=6_000, max_output_tokens=1))
    story.hear(ready(10, "newcomer", prompt_tokens=5_000, max_output_tokens=1, tenant=TenantId(tenant)))
    return story


def test_on_an_engine_that_idles_between_tool_calls_nobody_is_kept_outside_for_a_little_kv():
    assert active(crowded(gap_s=10.0), "newcomer"), "1,500 tokens are 1.5 s of prefill every 10 s"


def test_where_sessions_come_back_at_once_one_waits_outside():
    assert not active(crowded(gap_s=2.0), "newcomer"), "1.5 s of prefill every 2 s, for it and for who runs"


def test_nobody_joins_at_the_cost_of_what_another_tenant_has_cached():
    assert not active(crowded(gap_s=10.0, tenant="other"), "newcomer")


def test_without_leeway_nobody_joins_beyond_the_budget():
    story = crowded(gap_s=10.0)
    strict = Story(WorkerBudgets(lenient=False, learns=False), workers=1)
    for number, root in ((1, "inside"), (2, "newcomer")):
        strict.hear(ready(number, root, prompt_tokens=5_500))

    assert active(story, "newcomer")
    assert not active(strict, "newcomer")


def test_the_more_run_beside_the_less_is_let_pass():
    assert not active(outgrown(gap_s=10.0, beside=4), "young"), "four wait for those 2 s, too"
    assert leeway_tokens(10.0, 1, 1e-3) == 2_500 < leeway_tokens(10.0, 0, 1e-3) == 5_000
    assert leeway_tokens(10.0, 4, 1e-3) == 1_000


def test_nothing_is_let_pass_before_anything_is_known():
    assert leeway_tokens(Cycle().mean_s, 0, 1e-3) == 0
    assert leeway_tokens(10.0, 0, 0.0) == 0, "an engine whose costs are unknown"


@pytest.mark.parametrize("odd_s", [-5.0, 0.0, LONGEST_CYCLE_S + 1.0, float("inf"), float("nan")])
def test_a_clock_that_jumps_and_a_session_that_stayed_away_teach_nothing(odd_s):
    cycle = Cycle()
    cycle.learn(8.0)

    cycle.learn(odd_s)

    assert cycle.mean_s == 8.0


def test_a_new_leader_starts_from_nothing_and_learns_from_the_second_step_of_a_session():
    story = outgrown(gap_s=10.0)

    assert story.core.roster.pool(POOL).cycle.mean_s == pytest.approx(10.0, rel=0.1)
