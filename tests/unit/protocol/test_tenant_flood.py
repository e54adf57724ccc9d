"""A tenant's flood in front of all cores of the step protocol: the other one's next step is among the next to start."""

from hashlib import blake2b

import pytest
from fault_clients import POOL
from fault_engine import HASH_BYTES, KV_PAGES, PAGE_TOKENS, SLOTS
from fault_gateway import Stream
from fault_schedule import Noise
from fault_world import World

from saga.contract.ids import GatewayId, RootId, SessionId, StepId, TenantId
from saga.contract.messages import Grant, StepReady

WORKERS = 2
PROMPT_PAGES = 24
ANSWER_TOKENS = 40  # a second
FLOOD = 60
STEPS = 8
INSIDE = WORKERS * (KV_PAGES // PROMPT_PAGES)  # as many of the flood as the active set holds at once
READY_S, STARVED_S = 3.0, 120.0


class Flooded:
    """A cell that remembers whose step started when."""

    def __init__(self, seed: int, noise: tuple[Noise, ...]) -> None:
        self.world = World(seed, workers=WORKERS, gateways=1)
        self.world.befall(noise, READY_S)
        self.world.run_until(READY_S)
        self.started: list[str] = []  # tenants, in order
        self.streams: list[Stream] = []
        self._granted = self.world.shares.granted
        self.world.shares.granted = self._starts

    def _starts(self, step: StepReady, grant: Grant) -> None:
        if not grant.attempt:
            self.started.append(step.tenant)
        self._granted(step, grant)

    def ask(self, tenant: str, root: str) -> Stream:
        """A step of a workflow."""
        name = f"{tenant}/{root}"
        chain = b"".join(blake2b(f"{name}/{i}".encode(), digest_size=HASH_BYTES).digest() for i in range(PROMPT_PAGES))
        step = StepReady(
            step_id=StepId(f"{len(self.streams):032x}"),
            attempt=0,
            gateway_id=GatewayId("g0"),
            tenant=TenantId(tenant),
            root=RootId(name),
            session=SessionId(name),
            pool=POOL,
            prompt_tokens=PROMPT_PAGES * PAGE_TOKENS,
            max_output_tokens=100,
            page_tokens=PAGE_TOKENS,
            new_hashes=chain,
        )
        stream = Stream(step, chain, ANSWER_TOKENS, lambda _: None, resumable=True)
        self.streams.append(stream)
        self.world.gateways["g0"].submit(stream)
        return stream


def behind(seed: int, *noise: Noise) -> list[int]:
    """An agent's steps, one after another beside a flood that came first: how many of the flood's started while each of
    them waited. All of them end well."""
    cell = Flooded(seed, noise)
    for number in range(FLOOD):
        cell.ask("flood", f"r{number}")
    passed = []
    for _ in range(STEPS):
        since = len(cell.started)
        stream = cell.ask("agent", "only")
        while not stream.ended:
            cell.world.run_until(cell.world.agenda.now_s + 0.01)
            assert cell.world.agenda.now_s < STARVED_S, "it starves"
        passed.append(cell.started.index("agent", since) - since)

    assert {stream.ended for stream in cell.streams if stream.ended} == {"answered"}
    assert cell.world.invariants.violations == []
    return passed


@pytest.mark.parametrize("seed", range(4))
def test_a_flood_that_came_first_holds_up_an_agent_by_what_is_in_already_and_then_hardly(seed: int):
    first, *later = behind(seed)

    assert first <= INSIDE + WORKERS * SLOTS, "who was in goes on, and who was about to join"
    assert max(later) <= WORKERS * SLOTS, "then it is in itself, and waits for a slot at most"


@pytest.mark.parametrize("seed", range(4))
def test_nor_does_it_starve_where_messages_are_lost_and_late(seed: int):
    noise = Noise(0.0, STARVED_S, "*", "*", "", lose=0.05, double=0.1, late=0.2, latest_s=0.5, reorder=True)

    assert max(behind(seed, noise)) <= FLOOD // 2
