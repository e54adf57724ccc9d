"""The step protocol under a bad network and sudden deaths: no step hangs, none runs twice, nothing leaks."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from protocol_world import Faults, World

from saga.contract.ids import WorkerId
from saga.contract.messages import MESSAGE_TYPES, WorkerHello

DEATHS = ("admission", "placement", "engine", "gateway")


def settle_and_check(w) -> None:
    """Let the network be good for long enough, then nothing may be left over anywhere."""
    w.heal()
    w.run_until(w.now_s + 60.0)

    assert w.violations == []
    for step_id, party in w.submitted.items():
        if party.alive:
            assert step_id in w.ended, f"{step_id} hangs"
            assert step_id not in party.core._steps
    for engine in w.engines.values():
        assert engine.running == {}, "a request runs for nobody"
    for service, name in w.leader.items():
        core = w.parties[name].core
        assert core.leading, f"{service} has no leader"
        if service == "placement":
            assert core.board.leases == {}, "a slot leaks"
            accounts = core.board.lease_accounts
            assert accounts.granted == sum(accounts.ended.values()), "a lease has gone without an end"
            assert core.board.steps == {}
        else:
            assert core.book.steps == {}, "admission remembers a step that is over"
    for worker_id in w.engines:
        leases = w.parties[worker_id].core.leases
        assert len(leases) == 0, f"{worker_id} holds a lease that nobody has"


def test_a_good_network_finishes_every_step_at_the_first_attempt():
    w = World(1, Faults())
    w.run_until(103.0)
    for number in range(30):
        w.submit(number, f"g{number % 2}")

    settle_and_check(w)

    assert set(w.ended.values()) == {"finished"}
    assert w.runs == 30


@pytest.mark.parametrize("service", ["admission", "placement"])
def test_a_leaders_death_delays_steps_and_fails_none(service):
    w = World(2, Faults())
    w.run_until(103.0)
    for number in range(20):
        w.submit(number, f"g{number % 2}")
    w.run_until(103.2)
    w.kill_leader(service)
    for number in range(20, 30):
        w.submit(number, f"g{number % 2}")

    settle_and_check(w)

    assert set(w.ended.values()) == {"finished"}


def test_an_engines_death_moves_its_steps_elsewhere():
    w = World(3, Faults())
    w.run_until(103.0)
    for number in range(12):
        w.submit(number, "g0")
    w.run_until(103.5)
    busy = max(w.engines, key=lambda i: len(w.engines[i].running))
    w.kill_engine(busy)

    settle_and_check(w)

    assert set(w.ended.values()) == {"finished"}


@pytest.mark.parametrize("kind", [k for k in MESSAGE_TYPES if k is not WorkerHello], ids=lambda kind: kind.__name__)
def test_any_kind_of_message_may_be_lost_for_a_while_in_which_leaders_and_engines_die(kind):
    w = World(4, Faults(swallow=kind))
    w.run_until(102.0)
    for number in range(40):
        w.at(102.0 + 0.2 * number, lambda n=number: w.submit(n, f"g{n % 2}"))
    w.at(103.0, lambda: w.kill_leader("placement"))
    w.at(104.0, lambda: w.kill_engine(WorkerId("w0")))
    w.at(105.0, lambda: w.kill_leader("admission"))
    w.run_until(111.0)

    settle_and_check(w)

    assert set(w.ended.values()) == {"finished"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    lose=st.floats(0.0, 0.3),
    double=st.floats(0.0, 0.3),
    late=st.floats(0.0, 0.5),
    latest_s=st.floats(0.0, 4.0),
    deaths=st.lists(st.tuples(st.floats(0.0, 12.0), st.sampled_from(DEATHS)), max_size=4),
    gone=st.floats(0.0, 0.4),
)
def test_nothing_hangs_runs_twice_or_leaks(seed, lose, double, late, latest_s, deaths, gone):
    w = World(seed, Faults(lose, double, late, latest_s))
    w.run_until(101.0)
    for number in range(40):
        gone_after_s = w.rng.uniform(0.0, 3.0) if w.rng.random() < gone else None
        gateway = f"g{number % 2}"
        w.at(
            101.0 + w.rng.uniform(0.0, 10.0),
            lambda n=number, g=gateway, s=gone_after_s: w.submit(n, g, gone_after_s=s) if g in w.parties else None,
        )
    killed = set()
    for after_s, victim in deaths:
        if victim == "engine":
            worker_id = w.rng.choice(list(w.engines))
            w.at(101.0 + after_s, lambda i=worker_id: w.kill_engine(i) if w.engines[i].alive else None)
        elif victim == "gateway" and victim not in killed:
            w.at(101.0 + after_s, lambda: w.kill_gateway("g1"))
        elif victim in ("admission", "placement") and victim not in killed:
            w.at(101.0 + after_s, lambda v=victim: w.kill_leader(v))
        killed.add(victim)
    w.run_until(115.0)

    settle_and_check(w)
