"""`flood:N`: one of three equal tenants offers N times its share of the cluster, the others four fifths of theirs.

For the question what a flood costs those who stay within their share. The tenant has a backlog when the run begins:
with N = 1 it is backlogged at exactly its entitled share throughout, with N = 10 it offers ten times as much; the
others' tasks are the same and start at the same moments. In the open loop a load of 1 is the measured peak; all tasks
are those of S1, so that the peak is one of work and not of tenants. Called by `workloads` and `runner`.
"""

from collections.abc import Iterator
from heapq import merge
from itertools import count
from random import Random
from typing import Final

from saga.sim.conversation import Conversation, Pages, SimAgent, StreamPages, WorkerLoss
from saga.sim.synthetic import CLASSES, task_steps

FLOOD: Final = "flood"
STEADY: Final = ("steady-0", "steady-1")
TENANTS: Final = (FLOOD, *STEADY)
STEADY_LOAD: Final = 0.8  # of their share
MOST_TIMES: Final = 100.0
BACKLOG: Final = 1.0  # tasks of it at the start for each of the others to come, who leave it some of their share too
_KIND: Final = CLASSES["swe-bench"][0]


class Flood:
    """Tasks of three tenants. Task number k of a tenant is the same whatever the others offer."""

    def __init__(self, times: float, seed: int, context_tokens: int, page_tokens: int) -> None:
        """`times`: its share that the flooding tenant offers."""
        self._offers = {FLOOD: times, **dict.fromkeys(STEADY, STEADY_LOAD)}
        self._seed = f"flood/{seed}"
        self._context_tokens = context_tokens
        self._page_tokens = page_tokens
        self._whose: list[tuple[str, int]] = []  # by number, once the starts are drawn

    @property
    def weights(self) -> dict[str, float]:
        """Equal ones."""
        return dict.fromkeys(TENANTS, 1.0)

    @property
    def losses(self) -> tuple[WorkerLoss, ...]:
        """None."""
        return ()

    def starts(self, per_s: float, steady_tasks: int) -> list[float]:
        """When conversations start, in the order of their numbers, until the tenants that do not flood have started
        so many. `per_s`: what the whole cluster is good for."""
        streams = [self._stream(tenant, self._offers[tenant] * per_s / len(TENANTS)) for tenant in TENANTS]
        backlog = round(BACKLOG * steady_tasks)
        starts = [0.0] * backlog
        self._whose = [(FLOOD, number) for number in range(backlog)]
        for at_s, tenant, number in merge(*streams):
            if steady_tasks == 0:
                break
            steady_tasks -= tenant != FLOOD
            starts.append(at_s)
            self._whose.append((tenant, number + backlog * (tenant == FLOOD)))
        return starts

    def awaited(self) -> frozenset[int]:
        """Numbers of those whose end the run waits for: not of the flood, which would take many times as long."""
        return frozenset(number for number, (tenant, _) in enumerate(self._whose) if tenant != FLOOD)

    def _stream(self, tenant: str, per_s: float) -> Iterator[tuple[float, str, int]]:
        random = Random(f"{self._seed}/arrivals/{tenant}")
        at_s = 0.0
        for number in count():
            at_s += random.expovariate(per_s)
            yield at_s, tenant, number

    def draw(self, number: int) -> Conversation:
        """Conversation number `number`. Before the starts are drawn, as in the closed loop, tenants take turns."""
        whose = self._whose[number] if self._whose else (TENANTS[number % len(TENANTS)], number // len(TENANTS))
        tenant, own = whose
        steps = task_steps(_KIND, self._context_tokens, Random(f"{self._seed}/{tenant}/{own}"))
        return Conversation(tenant, tenant, (SimAgent("main", steps),))

    def pages(self, number: int, agent: int) -> Pages:  # noqa: ARG002 - there is only one
        """Its page hashes."""
        return StreamPages(self._page_tokens, number)


def parse_times(text: str) -> float:
    """N of `flood:N`. Raises ValueError, which says what there is."""
    try:
        times = float(text)
    except ValueError:
        times = 0.0
    if not 0.0 < times <= MOST_TIMES:
        raise ValueError(f"expected {FLOOD}:N with N in (0, {MOST_TIMES:g}], as in {FLOOD}:10, got {text!r}")
    return times
