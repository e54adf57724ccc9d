"""Pools, as heartbeats tell of them."""

from saga.contract.messages import Heartbeat, WorkerHello, WorkerLeaving
from saga.gateway.fleet import FORGET_AFTER_S, HEALTHY_WITHIN_S, Fleet


def hello(name, *, pool="m", context_tokens=100):
    return WorkerHello(
        worker_id=name,
        engine_url="http://e",
        pool=pool,
        epoch=1,
        page_tokens=16,
        kv_tokens=1000,
        context_tokens=context_tokens,
        max_running=4,
        session_tags=True,
    )


def beat(worker, *, healthy=True):
    return Heartbeat(worker=worker, healthy=healthy, running=0, waiting=0, used_tokens=0, residency_seq=0)


def test_workers_of_a_model_are_added_up():
    fleet = Fleet()
    fleet.hear(beat(hello("a")), 0.0)
    fleet.hear(hello("b", context_tokens=50), 0.0)
    fleet.hear(beat(hello("c", pool="other"), healthy=False), 0.0)
    pools = fleet.pools(0.0)
    assert (pools["m"].workers, pools["m"].healthy, pools["m"].kv_tokens, pools["m"].context_tokens) == (2, 2, 2000, 50)
    assert (pools["other"].workers, pools["other"].healthy) == (1, 0)


def test_a_worker_that_leaves_is_gone_and_one_whose_engine_died_is_unwell():
    fleet = Fleet()
    for name in ("a", "b"):
        fleet.hear(beat(hello(name)), 0.0)
    fleet.hear(WorkerLeaving(worker_id="a", epoch=1, engine_died=False), 0.0)
    fleet.hear(WorkerLeaving(worker_id="b", epoch=1, engine_died=True), 0.0)
    assert (fleet.pools(0.0)["m"].workers, fleet.pools(0.0)["m"].healthy) == (1, 0)
    fleet.hear(WorkerLeaving(worker_id="unknown", epoch=1, engine_died=True), 0.0)


def test_silence_makes_unwell_then_forgotten_unless_the_bus_was_away():
    fleet = Fleet()
    fleet.hear(beat(hello("a")), 0.0)
    assert fleet.pools(HEALTHY_WITHIN_S + 1)["m"].healthy == 0
    fleet.excuse(FORGET_AFTER_S - 1)
    assert fleet.pools(FORGET_AFTER_S + 1)["m"].healthy == 1
    assert fleet.pools(3 * FORGET_AFTER_S) == {}
