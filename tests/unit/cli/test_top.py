"""`saga top`: what it makes of what it hears, and how a frame reads."""

import io

import pytest
from console_story import finished, heartbeat, hello
from rich.console import Console

from saga.cli.top_text import MOST_TENANTS, MOST_WORKERS, bar, frame, tokens
from saga.cli.top_watch import GONE_S, CellWatch
from saga.contract.ids import TenantId, WorkerId
from saga.contract.messages import WorkerLeaving
from saga.contract.tenant_messages import TenantUse


@pytest.fixture
def watch():
    return CellWatch(0.0)


def read(watch, now_s=1.0, width=100):
    out = Console(file=io.StringIO(), width=width, highlight=False)
    out.print(frame(watch, "main", now_s))
    return out.file.getvalue()


def test_a_frame_has_workers_workflows_tenants_and_rates(watch):
    watch.heard(heartbeat("w1", running=3, used=5_000), 10.0)
    watch.heard(heartbeat("w2", running=0, used=0), 10.0)
    for number in range(20):
        watch.heard(finished(f"s{number}", prompt=1000, cached=800, output=50), 10.0)
    acme = TenantUse(tenant=TenantId("acme"), weight=2.0, active_workflows=5, queued_workflows=3, kv_tokens=25_000)
    watch.told([acme, TenantUse(tenant=TenantId("zed"), held_for="running_steps")])

    said = read(watch, 10.5)

    assert "workers 2/2  active 5  queued 3  steps/s 2.0  tokens/s 100  cached 80%  KV claimed 125%" in said
    (worker,) = [line.split() for line in said.splitlines() if line.startswith("w1 ")]
    assert worker[:6] == ["w1", "m", "████████", "50%", "10.0K", "3/8"]
    assert "acme" in said
    assert "running steps" in said
    assert max(map(len, said.splitlines())) <= 100


def test_rates_are_of_the_last_ten_seconds(watch):
    watch.heard(finished("a"), 5.0)
    watch.heard(finished("b"), 14.0)
    watch.settle(16.0)

    assert watch.steps_per_s(16.0) == 0.1


def test_a_worker_that_is_silent_or_has_no_engine_says_so_and_leaves_later(watch):
    watch.heard(heartbeat("w1"), 0.0)
    watch.heard(heartbeat("w2", healthy=False), 9.0)
    said = read(watch, 10.0)
    assert "silent for 10 s" in said
    assert "its engine does not answer" in said
    assert "workers 0/2" in said

    watch.settle(GONE_S + 1.0)
    watch.heard(WorkerLeaving(worker_id=WorkerId("w2"), epoch=1, engine_died=False), GONE_S + 1.0)

    assert "No worker is heard" in read(watch, GONE_S + 1.0)


def test_a_worker_is_there_from_its_hello_on(watch):
    watch.heard(hello("w9"), 1.0)

    assert "w9" in read(watch, 1.0)


def test_what_admission_said_last_stays_while_nobody_leads(watch):
    watch.told([TenantUse(tenant=TenantId("acme"), active_workflows=4)])
    watch.told(None)

    said = read(watch)

    assert "no admission leads this cell" in said
    assert "active 4" in said


def test_a_frame_of_a_large_cell_is_cut_with_a_word(watch):
    for number in range(100):
        watch.heard(heartbeat(f"w{number:03}"), 1.0)
    watch.told([TenantUse(tenant=TenantId(f"t{number:03}")) for number in range(100)])

    said = read(watch)

    assert f"and {100 - MOST_WORKERS} more" in said
    assert f"and {100 - MOST_TENANTS} more" in said


@pytest.mark.parametrize(
    ("share", "drawn"), [(-1, "    "), (0, "    "), (0.5, "██  "), (0.28, "█▏  "), (1, "████"), (7, "████")]
)
def test_a_bar_is_as_long_as_its_share(share, drawn):
    assert bar(share, 4) == drawn


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0"), (9_999, "9999"), (12_345, "12.3K"), (2.5e6, "2.5M"), (3e9, "3.0G")]
)
def test_tokens_are_short(count, said):
    assert tokens(count) == said
