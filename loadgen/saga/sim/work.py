"""How evenly work falls on the workers of a run, and what its moves cost and saved. Made by `runner`; only looks."""

from saga.contract.messages import Grant
from saga.sim.world import World

STOLEN = ("stolen", "saves_wait")  # reasons of a Grant to a step that waited for another worker


class Work:
    """Between `begin` and `end`, while all users are at work: the share of time in which each engine ran something.

    Of the whole run: steps that were stolen from a worker where their session had run, what they prefilled that was
    resident there, and the wait that was expected to be saved.
    """

    def __init__(self, world: World) -> None:
        self.busy_shares: tuple[float, ...] = ()
        self.moves = 0
        self.moved_prefill_s = 0.0  # engine-seconds
        self.moved_saved_s = 0.0  # seconds
        self._world = world
        self._begun_s = 0.0
        self._busy_s: list[float] = []
        world.ears[Grant] = self._granted

    def begin(self) -> None:
        """The first conversation that is measured begins."""
        self._begun_s = self._world.agenda.now_s
        self._busy_s = self._each()

    def end(self) -> None:
        """The last conversation begins."""
        seconds = self._world.agenda.now_s - self._begun_s
        if seconds > 0.0 and self._busy_s:
            spent = zip(self._each(), self._busy_s, strict=True)
            self.busy_shares = tuple((now_s - then_s) / seconds for now_s, then_s in spent)

    def _each(self) -> list[float]:
        now_s = self._world.agenda.now_s
        return [host.core.stats.busy_s(now_s) for host in self._world.engines.values()]

    def _granted(self, grant: Grant) -> None:
        if grant.reason not in STOLEN or not grant.moved_from:
            return
        self.moves += 1
        hello = self._world.placement.core.board.workers[grant.worker_id].hello
        self.moved_prefill_s += max(0, grant.left_tokens - grant.cached_tokens) * hello.cost.prompt_s_per_token
        step = self._world.placement.core.board.steps.get(grant.step_id)
        if step is not None and len(step.prices) == 2:
            there, here = step.prices
            self.moved_saved_s += here.wait_s - there.wait_s
