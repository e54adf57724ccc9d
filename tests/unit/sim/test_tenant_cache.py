"""What a tenant's flood takes of another's KV, in virtual time over the cores of all services and engines.

Six agents of `steady` work with tool calls of up to 12 s between their steps, on one worker whose KV they fill by a
third. Beside them `flood` starts forty workflows that together want several times all of it. Nobody can be kept from
filling what nobody claims, nor from being in first; so what is held to here is how much of what the steady tenant had
prefilled it must prefill again.
"""

from random import Random

import pytest
from msgspec import Struct

from saga.admission.events import TenantChanged
from saga.contract.ids import TenantId
from saga.contract.tenants import TenantTerms
from saga.sim.agenda import Agenda
from saga.sim.clients import Clients
from saga.sim.clusters import load_cluster
from saga.sim.conversation import Conversation, SimAgent, SimStep, StreamPages
from saga.sim.ledger import Ledger
from saga.sim.systems.registry import make_system
from saga.sim.world import CAREFREE, Delays, World

STEADY = 6
STEPS = 12
FLOOD = 40
KV_TOKENS = 128_000
LONG_PROMPTS = (20_000, 200)
LONG_ANSWERS = (2_000, 4_000)


def conversation(tenant: str, number: int, prompt: int, output: int, steps: int, gap_s: tuple[float, float]):
    """An agent that keeps all it has said, with tool calls in between."""
    random, grown = Random(f"{tenant}/{number}"), prompt
    said = [SimStep(prompt, output, 0, 0.0, "bash")]
    for _ in range(steps - 1):
        kept, grown = grown + output, grown + output + 400
        said.append(SimStep(grown, output, kept, random.uniform(*gap_s), "bash"))
    return Conversation(tenant, tenant, (SimAgent("main", tuple(said)),))


class Two:
    """The steady tenant's tasks, then the flood's. A Workload."""

    losses = ()

    def __init__(self, flood: tuple[int, int], page_tokens: int) -> None:
        self.weights = {"steady": 1.0, "flood": 1.0}
        self._flood, self._page_tokens = flood, page_tokens

    def draw(self, number: int) -> Conversation:
        if number < STEADY:
            return conversation("steady", number, 6_000, 200, STEPS, (2.0, 12.0))
        return conversation("flood", number, *self._flood, 6, (1.0, 1.0))

    def pages(self, number: int, agent: int) -> StreamPages:  # noqa: ARG002 - there is only one
        return StreamPages(self._page_tokens, number)


class Run(Struct):
    """Of the steady tenant."""

    missed_share: float  # of the tokens that its prompts had in common with its last ones
    took_s: float


def run(system_name: str, flood: tuple[int, int], number: int = FLOOD, terms: TenantTerms | None = None) -> Run:
    """`flood`: tokens of each first prompt and of each answer."""
    cluster, profile = load_cluster("small", 1)
    profile = profile.with_kv_tokens(KV_TOKENS)
    workload, agenda, system = Two(flood, profile.page_tokens), Agenda(), make_system(system_name, STEADY)
    ledger = Ledger(range(STEADY), workload.weights)
    world = World(
        agenda,
        system,
        profile,
        cluster.workers,
        1,
        weights=workload.weights,
        delays=Delays(),
        engine=system.engine,
        upkeep=CAREFREE,
    )
    if terms is not None:
        world.admission.tell(TenantChanged(TenantId("flood"), terms))
    left = set(range(STEADY))

    def over(ended: int) -> None:
        left.discard(ended)
        if not left:
            agenda.stop()

    clients = Clients(world, workload, profile, ledger, on_end=over)
    for talk in range(STEADY):
        agenda.at(20.0 + 3.0 * talk, clients.begin, talk)
    for talk in range(number):
        agenda.at(0.5 * talk, clients.begin, STEADY + talk)
    agenda.run(86_400.0)
    world.check()
    assert not left
    known = sum(step.kept_tokens for talk in range(STEADY) for step in workload.draw(talk).agents[0].steps)
    ended_s = max(task.ended_s for task in ledger.tasks if task.number < STEADY)
    return Run(1.0 - ledger.cached_tokens / known, ended_s)


@pytest.fixture(scope="module")
def alone() -> Run:
    """Nobody beside it: nothing is lost but the ends of pages."""
    seen = run("saga", LONG_PROMPTS, 0)
    assert seen.missed_share < 0.002
    return seen


@pytest.mark.parametrize(("flood", "most"), [(LONG_PROMPTS, 0.05), (LONG_ANSWERS, 0.10)], ids=["prompts", "answers"])
def test_a_flood_takes_a_small_part_of_what_others_have_cached(flood: tuple[int, int], most: float):
    """With prefix caching and affinity alone it takes more than twice, and five times as much."""
    guarded, open_to_all = run("saga", flood), run("session-affinity", flood)

    assert guarded.missed_share < most
    assert open_to_all.missed_share > 2 * guarded.missed_share


def test_a_quota_of_kv_keeps_a_flood_of_prompts_out_of_it_altogether(alone: Run):
    seen = run("saga", LONG_PROMPTS, terms=TenantTerms(kv_tokens=KV_TOKENS // 2))

    assert seen.missed_share == alone.missed_share
    assert seen.took_s < 1.1 * alone.took_s


def test_and_a_flood_of_answers_nearly(alone: Run):
    seen = run("saga", LONG_ANSWERS, terms=TenantTerms(kv_tokens=KV_TOKENS // 2))

    assert seen.missed_share < 0.01
    assert seen.took_s < 1.1 * alone.took_s
