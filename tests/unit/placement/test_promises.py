"""What a worker advertised at the Grant against what its engine had: kept, excused, or broken."""

import pytest

from saga.contract.ids import GatewayId, LeaseId, PoolId, RootId, SessionId, StepId, TenantId, WorkerId
from saga.contract.messages import AllCleared, Grant, PagesRemoved, PagesStored, ResidencyDelta, StepFinished
from saga.placement.promises import MAX_TAKEN_BACK_BYTES, Promises

PAGE = 16
CHAIN = b"".join(number.to_bytes(8, "big") for number in range(1, 101))
STEP = StepId("0" * 32)
LEASE = LeaseId("l")
W = WorkerId("w")


def grant(expected_tokens: int) -> Grant:
    return Grant(
        step_id=STEP, attempt=0, lease_id=LEASE, root=RootId("r"), session=SessionId("s"), worker_id=W, engine_url="e",
        session_tag="", cached_tokens=expected_tokens, ttl_s=2.0, lease_ttl_s=5.0, admission_fence=1, fence=1,
    )  # fmt: skip


def finished(cached_tokens: int) -> StepFinished:
    return StepFinished(
        step_id=STEP, attempt=0, lease_id=LEASE, worker_id=W, gateway_id=GatewayId("g"), tenant=TenantId("t"),
        root=RootId("r"), session=SessionId("s"), pool=PoolId("m"), prompt_tokens=1_600, output_tokens=9,
        cached_tokens=cached_tokens, finish_reason="stop",
    )  # fmt: skip


def says(*changes) -> ResidencyDelta:
    return ResidencyDelta(worker_id=W, epoch=1, seq=1, changes=changes)


def promised(tokens: int = 800, chain: bytes = CHAIN) -> Promises:
    promises = Promises()
    promises.made(grant(tokens), 1, PAGE, chain, 0.0)
    return promises


def verdict(promises: Promises, cached_tokens: int, epoch: int = 1) -> str | None:
    judged = promises.judged(finished(cached_tokens), epoch)
    assert len(promises) == 0, "judged once"
    return judged[0] if judged is not None else None


@pytest.mark.parametrize(
    ("cached", "said"), [(800, "kept"), (1_584, "kept"), (416, "kept"), (0, "broken"), (384, "broken")]
)
def test_it_is_kept_when_more_than_half_of_it_was_there(cached, said):
    assert verdict(promised(), cached) == said


def test_a_page_that_was_taken_back_in_between_excuses():
    promises = promised()
    promises.taken_back(says(PagesStored(b"x" * 8), PagesRemoved(CHAIN[8 * 10 : 8 * 50])))

    assert verdict(promises, 160) == "excused"


def test_but_other_pages_do_not():
    promises = promised()
    promises.taken_back(says(PagesRemoved(CHAIN[8 * 11 : 8 * 50])))

    assert verdict(promises, 160) == "broken", "the engine missed the eleventh page, and never said so"


def test_nor_does_what_was_taken_back_before_the_promise():
    promises = promised()
    promises.taken_back(says(PagesRemoved(CHAIN)))
    promises.off(LEASE)
    promises.made(grant(800), 1, PAGE, CHAIN, 0.0)

    assert verdict(promises, 0) == "broken"


@pytest.mark.parametrize("doubt", ["cleared", "new engine", "snapshot", "too much to remember"])
def test_where_nobody_can_be_sure_it_is_excused(doubt):
    promises = promised()
    match doubt:
        case "cleared":
            promises.taken_back(says(AllCleared()))
        case "snapshot":
            promises.unsure(W)
        case "too much to remember":
            for _ in range(1 + MAX_TAKEN_BACK_BYTES // 1_000_000):
                promises.taken_back(says(PagesRemoved(b"y" * 1_000_000)))

    assert verdict(promises, 0, epoch=2 if doubt == "new engine" else 1) == "excused"


@pytest.mark.parametrize(("tokens", "chain"), [(0, CHAIN), (PAGE, CHAIN), (800, b"")])
def test_small_promises_and_prompts_that_nobody_has_at_hand_are_not_judged(tokens, chain):
    assert verdict(promised(tokens, chain), 0) is None


def test_nothing_is_kept_of_workers_without_a_promise():
    promises = promised()
    promises.taken_back(says(PagesRemoved(CHAIN)))
    promises.off(LEASE)
    promises.taken_back(says(PagesRemoved(CHAIN)))

    assert promises._taken_back[W].bytes == 0
    assert not promises._taken_back[W].log
