"""Clients in virtual time: users who run one workflow after the other, step by step, each with its gaps and retries.

A user whose gateway dies asks another, one who is refused or whose answer breaks off asks again, as SDKs do. Some leave
in the middle. Prompts are chains of page hashes that grow, branch off now and then, and share a head per tenant.
"""

from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from random import Random

from fault_engine import HASH_BYTES, PAGE_TOKENS
from fault_gateway import Gateway, Stream

from saga.contract.ids import GatewayId, PoolId, RootId, SessionId, StepId, TenantId
from saga.contract.messages import StepReady
from saga.sim.agenda import Agenda

POOL = PoolId("model")
HEAD_PAGES = 2
AGAIN_S = 0.5
Gateways = Callable[[], dict[str, Gateway]]


@cache
def _page(name: str, number: int) -> bytes:
    return blake2b(f"{name}/{number}".encode(), digest_size=HASH_BYTES).digest()


class _Session:
    __slots__ = ("branches", "ended_s", "pages", "parent", "session", "steps_left")

    def __init__(self, session: str, parent: str, steps_left: int) -> None:
        self.session, self.parent, self.steps_left = session, parent, steps_left
        self.pages: list[bytes] = []
        self.branches = 0
        self.ended_s = -1.0

    def grow(self, tenant: str, pages: int) -> None:
        """So many pages more; the first are the tenant's."""
        for number in range(len(self.pages), len(self.pages) + pages):
            name = tenant if number < HEAD_PAGES else f"{self.session}/{self.branches}"
            self.pages.append(_page(name, number))

    def compact(self) -> None:
        """Most of the prompt is written anew."""
        self.branches += 1
        del self.pages[max(HEAD_PAGES, len(self.pages) // 3) :]


class Clients:
    """All users. `streams`: every step that was ever asked for."""

    def __init__(self, agenda: Agenda, rng: Random, gateways: Gateways, users: dict[str, int], stop_s: float) -> None:
        """`users`: of each tenant, at once; none of them begins anything after `stop_s`."""
        self.streams: list[Stream] = []
        self.answers = 0
        self._agenda, self._rng, self._gateways = agenda, rng, gateways
        self._stop_s = stop_s
        self._steps = 0
        self._roots = 0
        self._known: dict[tuple[Gateway, str], bytes] = {}
        for tenant, number in users.items():
            for _ in range(number):
                agenda.at(rng.uniform(1.0, 3.0), self._begin, tenant)

    @property
    def open(self) -> list[Stream]:
        """Steps that have not ended."""
        return [stream for stream in self.streams if not stream.ended]

    def _begin(self, tenant: str) -> None:
        """A user's next workflow."""
        if self._agenda.now_s >= self._stop_s:
            return
        self._roots += 1
        root = f"r{self._roots}"
        session = _Session(f"{tenant}/{root}", "", self._rng.randint(2, 8))
        session.grow(tenant, self._rng.randint(4, 16))
        self._ask(tenant, root, session)

    def _ask(self, tenant: str, root: str, session: _Session) -> None:
        rng, now_s = self._rng, self._agenda.now_s
        if now_s >= self._stop_s:
            return
        gateways = self._gateways()
        if not gateways:
            self._agenda.after(AGAIN_S, lambda _: self._ask(tenant, root, session), None)
            return
        gateway = gateways[rng.choice(sorted(gateways))]
        final = session.steps_left == 1 and not session.parent
        step = self._step(gateway, tenant, root, session, final=final)
        chain = b"".join(session.pages)
        total = rng.randint(6, 110)
        resumable = rng.random() < 0.85
        stream = Stream(step, chain, total, lambda s: self._ended(s, tenant, root, session), resumable=resumable)
        self.streams.append(stream)
        gateway.submit(stream)
        if rng.random() < 0.04:
            self._agenda.after(rng.uniform(0.0, 2.0), lambda _: self._leave(gateway, stream), None)

    def _step(self, gateway: Gateway, tenant: str, root: str, session: _Session, *, final: bool) -> StepReady:
        self._steps += 1
        chain = b"".join(session.pages)
        known = self._known.get((gateway, session.session), b"")
        base = 0
        while base < min(len(known), len(chain)) and known[base : base + HASH_BYTES] == chain[base : base + HASH_BYTES]:
            base += HASH_BYTES
        self._known[gateway, session.session] = chain
        now_s = self._agenda.now_s
        return StepReady(
            step_id=StepId(f"{self._steps:032x}"),
            attempt=0,
            gateway_id=GatewayId(gateway.process.name),
            tenant=TenantId(tenant),
            root=RootId(f"{tenant}/{root}"),
            session=SessionId(session.session),
            parent=SessionId(session.parent),
            pool=POOL,
            agent_class=tenant,
            prompt_tokens=len(session.pages) * PAGE_TOKENS + self._rng.randrange(PAGE_TOKENS),
            max_output_tokens=200,
            page_tokens=PAGE_TOKENS,
            base_pages=base // HASH_BYTES,
            base_tip=chain[base - HASH_BYTES : base] if base else b"",
            new_hashes=chain[base:],
            final=final,
            gap_s=now_s - session.ended_s if session.ended_s >= 0 else -1.0,
            at=gateway.process.clocks.wall_s(now_s),
        )

    def _leave(self, gateway: Gateway, stream: Stream) -> None:
        gateway.process.life.do(lambda: gateway.client_gone(stream.step.step_id))

    def _ended(self, stream: Stream, tenant: str, root: str, session: _Session) -> None:
        rng = self._rng
        if stream.ended == "client gone":
            self._agenda.after(AGAIN_S, self._begin, tenant)
            return
        if stream.ended != "answered":
            self._agenda.after(AGAIN_S, lambda _: self._ask(tenant, root, session), None)
            return
        self.answers += 1
        session.steps_left -= 1
        session.ended_s = self._agenda.now_s
        if stream.step.final:
            self._agenda.after(rng.uniform(0.0, 0.5), self._begin, tenant)
        elif session.steps_left > 0:
            session.grow(tenant, rng.randint(0, 3))
            if rng.random() < 0.05:
                session.compact()
            if not session.parent and rng.random() < 0.1:  # a sub-agent beside it
                child = _Session(f"{session.session}/{self._steps}", session.session, rng.randint(1, 2))
                child.pages = session.pages[: rng.randint(0, HEAD_PAGES)]
                child.grow(tenant, rng.randint(3, 6))
                self._agenda.after(0.01, lambda _: self._ask(tenant, root, child), None)
            self._agenda.after(rng.expovariate(1 / 0.3), lambda _: self._ask(tenant, root, session), None)
