"""One page size in a pool: the worker that came later and differs is told which flag to set; nobody else is."""

import msgspec

from saga.contract.ids import PoolId, WorkerId
from saga.contract.messages import Heartbeat, WorkerHello, WorkerLeaving
from saga.worker.pool_fit import misfit

MINE = WorkerHello(
    worker_id=WorkerId("b"), engine_url="http://h:2", pool=PoolId("m"), epoch=20, page_tokens=16, kv_tokens=4_096,
    context_tokens=1_024, max_running=4, session_tags=True,
)  # fmt: skip
OTHER = msgspec.structs.replace(MINE, worker_id=WorkerId("a"), engine_url="http://h:1", epoch=10, page_tokens=64)


def other(**changes) -> WorkerHello:
    return msgspec.structs.replace(OTHER, **changes)


def beat(hello: WorkerHello) -> Heartbeat:
    return Heartbeat(
        worker=hello, healthy=True, running=0, waiting=0, used_tokens=0, residency_seq=0, open_session_tags=0, leases=0
    )


def test_the_newcomer_is_told_what_differs_and_which_flag_to_set():
    for heard in (OTHER, beat(OTHER)):
        said = misfit(MINE, heard)
        for part in ("http://h:2", "pages of 16", "worker a", "pages of 64", "--page-size 64", "'m'"):
            assert part in said


def test_who_was_there_first_stays():
    assert misfit(OTHER, MINE) == ""
    assert misfit(MINE, other(epoch=30)) == ""
    assert misfit(MINE, other(epoch=20)), "of two at the same moment exactly one goes"
    assert misfit(other(epoch=20), MINE) == ""


def test_equal_pages_another_pool_oneself_and_other_words_are_fine():
    assert misfit(MINE, other(page_tokens=16)) == ""
    assert misfit(MINE, other(pool=PoolId("another"))) == ""
    assert misfit(MINE, other(worker_id=MINE.worker_id, engine_url=MINE.engine_url)) == ""
    assert misfit(MINE, WorkerLeaving(worker_id=WorkerId("a"), epoch=10, engine_died=False)) == ""


def test_a_newcomer_whose_id_is_taken_is_told_by_whom():
    twin = other(worker_id=MINE.worker_id, page_tokens=MINE.page_tokens)

    said = misfit(MINE, beat(twin))

    for part in ("'b' is taken", "http://h:1", "http://h:2", "SAGA_WORKER_ID"):
        assert part in said
    assert misfit(twin, beat(MINE)) == "", "who was there first stays"
    assert misfit(MINE, beat(other(worker_id=MINE.worker_id, engine_url=MINE.engine_url))) == "", "its own predecessor"
