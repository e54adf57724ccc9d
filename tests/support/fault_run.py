"""One seed from beginning to end: users come, faults befall the cell, they stop, everything must drain.

`failure(...)` tells what was broken, `minimised` which faults are enough for it, `replay_command` how to see it again.
"""

import time
from collections import Counter
from collections.abc import Iterable

import msgspec
from fault_clients import Clients
from fault_schedule import FAULTS_S, Fault, draw
from fault_world import World

from saga.kernel.steps import IllegalTransitionError

FAULTS_FROM_S = 4.0
HEALED_S = FAULTS_FROM_S + FAULTS_S
BACK_WITHIN_S = 10.0
STOP_S = HEALED_S + BACK_WITHIN_S + 8.0
DRAIN_S = 30.0  # at most, from the last word of a client to empty books
AWAY_SHARE = 0.25  # of steps, at most, that start away from their KV though nothing was gained by it
LEAST_STARTS = 12  # of so many the share says something
QUIET_S = 8.0  # after that: leases and steps that nobody names are over
UNEVEN = 4.0  # how much more engine time a user of one tenant may get than one of the other, in eight seconds
USERS = {"t0": 7, "t1": 4}
# How an accepted step may end: answered, or one of these, which its client is told.
REASONS = ("client gone", "gateway died", "failed: not resumable", "refused: engine_failed")
# Messages that are sent only where something went wrong.
SEEN = ("LeaderHello", "ResendSteps", "StepClaim", "NeedChain", "ResyncRequest", "LeaseReturned", "LeaseReleased")


class Told(msgspec.Struct):
    """What became of one seed."""

    seed: int
    only: tuple[int, ...] | None = None
    problems: list[str] = []
    ends: dict[str, int] = {}
    events: int = 0
    seen: dict[str, int] = {}  # of what was to be survived
    home: int = 0  # starts where their session's KV was, from ten seconds after the last fault on
    away: int = 0  # elsewhere
    moved: int = 0  # elsewhere, as the shorter wait was worth it
    service_s: dict[str, float] = {}  # modelled engine-seconds, by tenant, of the same starts
    drained_s: float = 0.0  # after the last new step
    cpu_s: float = 0.0


def faults_of(seed: int, only: Iterable[int] | None = None) -> tuple[Fault, ...]:
    """Of a seed; `only`: those of these numbers."""
    faults = draw(seed)
    return faults if only is None else tuple(faults[number] for number in only)


def run(seed: int, only: tuple[int, ...] | None = None, *, raises: bool = False) -> Told:
    """One seed, or some of its faults. `raises`: what a core raises, instead of telling it."""
    told = run_under(faults_of(seed, only), seed, raises=raises)
    told.only = only
    return told


def run_under(faults: tuple[Fault, ...], seed: int, *, raises: bool = False) -> Told:
    """The users and the network of a seed, under these faults."""
    told = Told(seed)
    begun_s = time.process_time()
    world = World(seed)
    clients = world.users(USERS, STOP_S)
    world.befall(faults, FAULTS_FROM_S)
    try:
        _live(world, clients, told)
    except (AssertionError, IllegalTransitionError, LookupError, TypeError, ValueError) as error:
        if raises:
            raise
        told.problems.append(f"at {world.agenda.now_s:.3f} s: {type(error).__name__}: {error}")
    told.problems += world.invariants.violations
    told.ends = dict(sorted(Counter(stream.ended or "open" for stream in clients.streams).items()))
    told.seen = world.invariants.seen | {kind: world.network.sent[kind] for kind in SEEN}
    told.events = sum(world.invariants.events.values())
    told.cpu_s = time.process_time() - begun_s
    return told


def _live(world: World, clients: Clients, told: Told) -> None:
    world.run_until(STOP_S)
    end_s = STOP_S + DRAIN_S
    while clients.open and world.agenda.now_s < end_s:
        world.run_until(world.agenda.now_s + 0.5)
    told.drained_s = world.agenda.now_s - STOP_S
    world.run_until(world.agenda.now_s + QUIET_S)
    told.problems += left_over(world, clients)
    _itself_again(world, told)


def _itself_again(world: World, told: Told) -> None:
    """Ten seconds after the last fault sessions run where their KV is, and both tenants are served."""
    from_s = HEALED_S + BACK_WITHIN_S
    home, away, moved = world.shares.at_home(from_s, STOP_S)
    told.home, told.away, told.moved = home, away, moved
    if away > AWAY_SHARE * (home + away) and home + away + moved >= LEAST_STARTS:
        told.problems.append(f"affinity is not back: {home} steps at home, {away} elsewhere, {moved} moved for a gain")
    told.service_s = {tenant: world.shares.service_s(tenant, from_s, STOP_S) for tenant in USERS}
    per_user_s = [told.service_s[tenant] / users for tenant, users in USERS.items()]
    if min(per_user_s) * UNEVEN < max(per_user_s):
        told.problems.append(f"shares are not back: engine-seconds of {told.service_s}")


def left_over(world: World, clients: Clients) -> list[str]:
    """What there should be none of once everything is over."""
    problems = [f"{stream.step.step_id} hangs" for stream in clients.open]
    unfit = [s for s in clients.streams if s.ended not in ("", "answered", *REASONS)]
    problems += [f"{stream.step.step_id} ended for no good reason: {stream.ended}" for stream in unfit]
    for name, gateway in world.gateways.items():
        problems += [f"{name} still follows {step_id}" for step_id in gateway.process.core._steps]
    for name, engine in world.engines.items():
        problems += [f"{engine.name} runs {rid} for nobody" for rid in engine.running]
        problems += [f"{engine.name} was sent {rid} twice" for rid in engine.twice]
        agent = world.agents.get(name)
        if agent is None or not engine.life.alive:
            problems.append(f"{name} is not back")
        elif len(agent.process.core.leases):
            problems.append(f"{name} holds {len(agent.process.core.leases)} leases that nobody has")
    for service in ("admission", "placement"):
        leaders = [c for c in world.candidates.values() if c.service == service and c.process.core.leading]
        if len(leaders) != 1 or leaders[0] is not world.leader(service):
            problems.append(f"{service} is led by {[c.process.name for c in leaders]}")
            continue
        core = leaders[0].process.core
        books = core.board.steps if service == "placement" else core.book.steps
        problems += [f"{service} remembers {step_id}, which is over" for step_id in books]
        if service == "placement":
            problems += [f"a slot leaks: {lease_id}" for lease_id in core.board.leases]
            accounts = core.board.lease_accounts
            if accounts.granted != sum(accounts.ended.values()):
                problems.append(f"leases: {accounts.granted} granted, ended {accounts.ended}")
    return problems


def minimised(seed: int) -> tuple[int, ...]:
    """Numbers of faults that are enough for the seed to fail: each in turn is left out if it fails all the same."""
    kept = tuple(range(len(draw(seed))))
    for number in kept:
        fewer = tuple(other for other in kept if other != number)
        if run(seed, fewer).problems:
            kept = fewer
    return kept


def replay_command(seed: int, only: tuple[int, ...] | None = None) -> str:
    """One line that shows it again."""
    chosen = "" if only is None else f" --only {','.join(map(str, only)) or 'none'}"
    return f".venv/bin/python tests/faults/seeds_run.py --seed {seed}{chosen}"
