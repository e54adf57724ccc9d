"""A prefix that several workflows have in cache is there once, and so it is counted."""

from admission_story import POOL, Story, ready

from saga.admission.worker_budgets import WorkerBudgets
from saga.contract.ids import RootId


def needs(story: Story, root: str) -> int:
    return story.core.roster.pool(POOL).needs[RootId(root)][0]


def step(story: Story, number: int, root: str, *, cached_tokens: int, prompt_tokens: int = 3_000) -> None:
    story.hear(ready(number, root, prompt_tokens=prompt_tokens, max_output_tokens=100))
    story.take(number, root)
    story.finish(number, root, prompt_tokens=prompt_tokens, output_tokens=100, cached_tokens=cached_tokens)


def test_what_a_session_finds_in_cache_when_it_begins_is_somebody_elses():
    story = Story(WorkerBudgets())
    step(story, 1, "first", cached_tokens=0)
    step(story, 2, "second", cached_tokens=2_000)

    assert needs(story, "first") == 3_100
    assert needs(story, "second") == 1_100


def test_what_it_finds_later_is_its_own():
    story = Story(WorkerBudgets())
    step(story, 1, "first", cached_tokens=0)
    step(story, 2, "first", cached_tokens=3_100, prompt_tokens=4_000)

    assert needs(story, "first") == 4_100


def test_a_context_that_was_compacted_below_the_prefix_needs_nothing_less_than_nothing():
    story = Story(WorkerBudgets())
    step(story, 1, "one", cached_tokens=2_900)
    step(story, 2, "one", cached_tokens=500, prompt_tokens=500)

    assert needs(story, "one") == 0


def test_newcomers_are_expected_to_find_what_those_before_them_found():
    strangers, alike = Story(WorkerBudgets(learns=False)), Story(WorkerBudgets(learns=False))
    for story, cached_tokens in ((strangers, 0), (alike, 2_500)):
        for number in range(60):
            story.hear(ready(number, prompt_tokens=3_000, max_output_tokens=100, final=True))
            story.take(number)
            story.finish(number, prompt_tokens=3_000, output_tokens=100, cached_tokens=cached_tokens)
        for number in range(100, 112):
            story.hear(ready(number, prompt_tokens=3_000, max_output_tokens=100))

    inside = [len(story.core.roster.pool(POOL).inside) for story in (strangers, alike)]
    assert inside == [3, 12], "of 10,000 tokens, 3,100 each, or some 700"
