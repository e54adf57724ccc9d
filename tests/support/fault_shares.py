"""Whether a cell is itself again: sessions run where their KV is, tenants get their shares. Told of starts and ends."""

from collections.abc import Callable

import msgspec
from fault_engine import COST, Engine

from saga.contract.messages import Grant, StepReady

SAVES_WAIT = "saves_wait"  # placement's word for a step that starts elsewhere because waiting at home costs more


class Start(msgspec.Struct, gc=False):
    """A step was given to an engine for the first time."""

    at_s: float
    tenant: str
    home: str  # worker that holds its session's KV, as the session's last step left it; empty: none
    worker_id: str
    cost_s: float = 0.0  # modelled engine-seconds, filled in at its end
    reason: str = ""  # placement's


class Shares:
    """Of one run. `now_s`: of the world."""

    def __init__(self, now_s: Callable[[], float], engines: dict[str, Engine]) -> None:
        self.starts: list[Start] = []
        self._now_s, self._engines = now_s, engines
        self._open: dict[str, Start] = {}
        self._homes: dict[str, tuple[str, int]] = {}  # by session: worker, incarnation of its engine

    def granted(self, step: StepReady, grant: Grant) -> None:
        """The first grant of each step counts: later ones follow a death."""
        if grant.attempt or step.step_id in self._open:
            return
        worker, incarnation = self._homes.get(step.session, ("", 0))
        there = worker and self._engines[worker].incarnation == incarnation and self._engines[worker].life.alive
        self._open[step.step_id] = Start(
            self._now_s(), step.tenant, worker if there else "", grant.worker_id, reason=grant.reason
        )

    def answered(self, step: StepReady, worker_id: str, cached_tokens: int, output_tokens: int) -> None:
        """Its session's KV is there now."""
        self._homes[step.session] = (worker_id, self._engines[worker_id].incarnation)
        start = self._open.pop(step.step_id, None)
        if start is not None:
            start.cost_s = COST.step_s(step.prompt_tokens, cached_tokens, output_tokens)
            self.starts.append(start)

    def at_home(self, from_s: float, until_s: float) -> tuple[int, int, int]:
        """Starts in that time of steps whose session's KV was somewhere: there, elsewhere, moved because that paid."""
        seen = [start for start in self.starts if start.home and from_s <= start.at_s < until_s]
        home = sum(start.home == start.worker_id for start in seen)
        moved = sum(start.home != start.worker_id and start.reason == SAVES_WAIT for start in seen)
        return home, len(seen) - home - moved, moved

    def service_s(self, tenant: str, from_s: float, until_s: float) -> float:
        """Engine-seconds of the tenant's steps started in that time."""
        return sum(s.cost_s for s in self.starts if s.tenant == tenant and from_s <= s.at_s < until_s)
