"""Workers come, go and fall silent. Called by `state.py` alone."""

from saga.admission.roster import Roster
from saga.contract.ids import PoolId, WorkerId
from saga.contract.messages import Heartbeat, WorkerHello, WorkerStands

WORKER_SILENT_S = 3.0

Changed = tuple[PoolId, ...]  # pools that can do more than before, or less


class Presence:
    """Which workers serve, and when each was heard last."""

    def __init__(self, roster: Roster, silent_s: float = WORKER_SILENT_S) -> None:
        self._roster = roster
        self._silent_s = silent_s
        self._seen_s: dict[WorkerId, float] = {}
        self._barred: dict[WorkerId, None] = {}  # placement gives them no steps, or one at a time

    def said(self, hello: WorkerHello, now_s: float, *, serves: bool) -> Changed:
        """A worker says who it is, and whether its engine serves."""
        if not serves or hello.worker_id in self._barred:
            return self.gone(hello.worker_id)
        self._seen_s[hello.worker_id] = now_s
        return (hello.pool,) if self._roster.pool(hello.pool).serves(hello) else ()

    def beaten(self, beat: Heartbeat, now_s: float) -> Changed:
        """It lives. Of one that an operator wants empty, nothing is to be expected."""
        return self.said(beat.worker, now_s, serves=beat.healthy and not beat.draining)

    def stands(self, stands: WorkerStands) -> Changed:
        """Placement has made up its mind about a worker."""
        if stands.standing == "serving":
            self._barred.pop(stands.worker_id, None)  # its next heartbeat counts
            return ()
        self._barred[stands.worker_id] = None
        return self.gone(stands.worker_id)

    def placement_is_new(self) -> None:
        """It says again of whom it thinks ill."""
        self._barred.clear()

    def gone(self, worker_id: WorkerId) -> Changed:
        """Nothing new starts there."""
        self._seen_s.pop(worker_id, None)
        return tuple(pool_id for pool_id, pool in self._roster.pools.items() if pool.gone(worker_id))

    def silent(self, now_s: float) -> list[WorkerId]:
        """Those that have not been heard for too long."""
        return [worker_id for worker_id, seen_s in self._seen_s.items() if now_s - seen_s > self._silent_s]

    def see_all(self, now_s: float) -> None:
        """Nobody could be heard for a while: that was no sign of death."""
        self._seen_s = dict.fromkeys(self._seen_s, now_s)
