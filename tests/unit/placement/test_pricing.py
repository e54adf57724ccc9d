"""What a start costs on each worker, and which worker the default policy takes for it."""

import msgspec
import pytest
from placement_story import admitted

from saga.contract.ids import WorkerId
from saga.placement.candidate import Candidate
from saga.placement.pricing import MOST_PRICED, Priced, price, shortlist, wait_s

STEP = admitted(1, prompt=10_000).step


def candidate(name: str, **facts) -> Candidate:
    given = {
        "cached_tokens": 0,
        "leases": 0,
        "leased_engine_s": 0.0,
        "queued_engine_s": 0.0,
        "homed_tokens": 0,
        "homed_sessions": 0,
        "kv_tokens": 400_000,
        "prompt_s_per_token": 2e-4,
        "output_s_per_token": 1e-3,
        "context_s_per_token": 5e-8,
    }
    return Candidate(worker_id=WorkerId(name), **(given | facts))


def chosen(*candidates: Candidate) -> tuple[str, str]:
    decision = Priced().choose(STEP, candidates)
    return decision.choice, decision.reason


def test_a_price_is_the_sum_of_its_terms_and_each_says_what_it_is_for():
    busy = candidate("w0", cached_tokens=6_000, leases=10, leased_tokens=100_000, leased_engine_s=20.0)

    told = price(STEP, busy)

    assert told.wait_s == 0.0, "there is room"
    assert told.prefill_s == pytest.approx(4_000 * 2e-4)
    assert told.interference_s > 10 * told.prefill_s, "ten others stall while it is prefilled"
    assert told.total_s == pytest.approx(
        sum(getattr(told, name) for name in msgspec.structs.asdict(told) if name != "worker_id")
    )


def test_who_finds_no_room_waits_for_one_lease_to_end_and_for_all_that_waits():
    full = candidate("w0", leases=8, slots=8, leased_engine_s=40.0, queued_steps=2, queued_engine_s=6.0)

    assert wait_s(full, 1_000) == 40.0 / 8 + 6.0
    assert wait_s(msgspec.structs.replace(full, slots=9, queued_steps=0), 1_000) == 0.0
    assert wait_s(msgspec.structs.replace(full, slots=9, queued_steps=0, leased_tokens=399_500), 1_000) > 0.0
    assert wait_s(candidate("w0", kv_tokens=100), 1_000) == 0.0, "it runs alone rather than never"


def test_a_resident_prefix_draws_the_step():
    assert chosen(candidate("w0"), candidate("w1", cached_tokens=8_000)) == ("w1", "resident_prefix")


def test_a_prefix_that_is_on_its_way_draws_the_step_as_well():
    assert chosen(candidate("w0"), candidate("w1", coming_tokens=8_000, leases=1)) == ("w1", "resident_prefix")


def test_when_the_worker_with_the_prefix_is_hot_another_prefills_it_once_more():
    hot = candidate("w1", cached_tokens=8_000, leases=60, leased_tokens=350_000, leased_engine_s=100.0)

    assert chosen(candidate("w0"), hot) == ("w0", "replicates_prefix")


def test_a_prefix_is_not_copied_for_little():
    """One more request at the side of a prefix costs less than a fifth of the whole."""
    warm = candidate("w1", cached_tokens=2_000, leases=1, leased_tokens=10_000, leased_engine_s=1.0)
    cold = candidate("w0")
    prices = [price(STEP, c).total_s for c in (warm, cold)]

    assert prices[1] < prices[0] < 1.2 * prices[1]
    assert chosen(cold, warm) == ("w1", "resident_prefix")


def test_home_is_left_only_for_one_that_is_clearly_cheaper():
    crowded = {"leases": 20, "leased_tokens": 200_000, "leased_engine_s": 60.0}

    assert chosen(candidate("w0"), candidate("w1", is_home=True, leases=1, leased_tokens=5_000))[0] == "w1"
    assert chosen(candidate("w0"), candidate("w1", is_home=True, **crowded)) == ("w0", "cheapest_start")


def test_a_fuller_pool_is_dearer_because_of_the_returns():
    full = price(STEP, candidate("w0", homed_tokens=380_000)).displaced_s

    assert full > 50 * price(STEP, candidate("w0", homed_tokens=40_000)).displaced_s


def test_a_context_beyond_the_device_is_loaded_from_the_host_tier():
    tier = {"cached_tokens": 8_000, "load_s_per_token": 3e-6}

    assert price(STEP, candidate("w0", homed_tokens=400_000, **tier)).load_s == 0.0
    assert price(STEP, candidate("w0", homed_tokens=800_000, **tier)).load_s == pytest.approx(8_000 * 3e-6 / 2)


def test_a_faster_worker_with_more_kv_takes_more_before_both_cost_the_same():
    slow = {"kv_tokens": 448_000, "prompt_s_per_token": 2.0e-4, "output_s_per_token": 8e-4, "context_s_per_token": 5e-8}
    fast = {
        "kv_tokens": 1_327_000,
        "prompt_s_per_token": 4e-5,
        "output_s_per_token": 4e-4,
        "context_s_per_token": 2e-8,
    }
    homed = {"slow": 0, "fast": 0}
    for _ in range(100):
        found = [
            candidate(name, homed_tokens=homed[name], homed_sessions=homed[name] // 15_000, **kind)
            for name, kind in (("slow", slow), ("fast", fast))
        ]
        homed[Priced().choose(STEP, found).choice] += 15_000

    assert 2.5 < homed["fast"] / homed["slow"] < 8.0, "three times the KV at more than twice the speed"


def test_of_a_thousand_the_best_is_found_among_few():
    crowd = [candidate(f"w{n:03}", homed_tokens=n * 1_000 % 377_000, leased_engine_s=n % 61) for n in range(1_000)]
    warm = candidate("warm", cached_tokens=9_000)

    listed = shortlist(STEP, [*crowd, warm])

    assert warm in listed
    assert len(listed) <= 2 * MOST_PRICED
    best = min(crowd, key=lambda c: price(STEP, c).total_s)
    assert best in listed


def test_the_prices_of_the_best_are_kept_the_chosen_one_first():
    decision = Priced().choose(STEP, [candidate("w0", homed_tokens=100_000), candidate("w1"), candidate("w2")])

    assert [told.worker_id for told in decision.prices] == ["w1", "w2", "w0"]
