"""Which step starts where, and when."""

import pytest
from placement_story import Story, admitted, step_id

from saga.contract.ids import NO_WORKER, WorkerId
from saga.contract.messages import (
    CostModel,
    Grant,
    NeedChain,
    PagesStored,
    ResidencyDelta,
    StepChain,
    WorkerLeaving,
)
from saga.placement.policy import CheapestStart, SessionAffinity
from saga.placement.pricing import Priced


@pytest.mark.parametrize(("claim_tokens", "started"), [(50, 1), (51, 0)])
def test_kv_is_set_aside_for_an_answer_as_admission_says(claim_tokens: int, started: int):
    story = Story(workers=1, max_running=8)
    for number in (1, 2):
        story.grant(number, prompt=4_000, output_claim_tokens=900)

    granted = story.hear(admitted(3, prompt=150, output_claim_tokens=claim_tokens))

    assert len(granted) == started, "200 tokens are left"


def test_a_step_that_finds_a_free_slot_has_not_waited():
    story = Story()

    grant = story.grant(1)

    assert grant.waited == "none"
    assert (grant.fence, grant.admission_fence) == (7, 1)
    assert grant.engine_url == f"http://{grant.worker_id}"


def test_a_session_returns_to_where_it_ran():
    story = Story(workers=4)
    first = story.grant(1, session="s")
    story.take(first)
    story.finish(first)

    assert story.grant(2, session="s").worker_id == first.worker_id


def test_a_step_waits_for_its_home_even_when_another_worker_is_free():
    story = Story()
    grants = [story.grant(1, session="a")]
    story.take(grants[0])
    story.finish(grants[0])
    busy = story.grant(2, session="a")
    other = story.grant(3, home=busy.worker_id)

    assert story.hear(admitted(4, session="a")) == []
    (late,) = story.finish(other)
    assert late.step_id == step_id(4)
    assert (late.worker_id, late.waited) == (busy.worker_id, "home")


def test_the_lowest_tag_gets_the_next_slot():
    story = Story(workers=1)
    running = [story.grant(1), story.grant(2)]
    story.hear(admitted(3, tag=9.0))
    story.hear(admitted(4, tag=3.0))
    story.hear(admitted(5, tag=6.0))

    (next_grant,) = story.finish(running[0])

    assert next_grant.step_id == step_id(4)


def test_slots_count_tokens_too():
    story = Story(workers=1)
    story.grant(1, prompt=7_000)

    assert story.hear(admitted(2, prompt=7_000)) == []


def test_a_step_larger_than_what_is_left_runs_alone_rather_than_never():
    story = Story(workers=1)

    assert story.grant(1, prompt=50_000).worker_id == "w0"


def test_look_ahead_hides_the_round_trip():
    story = Story(workers=1, lookahead=1)

    assert [story.grant(n).worker_id for n in (1, 2, 3)] == ["w0"] * 3
    assert story.hear(admitted(4)) == []


def test_the_baseline_lets_engines_queue():
    story = Story(SessionAffinity(), workers=1)

    assert len([story.grant(n) for n in range(20)]) == 20


def test_a_prefix_that_is_resident_draws_the_step():
    story = Story(workers=3)
    pages = b"".join(bytes([n] * 8) for n in range(60))
    story.hear(ResidencyDelta(worker_id=WorkerId("w2"), epoch=1, seq=1, changes=(PagesStored(pages),)))

    grant = story.grant(1, new_hashes=pages)

    assert (grant.worker_id, grant.cached_tokens, grant.reason) == ("w2", 60 * 16, "resident_prefix")


def test_the_last_token_of_a_prompt_is_never_cached():
    story = Story(workers=1)
    pages = b"".join(bytes([n] * 8) for n in range(4))
    story.hear(ResidencyDelta(worker_id=WorkerId("w0"), epoch=1, seq=1, changes=(PagesStored(pages),)))

    assert story.grant(1, new_hashes=pages, prompt=64).cached_tokens == 48


def test_an_unknown_base_asks_for_the_whole_chain_and_does_not_wait_for_it():
    story = Story()

    need, grant = story.hear(admitted(1, base_pages=3, base_tip=b"x" * 8, new_hashes=b"y" * 8))

    assert isinstance(need, NeedChain)
    assert isinstance(grant, Grant)


def test_pages_that_the_gateway_cannot_tell_are_told_by_the_worker():
    story = Story(workers=2)
    pages = b"".join(bytes([n] * 8) for n in range(60))
    first = story.grant(1, session="a", pages_known=False)
    story.take(first)
    story.hear(StepChain(step_id=first.step_id, session=first.session, hashes=pages))
    story.hear(ResidencyDelta(worker_id=first.worker_id, epoch=1, seq=1, changes=(PagesStored(pages),)))
    story.finish(first)

    second = story.grant(2, session="a", pages_known=False)

    assert (second.worker_id, second.cached_tokens) == (first.worker_id, 60 * 16)


def test_what_waits_at_a_worker_that_leaves_goes_anywhere():
    story = Story()
    full = [story.grant(1, session="a")]
    story.take(full[0])
    story.finish(full[0])
    home = full[0].worker_id
    story.grant(2, session="a")
    story.grant(3, home=home)
    assert story.hear(admitted(4, session="a")) == []

    (moved,) = story.hear(WorkerLeaving(worker_id=home, epoch=1, engine_died=False))

    assert moved.step_id == step_id(4)
    assert moved.worker_id != home


def test_a_worker_with_a_cold_home_waits_for_nobody():
    """A home that admission remembers and that no longer exists is no reason to wait."""
    story = Story()

    assert story.grant(1, home=WorkerId("gone")).worker_id in ("w0", "w1")


@pytest.mark.parametrize("policy", [CheapestStart(), SessionAffinity()])
def test_new_sessions_spread(policy):
    story = Story(policy, workers=4)

    workers = [story.grant(n).worker_id for n in range(4)]

    assert sorted(workers) == ["w0", "w1", "w2", "w3"]
    assert NO_WORKER not in workers


def test_a_new_session_begins_only_where_admission_sees_room():
    story = Story(Priced(), workers=4, max_running=8)

    for number in range(8):
        grant = story.grant(number, home=WorkerId("w1"), fits=(WorkerId("w1"), WorkerId("w3")))
        assert grant.worker_id in ("w1", "w3")


def test_where_none_of_those_serves_any_worker_will_do():
    story = Story()
    story.hear(WorkerLeaving(worker_id=WorkerId("w1"), epoch=1, engine_died=True))

    assert story.grant(1, home=WorkerId("w1"), fits=(WorkerId("w1"),)).worker_id == "w0"


def test_a_session_that_has_a_home_goes_there_whatever_else_has_room():
    story = Story(workers=3)
    first = story.grant(1, session="s")
    story.take(first)
    story.finish(first)
    elsewhere = tuple(WorkerId(f"w{n}") for n in range(3) if f"w{n}" != first.worker_id)

    assert story.grant(2, session="s", fits=elsewhere).worker_id == first.worker_id


PREFIX = b"".join(n.to_bytes(8, "little") for n in range(1, 241))  # 3,840 tokens


def siblings(story: Story, count: int, **facts) -> list[str]:
    """Where sub-agents that share a prefix begin, all asked at once: nothing is prefilled yet."""
    everywhere = tuple(story.core.board.workers)
    grants = []
    for number in range(count):
        own = PREFIX + bytes([number + 1] * 8)
        grants += story.hear(
            admitted(number, prompt=4_000, new_hashes=own, home=WorkerId("w0"), fits=everywhere, **facts)
        )
    return [grant.worker_id for grant in grants]


def test_few_sub_agents_meet_where_the_first_one_prefills_their_prefix():
    story = Story(Priced(), workers=4, kv_tokens=4_000_000, max_running=64, cost=CostModel(prompt_s_per_token=1e-3))

    assert siblings(story, 3) == ["w0"] * 3


def test_many_sub_agents_spread_because_their_worker_gets_hot():
    cost = CostModel(prompt_s_per_token=1e-4, output_s_per_token=1e-3, context_s_per_token=5e-8)
    story = Story(Priced(), workers=4, kv_tokens=100_000, max_running=64, cost=cost)

    homes = siblings(story, 32)

    assert len(homes) == 32
    assert len(set(homes)) == 4
    assert max(homes.count(home) for home in homes) <= 20


def test_a_step_keeps_the_prices_that_its_home_was_chosen_by():
    story = Story(Priced())
    story.grant(1)

    step = story.core.board.steps[step_id(1)]

    assert step.prices[0].worker_id == "w0"
    assert len(step.prices) == 2
