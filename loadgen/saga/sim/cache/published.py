"""The published orders of eviction: WA-LRU's score and Algorithm 1's TTL, causal, page by page. Run in `paged`.

What they leave open is learnt from what has been seen so far, by how a call ended (the trace names no tools): the
probability of a return and the P95 of gaps. A page shared by sessions belongs to the one that used it last.
"""

from collections.abc import Sequence

from saga.graph.sketch import Sketch, quantiles
from saga.sim.cache.fitting import Stream
from saga.sim.cache.paged import NEVER_S

RECENCY, REUSE, SIZE = 0.3, 0.5, 0.2
TERMINATION = 0.05  # before anything is learnt, with the weight of so many ends of calls:
PRIOR_CALLS = 8.0
ENDED_AFTER_S = 3_600.0  # who is away longer is counted as gone until it returns
TTL_CAP_S = 300.0
TTL_PERCENTILE = 0.95
SOFT, HARD = 0.7, 0.9  # shares of the pool between which TTLs shrink to half
_PROTECTED = 1e12  # above every count of uses


class Turns:
    """What followed calls that ended in some way: gaps, and whether anything followed at all."""

    def __init__(self) -> None:
        self._gaps: dict[str, Sketch] = {}
        self._returned: dict[str, int] = {}
        self._gone: dict[str, int] = {}
        self._away: dict[int, tuple[str, float]] = {}  # agents by the end of their last call, oldest first
        self._counted: dict[int, str] = {}  # agents counted as gone

    def ended(self, agent: int, turn: str, now_s: float) -> None:
        """A call of this agent ended."""
        self._away[agent] = (turn, now_s)

    def started(self, agent: int, now_s: float) -> None:
        """The agent is back, or here for the first time."""
        self._count(now_s)
        turn, since_s = self._away.pop(agent, ("", -1.0))
        if since_s < 0:
            return
        if self._counted.pop(agent, None) is not None:
            self._gone[turn] -= 1
        self._returned[turn] = self._returned.get(turn, 0) + 1
        self._gaps.setdefault(turn, Sketch()).add(now_s - since_s)

    def _count(self, now_s: float) -> None:
        for agent, (turn, since_s) in self._away.items():
            if now_s - since_s < ENDED_AFTER_S:
                break
            if agent not in self._counted:
                self._counted[agent] = turn
                self._gone[turn] = self._gone.get(turn, 0) + 1

    def termination(self, turn: str) -> float:
        """Probability that nothing follows a call that ended so."""
        gone = self._gone.get(turn, 0)
        return (gone + PRIOR_CALLS * TERMINATION) / (gone + self._returned.get(turn, 0) + PRIOR_CALLS)

    def p95_s(self, turn: str) -> float:
        """Of the gaps after calls that ended so; the cap while none is known."""
        gaps = self._gaps.get(turn)
        return TTL_CAP_S if gaps is None else quantiles(gaps, (TTL_PERCENTILE,))[0]


class WaLru:
    """0.3 x idle time + 0.5 x (1 - probability of reuse) + 0.2 x size, by session; the largest goes first.

    Idle time and size are shares of the largest among sessions with pages here.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._turns = Turns()
        self._owner = [-1] * len(stream.trace.segments.pages)
        agents = len(stream.trace.agents)
        self._pages = [0] * agents  # held, by owner
        self._held = [0] * len(self._owner)
        self._last_s = [0.0] * agents
        self._turn = [""] * agents

    def started(self, call: int, now_s: float) -> Sequence[int]:
        """Its gap is over."""
        self._turns.started(self._stream.trace.calls[call].agent, now_s)
        return ()

    def ended(self, call: int, path: list[int], now_s: float, used_share: float) -> None:
        """Its agent owns all of its pages now."""
        del used_share
        agent = self._stream.trace.calls[call].agent
        turn = self._stream.trace.calls[call].turn
        self._turns.ended(agent, turn, now_s)
        self._last_s[agent], self._turn[agent] = now_s, turn
        owner, held, size = self._owner, self._held, self._stream.trace.segments.pages
        for segment in path:
            if owner[segment] != agent:
                if owner[segment] >= 0:
                    self._pages[owner[segment]] -= held[segment]
                self._pages[agent] += size[segment]
                owner[segment] = agent
            else:
                self._pages[agent] += size[segment] - held[segment]
            held[segment] = size[segment]

    def evicted(self, segment: int, pages: int) -> None:
        """Its owner has less."""
        self._held[segment] -= pages
        self._pages[self._owner[segment]] -= pages

    def ranks(self, segments: list[int], now_s: float) -> list[float]:
        """As WholeOrder."""
        most_pages = max(1, *self._pages)
        idle_s = [now_s - last_s for last_s, pages in zip(self._last_s, self._pages, strict=True) if pages > 0]
        longest_s = max(0.001, *idle_s) if idle_s else 0.001
        scores: dict[int, float] = {}
        ranks = []
        for segment in segments:
            agent = self._owner[segment]
            if agent not in scores:
                idle = min(1.0, (now_s - self._last_s[agent]) / longest_s)
                gone = self._turns.termination(self._turn[agent])
                scores[agent] = RECENCY * idle + REUSE * gone + SIZE * self._pages[agent] / most_pages
            ranks.append(-scores[agent])
        return ranks

    def rank(self, segment: int, now_s: float) -> tuple[float, float]:
        """As Order."""
        return self.ranks([segment], now_s)[0], now_s


class Ttl:
    """Pages are protected after a call for min(P95 of gaps x (1 - m / 2), 300 s); then least recently used first.

    m: how far the pool is filled between 70 % and 90 %. When all are protected, they go least recently used first.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._turns = Turns()
        count = len(stream.trace.segments.pages)
        self._used = [0] * count
        self._until_s = [0.0] * count
        self._uses = 0

    def started(self, call: int, now_s: float) -> Sequence[int]:
        """Its gap is over."""
        self._turns.started(self._stream.trace.calls[call].agent, now_s)
        return ()

    def ended(self, call: int, path: list[int], now_s: float, used_share: float) -> None:
        """Its pages are protected from now on."""
        the = self._stream.trace.calls[call]
        self._turns.ended(the.agent, the.turn, now_s)
        pressure = min(1.0, max(0.0, (used_share - SOFT) / (HARD - SOFT)))
        until_s = now_s + min(self._turns.p95_s(the.turn) * (1.0 - 0.5 * pressure), TTL_CAP_S)
        self._uses += 1
        depth = self._stream.trace.segments.depth_pages
        for segment in path:
            self._used[segment] = self._uses
            # A return ends the old time, unless it was that of another session with the same prefix.
            shared = depth[segment] <= the.shared_pages
            self._until_s[segment] = max(self._until_s[segment], until_s) if shared else until_s

    def evicted(self, segment: int, pages: int) -> None:
        """Changes nothing."""

    def rank(self, segment: int, now_s: float) -> tuple[float, float]:
        """As Order."""
        until_s = self._until_s[segment]
        if until_s > now_s:
            return _PROTECTED + self._used[segment], until_s
        return self._used[segment], NEVER_S
