"""How evenly work falls on the workers of a run, and what its moves cost and saved. Made by `runner`; only looks."""

from saga.contract.ids import NO_WORKER
from saga.contract.messages import Grant
from saga.sim.detail import Moved
from saga.sim.world import World

STOLEN = ("stolen", "saves_wait")  # reasons of a Grant to a step that waited for another worker
STAYS_OR_GOES = 2  # prices kept with a step that moved: of where it starts, of where it waited


class Work:
    """Between `begin` and `end`, while all users are at work: the share of time in which each engine ran something, and
    what it got done: an engine that always runs something may still have little to do.

    Of the whole run: steps that were stolen from a worker where their session had run, what they prefilled that was
    resident there, and the wait that was expected to be saved. A session that has run nowhere leaves nothing behind:
    its first step may begin elsewhere than where it waited, but that is no move.
    """

    def __init__(self, world: World) -> None:
        self.busy_shares: tuple[float, ...] = ()
        self.done_s: tuple[float, ...] = ()  # modelled engine-seconds of prefill and decode, contexts left out
        self.moves = 0
        self.moved_prefill_s = 0.0  # engine-seconds
        self.moved_saved_s = 0.0  # seconds
        self.begun_elsewhere = 0
        self.seen: list[Moved] = []  # both kinds
        self._world = world
        self._begun_s = 0.0
        self._busy_s: list[float] = []
        self._done_s: list[float] = []
        world.ears[Grant] = self._granted

    def begin(self) -> None:
        """The first conversation that is measured begins."""
        self._begun_s = self._world.agenda.now_s
        self._busy_s, self._done_s = self._each(), self._done()

    def end(self) -> None:
        """The last conversation begins."""
        seconds = self._world.agenda.now_s - self._begun_s
        if seconds > 0.0 and self._busy_s:
            self.done_s = tuple(now_s - then_s for now_s, then_s in zip(self._done(), self._done_s, strict=True))
            spent = zip(self._each(), self._busy_s, strict=True)
            self.busy_shares = tuple((now_s - then_s) / seconds for now_s, then_s in spent)

    def _each(self) -> list[float]:
        now_s = self._world.agenda.now_s
        return [host.core.stats.busy_s(now_s) for host in self._world.engines.values()]

    def _done(self) -> list[float]:
        found = []
        for host in self._world.engines.values():
            stats, cost = host.core.stats, host.facts.cost
            prefill_s = stats.prefilled_tokens * cost.prompt_s_per_token
            found.append(prefill_s + stats.generated_tokens * cost.output_s_per_token)
        return found

    def _granted(self, grant: Grant) -> None:
        if grant.reason not in STOLEN or not grant.moved_from:
            return
        board = self._world.placement.core.board
        step = board.steps.get(grant.step_id)
        saved_s = 0.0
        if step is not None and len(step.prices) == STAYS_OR_GOES:
            there, here = step.prices
            saved_s = here.wait_s + here.behind_s - there.wait_s
        moves = grant.ran_at not in (NO_WORKER, grant.worker_id)
        prefill_s = 0.0
        if moves:
            hello = board.workers[grant.worker_id].hello
            if not hello.shared_tier:  # else they are read from there
                prefill_s = max(0, grant.left_tokens - grant.cached_tokens) * hello.cost.prompt_s_per_token
            self.moves += 1
            self.moved_prefill_s += prefill_s
            self.moved_saved_s += saved_s
        else:
            self.begun_elsewhere += 1
        now_s = self._world.agenda.now_s
        self.seen.append(
            Moved(now_s, grant.session, grant.moved_from, grant.worker_id, saved_s, prefill_s, begins=not moves)
        )
