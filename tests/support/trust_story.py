"""A placement core whose workers hold pages, say so, and may lie about it. For the tests of trust."""

from placement_story import POOL, Story, admitted, hello

from saga.contract.ids import GatewayId, TenantId
from saga.contract.messages import Grant, Heartbeat, PagesStored, ResidencyDelta, StepFinished
from saga.kernel.effects import Log, Tick

PAGE = 16


def pages(session: int, count: int) -> bytes:
    return b"".join((session * 10_000 + number).to_bytes(8, "big") for number in range(1, count + 1))


class Cell(Story):
    """A story in which workers hold pages, say so, and may lie about it."""

    def __init__(self, *args, **fields) -> None:
        self.number = 0
        self.seqs: dict[str, int] = {}
        self.logs: list[Log] = []
        super().__init__(*args, max_running=8, kv_tokens=1_000_000, **fields)
        for worker_id in list(self.core.board.workers):
            self.beat(worker_id)

    def tell(self, event):
        effects = self.core.handle(event, self.now_s)
        self.core.check()
        self.logs += [effect for effect in effects if isinstance(effect, Log)]
        return [effect.message for effect in effects if hasattr(effect, "message")]

    def beat(self, worker_id: str, *, healthy: bool = True, running: int = 99, **fields) -> None:
        facts = {"max_running": 8, "kv_tokens": 1_000_000} | fields
        seq = self.seqs.get(worker_id, 0)
        self.hear(
            Heartbeat(
                worker=hello(worker_id, **facts), healthy=healthy, running=running, waiting=0, used_tokens=0,
                residency_seq=seq,
            )
        )  # fmt: skip

    def says(self, worker_id: str, *changes) -> None:
        self.seqs[worker_id] = self.seqs.get(worker_id, 0) + 1
        self.hear(ResidencyDelta(worker_id=worker_id, epoch=1, seq=self.seqs[worker_id], changes=changes))

    def start(self, session: str, chain: bytes) -> Grant:
        self.number += 1
        granted = [m for m in self.hear(self.step(session, chain)) if isinstance(m, Grant)]
        (grant,) = granted
        self.take(grant)
        return grant

    def step(self, session: str, chain: bytes):
        return admitted(self.number, session=session, new_hashes=chain, prompt=PAGE * (len(chain) // 8) + 5)

    def end(self, grant: Grant, cached_tokens: int) -> None:
        self.hear(
            StepFinished(
                step_id=grant.step_id, attempt=0, lease_id=grant.lease_id, worker_id=grant.worker_id,
                gateway_id=GatewayId("g0"), tenant=TenantId("t"), root=grant.root, session=grant.session, pool=POOL,
                prompt_tokens=1_000, output_tokens=5, cached_tokens=cached_tokens, finish_reason="tool_calls",
            )
        )  # fmt: skip

    def lies(self, worker_id: str, times: int) -> int:
        """It advertises prefixes of sessions which it has not, until it is put aside; how often."""
        for number in range(times):
            if self.standing(worker_id)[0] == "quarantined":
                return number
            chain = pages(1_000 + self.number, 400)
            self.says(worker_id, PagesStored(chain))
            grant = self.start(f"lured-{self.number}", chain)
            assert grant.worker_id == worker_id
            assert grant.cached_tokens > 0
            self.end(grant, 0)
        return times

    def standing(self, worker_id: str) -> tuple[str, str]:
        return self.core.trust.standing(worker_id)

    def pass_s(self, seconds: float) -> None:
        """Everybody beats meanwhile."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.now_s = min(end_s, self.now_s + 1.0)
            for worker_id in list(self.core.board.workers):
                self.beat(worker_id)
            self.tell(Tick())
