"""Which pools there are, as worker heartbeats tell it. Pure.

Not placement: it only answers whether a model exists, how long its prompts may be, and what /v1/models shows.
"""

from typing import Final

import msgspec

from saga.contract.ids import PoolId, WorkerId
from saga.contract.messages import Heartbeat, Message, WorkerHello, WorkerLeaving

HEALTHY_WITHIN_S: Final = 5.0  # of its last heartbeat
FORGET_AFTER_S: Final = 60.0


class Pool(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The workers of one model, taken together."""

    pool: PoolId
    page_tokens: int
    context_tokens: int  # of the worker with the least
    kv_tokens: int  # sum
    speed: float
    shrink: int
    workers: int
    healthy: int


class _Seen:
    __slots__ = ("at_s", "healthy", "worker")

    def __init__(self, worker: WorkerHello, at_s: float, *, healthy: bool) -> None:
        self.worker = worker
        self.at_s = at_s
        self.healthy = healthy


class Fleet:
    """The workers this gateway has heard of."""

    def __init__(self) -> None:
        self._seen: dict[WorkerId, _Seen] = {}
        self._pools: dict[PoolId, Pool] = {}
        self._until_s = 0.0

    def hear(self, message: Message, now_s: float) -> None:
        """Take a worker's word; other messages are ignored."""
        match message:
            case WorkerHello():
                self._seen[message.worker_id] = _Seen(message, now_s, healthy=True)
            case Heartbeat():
                self._seen[message.worker.worker_id] = _Seen(message.worker, now_s, healthy=message.healthy)
            case WorkerLeaving(worker_id=worker_id, engine_died=engine_died):
                if engine_died and worker_id in self._seen:
                    self._seen[worker_id].healthy = False
                else:
                    self._seen.pop(worker_id, None)
            case _:
                return
        self._until_s = 0.0

    def excuse(self, now_s: float) -> None:
        """The bus was away: silence until now says nothing about workers."""
        for seen in self._seen.values():
            seen.at_s = now_s
        self._until_s = 0.0

    def pools(self, now_s: float) -> dict[PoolId, Pool]:
        """All pools by model, workers silent for long left out."""
        if now_s >= self._until_s:
            self._until_s = now_s + 1.0
            self._pools = self._add_up(now_s)
        return self._pools

    def step_s(self, worker_id: WorkerId, prompt_tokens: int, cached_tokens: int, output_tokens: int) -> float:
        """Modelled marginal engine-seconds of a step there; negative: nothing is known of the worker."""
        seen = self._seen.get(worker_id)
        return seen.worker.cost.step_s(prompt_tokens, cached_tokens, output_tokens) if seen is not None else -1.0

    def engine_urls(self, pool: PoolId, now_s: float) -> list[str]:
        """Where the healthy workers of a pool answer, the one heard last first."""
        seen = [one for one in self._seen.values() if one.worker.pool == pool and one.healthy]
        alive = [one for one in seen if now_s - one.at_s < HEALTHY_WITHIN_S]
        return [one.worker.engine_url for one in sorted(alive, key=lambda one: -one.at_s)]

    def _add_up(self, now_s: float) -> dict[PoolId, Pool]:
        self._seen = {name: seen for name, seen in self._seen.items() if now_s - seen.at_s < FORGET_AFTER_S}
        members: dict[PoolId, list[_Seen]] = {}
        for seen in self._seen.values():
            members.setdefault(seen.worker.pool, []).append(seen)
        return {
            pool: Pool(
                pool=pool,
                page_tokens=seen[0].worker.page_tokens,
                context_tokens=min(one.worker.context_tokens for one in seen),
                kv_tokens=sum(one.worker.kv_tokens for one in seen),
                speed=seen[0].worker.speed,
                shrink=seen[0].worker.shrink,
                workers=len(seen),
                healthy=sum(one.healthy and now_s - one.at_s < HEALTHY_WITHIN_S for one in seen),
            )
            for pool, seen in members.items()
        }
