"""The systems by name, and what sets each apart from the others."""

import pytest

from saga.admission.policy import Everybody
from saga.admission.worker_budgets import WorkerBudgets
from saga.placement.pricing import Priced
from saga.placement.stealing import SavedWait
from saga.sim.systems.registry import SYSTEMS, UnknownSystemError, make_system
from saga.worker.retention import Saga

DESIGNED = {
    "round-robin",
    "least-loaded",
    "session-affinity",
    "prefix-aware",
    "affinity+cap",
    "srpt+affinity",
    "edf+affinity",
    "kv-ttl",
    "steps-to-run",
    "pause-resume",
    "attained-service",
    "paper",
    "saga",
}


def test_every_system_of_the_design_is_there_and_the_bound_is_none_of_them():
    assert set(SYSTEMS) == DESIGNED
    assert make_system("kv-bound", 10).shared_kv


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_run_takes_fresh_policies(name: str):
    first, second = make_system(name, 10), make_system(name, 10)

    assert first.order() is not second.order()
    assert first.placement() is not second.placement()
    assert first.active_set() is not second.active_set()


def test_engines_keep_session_tags_only_where_the_retention_policy_sets_them():
    tagging = {name for name in SYSTEMS if make_system(name, 10).engine.session_radix_cache}

    assert tagging == {"kv-ttl", "steps-to-run", "paper", "saga"}


def test_saga_is_the_present_policies_of_the_mesh():
    saga = make_system("saga", 10)

    assert saga.placement is Priced
    assert isinstance(saga.stealing(1), SavedWait)
    assert saga.active_set is WorkerBudgets
    assert isinstance(saga.retention(), Saga)


def test_a_name_may_carry_a_setting_and_an_engine_queue_policy():
    system = make_system("attained-service:5@lpm", 10)

    assert system.engine.schedule == "lpm"
    assert isinstance(system.active_set(), Everybody)


@pytest.mark.parametrize("name", ["no-such", "saga@sjf", ""])
def test_an_unknown_name_says_which_there_are(name: str):
    with pytest.raises(UnknownSystemError, match="round-robin, least-loaded"):
        make_system(name, 10)
