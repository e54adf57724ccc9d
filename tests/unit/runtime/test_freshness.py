"""How old news of engines' KV caches is."""

from saga.contract.ids import WorkerId
from saga.contract.messages import AllCleared, ResidencyDelta
from saga.kernel.effects import Received, Tick
from saga.runtime.freshness import STALENESS, watched


class WallClock:
    def monotonic_s(self):
        return 5.0

    def wall_s(self):
        return 1_000.0


def delta(published_at):
    return Received(
        ResidencyDelta(worker_id=WorkerId("w"), epoch=1, seq=1, changes=(AllCleared(),), published_at=published_at)
    )


def test_news_whose_age_is_known_is_timed_and_everything_passes():
    heard = []
    door = watched(lambda event, now_s: heard.append((event, now_s)) or ["done"], WallClock())
    before_s = STALENESS._sum.get()

    events = [Tick(), delta(0.0), delta(999.5), delta(1_000.5)]
    assert [door(event, 7.0) for event in events] == [["done"]] * 4

    assert heard == [(event, 7.0) for event in events]
    assert STALENESS._sum.get() - before_s == 0.5
