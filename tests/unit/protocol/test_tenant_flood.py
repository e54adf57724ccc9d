"""A tenant's flood in front of all cores of the step protocol: the other one's next step is among the next to start."""

import pytest
from protocol_world import POOL, Faults, World

from saga.contract.ids import GatewayId, RootId, SessionId, StepId, TenantId
from saga.contract.messages import Grant, StepReady
from saga.gateway.events import Submitted

WORKERS, SLOTS, KV_TOKENS = 2, 3, 10_000  # those of the world
PROMPT_TOKENS = 1_500
FLOOD = 60
STEPS = 8
INSIDE = WORKERS * (KV_TOKENS // PROMPT_TOKENS)  # as many of the flood as the active set holds at once


class Flooded(World):
    """Remembers who starts when."""

    def __init__(self, seed: int, faults: Faults) -> None:
        super().__init__(seed, faults, workers=WORKERS, slots=SLOTS)
        self.started: list[str] = []  # tenants, in order
        self._numbers = 0

    def ask(self, tenant: str, root: str) -> StepId:
        """A step of a workflow."""
        self._numbers += 1
        name = f"{tenant}/{root}"
        step = StepReady(
            step_id=StepId(f"{self._numbers:032x}"),
            attempt=0,
            gateway_id=GatewayId("g0"),
            tenant=TenantId(tenant),
            root=RootId(name),
            session=SessionId(name),
            pool=POOL,
            prompt_tokens=PROMPT_TOKENS,
            max_output_tokens=100,
            page_tokens=16,
        )
        self.submitted[step.step_id] = self.parties["g0"]
        self.tell(self.parties["g0"], Submitted(step))
        return step.step_id

    def _run(self, party, step_id: StepId, grant: Grant) -> None:
        self.started.append(grant.root.partition("/")[0])
        super()._run(party, step_id, grant)


def behind(seed: int, faults: Faults) -> list[int]:
    """An agent's steps, one after another beside a flood that came first: how many of the flood's started while each of
    them waited. All of them end well."""
    w = Flooded(seed, faults)
    w.run_until(102.0)
    for number in range(FLOOD):
        w.ask("flood", f"r{number}")
    passed = []
    for _ in range(STEPS):
        since = len(w.started)
        step_id = w.ask("agent", "only")
        while step_id not in w.ended:
            w.run_until(w.now_s + 0.01)
            assert w.now_s < 200.0, "it starves"
        passed.append(w.started.index("agent", since) - since)

    assert {w.ended[step] for step in w.submitted if step in w.ended} == {"finished"}
    return passed


@pytest.mark.parametrize("seed", range(4))
def test_a_flood_that_came_first_holds_up_an_agent_by_what_is_in_already_and_then_hardly(seed: int):
    first, *later = behind(seed, Faults())

    assert first <= INSIDE, "who was in goes on"
    assert max(later) <= WORKERS * SLOTS, "then it is in itself, and waits for a slot at most"


@pytest.mark.parametrize("seed", range(4))
def test_nor_does_it_starve_where_messages_are_lost_and_late(seed: int):
    assert max(behind(seed, Faults(lose=0.05, double=0.1, late=0.2, latest_s=0.5))) <= FLOOD // 2
