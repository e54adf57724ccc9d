"""Workers that share a KV tier: what is counted as there, what reading it costs, and who moves through it."""

import pytest
from placement_story import Story, admitted, hello
from trust_story import pages

from saga.contract.ids import SessionId, WorkerId
from saga.contract.messages import CostModel, Grant, PagesRemoved, PagesStored, ResidencyDelta
from saga.kernel.effects import Tick
from saga.placement.candidate import Candidate
from saga.placement.pricing import Priced, price
from saga.placement.stealing import SavedWait

COST = CostModel(prompt_s_per_token=1e-2, output_s_per_token=1e-4)
CHAIN = pages(1, 430)  # of 16 tokens: 6,880
FAST, SLOW = 1e-5, 1e-3  # seconds a token


def told(worker: str, change, seq: int = 1) -> ResidencyDelta:
    return ResidencyDelta(worker_id=WorkerId(worker), epoch=1, seq=seq, changes=(change,))


def waiting(**facts) -> Story:
    """A session whose 6,880 tokens are on w0, where both slots are taken for about half a second more; w1 is idle."""
    story = Story(Priced(), SavedWait(), cost=COST, **facts)
    before = story.grant(9, session="long", prompt=6_900, new_hashes=CHAIN, home=WorkerId("w0"))
    story.take(before)
    story.end(story.core.board.leases[before.lease_id])
    story.hear(told("w0", PagesStored(CHAIN)))
    for number in (1, 2):
        story.grant(number, prompt=50, home=WorkerId("w0"))
    story.hear(admitted(3, session="long", prompt=7_000, new_hashes=CHAIN))
    return story


def moved(story: Story) -> list[Grant]:
    return [message for message in story.tell(Tick()) if isinstance(message, Grant)]


def candidates(story: Story, session: str = "long") -> list[Candidate]:
    board = story.core.board
    step = next(step for step in board.steps.values() if step.admitted.step.session == session)
    return story.core._dispatch._candidates.of(board.workers.values(), step, board.sessions[SessionId(session)])


def test_a_step_that_would_have_to_be_computed_again_goes_on_waiting():
    assert moved(waiting()) == []


def test_it_moves_when_a_shared_tier_brings_its_context():
    (grant,) = moved(waiting(shared_tier="flash", shared_load_s_per_token=FAST))

    assert (grant.worker_id, grant.reason, grant.moved_from) == ("w1", "saves_wait", "w0")


def test_it_stays_when_reading_takes_longer_than_waiting():
    assert moved(waiting(shared_tier="flash", shared_load_s_per_token=SLOW)) == []


def test_a_step_that_moved_is_charged_for_what_is_left_to_compute_and_promised_nothing():
    (grant,) = moved(waiting(shared_tier="flash", shared_load_s_per_token=FAST))

    assert grant.cost_s == pytest.approx(COST.step_s(7_000, 6_880, 100))
    assert grant.cached_tokens == 0, "w1 has said nothing: it can break no promise, whatever the tier brings"


def test_what_any_worker_of_the_tier_holds_counts_for_the_others():
    story = waiting(shared_tier="flash", shared_load_s_per_token=FAST)

    assert [(c.cached_tokens, c.shared_tokens) for c in candidates(story)] == [(6_880, 0), (0, 6_880)]


def test_another_tier_or_none_has_nothing_of_it():
    story = waiting(shared_tier="flash", shared_load_s_per_token=FAST)
    for name, tier in (("w2", "other"), ("w3", "")):
        story.hear(hello(name, shared_tier=tier, shared_load_s_per_token=FAST))

    assert [c.shared_tokens for c in candidates(story)] == [0, 6_880, 0, 0]


def test_a_few_tokens_are_not_read_and_so_not_counted():
    facts = {"shared_tier": "flash", "shared_load_s_per_token": FAST}
    for count, tokens in ((15, 0), (16, 256)):
        story = Story(Priced(), None, **facts)
        story.hear(told("w0", PagesStored(CHAIN[: 8 * count])))
        for number in (1, 2, 4, 5):
            story.hear(admitted(number, home=WorkerId(f"w{number % 2}")))
        story.hear(admitted(3, session="long", prompt=7_000, new_hashes=CHAIN, home=WorkerId("w0")))
        assert candidates(story)[1].shared_tokens == tokens


def test_what_the_sessions_last_step_had_is_in_the_tier_when_all_workers_have_dropped_it():
    story = Story(Priced(), None, shared_tier="flash", shared_load_s_per_token=FAST)
    grant = story.grant(1, session="long", prompt=6_900, new_hashes=CHAIN)
    story.hear(told(grant.worker_id, PagesStored(CHAIN)))
    story.take(grant)
    story.finish(grant)
    story.hear(told(grant.worker_id, PagesRemoved(CHAIN), seq=2))
    for number in (2, 3):
        story.grant(number, home=grant.worker_id)

    story.hear(admitted(4, session="long", prompt=7_200, new_hashes=CHAIN + pages(2, 10)))

    assert [(c.cached_tokens, c.shared_tokens) for c in candidates(story)] == [(0, 6_880), (0, 6_880)]


def test_reading_is_a_term_of_the_price_and_spares_prefill_and_those_beside_it():
    step = admitted(1, prompt=10_000).step
    facts = {"leases": 4, "leased_engine_s": 4.0, "queued_engine_s": 0.0, "homed_tokens": 0, "homed_sessions": 0}
    facts |= {"cached_tokens": 0, "kv_tokens": 100_000, "prompt_s_per_token": 1e-3}
    cold = Candidate(worker_id=WorkerId("w0"), **facts)
    warm = Candidate(worker_id=WorkerId("w1"), shared_tokens=8_000, shared_load_s_per_token=FAST, **facts)

    computed, read = price(step, cold), price(step, warm)

    assert (computed.shared_s, read.shared_s) == (0.0, pytest.approx(0.08))
    assert (computed.prefill_s, read.prefill_s) == (pytest.approx(10.0), pytest.approx(2.0))
    assert read.interference_s < computed.interference_s / 4
    assert read.now_s == pytest.approx(read.wait_s + 2.08)
