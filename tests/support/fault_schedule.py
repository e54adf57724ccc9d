"""What goes wrong in one run, drawn from its seed: noise on links, deaths, pauses, partitions, clocks put wrong.

A schedule is data: it can be printed, and thinned fault by fault until what is left is what matters (`fault_run`).
Parties are named by role where it moves: `placement` is whoever leads when the fault comes, `placement-standby` not.
"""

from random import Random
from typing import Final, TypeAlias

import msgspec

FAULTS_S: Final = 20.0  # from the first fault to the last one's end
GATEWAYS: Final = ("g0", "g1")
WORKERS: Final = ("w0", "w1", "w2")
ENGINES: Final = ("e0", "e1", "e2")
LEADERS: Final = ("admission", "placement")
CANDIDATES: Final = ("admissions", "placements")  # leader and standbys
STANDBYS: Final = ("admission-standby", "placement-standby")
MORTAL: Final = (*LEADERS, *STANDBYS, *GATEWAYS, *WORKERS, *ENGINES, "graph")
LONG_PAUSE_S: Final = 10.0
# Kinds of message that a noise may single out: one of each step of the protocol.
KINDS: Final = (
    "StepReady", "Accepted", "StepAdmitted", "Grant", "LeaseTaken", "LeaseReturned", "StepStarted", "StepProgress",
    "StepFinished", "StepCancelled", "LeasesRenewed", "GatewayBeat", "ResidencyDelta", "ResyncReply", "Heartbeat",
    "LeaderHello", "StepClaim", "ResendSteps", "NeedChain", "StepChain", "SessionsReleased", "Forecast",
)  # fmt: skip


class Noise(msgspec.Struct, frozen=True, tag=True):
    """Messages between two parties are lost, doubled and late. `*`: any party; `kind`: of message, empty: any."""

    at_s: float
    for_s: float
    sender: str
    receiver: str
    kind: str
    lose: float  # probability for each delivery, as the next two
    double: float
    late: float
    latest_s: float
    reorder: bool  # whether what comes later may overtake what is late


class Kill(msgspec.Struct, frozen=True, tag=True):
    """kill -9, and a new process after `down_s`. `silent`: its machine is gone, so that no connection breaks."""

    at_s: float
    victim: str
    down_s: float
    silent: bool


class Pause(msgspec.Struct, frozen=True, tag=True):
    """SIGSTOP: what happens to it meanwhile piles up and happens at once afterwards."""

    at_s: float
    for_s: float
    victim: str


class Cut(msgspec.Struct, frozen=True, tag=True):
    """Nothing passes between two parties. `other` may be `bus` (the party hears nobody) or `store` (JetStream KV)."""

    at_s: float
    for_s: float
    one: str
    other: str


class Skew(msgspec.Struct, frozen=True, tag=True):
    """A wall clock is put wrong, and stays so."""

    at_s: float
    victim: str
    wall_s: float


Fault: TypeAlias = Noise | Kill | Pause | Cut | Skew


def draw(seed: int) -> tuple[Fault, ...]:
    """The faults of this seed, in the order of their times."""
    rng = Random(f"faults/{seed}")
    faults: list[Fault] = [_noise(rng) for _ in range(rng.randint(1, 4))]
    makers = rng.choices((_kill, _pause, _cut, _skew), weights=(5, 2, 4, 1), k=rng.randint(1, 6))
    faults += [make(rng) for make in makers]
    if rng.random() < 0.15:  # many at one moment
        at_s = rng.uniform(1.0, FAULTS_S / 2)
        victims = rng.sample(MORTAL, rng.randint(3, len(MORTAL)))
        faults += [Kill(at_s, victim, rng.uniform(0.1, 3.0), silent=False) for victim in victims]
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def _span(rng: Random, shortest_s: float, longest_s: float) -> tuple[float, float]:
    """When, and for how long: over before the faults stop."""
    for_s = rng.uniform(shortest_s, longest_s)
    return rng.uniform(0.0, FAULTS_S - for_s), for_s


def _noise(rng: Random) -> Noise:
    at_s, for_s = _span(rng, 1.0, 12.0)
    bad = rng.choice((0.02, 0.1, 0.3, 1.0))  # a whole link or kind may be lost for a while
    everywhere = rng.random() < 0.4
    sender = "*" if everywhere else rng.choice((*GATEWAYS, *LEADERS, *WORKERS, "graph"))
    return Noise(
        at_s,
        for_s,
        sender=sender,
        receiver="*" if everywhere or rng.random() < 0.5 else rng.choice((*GATEWAYS, *LEADERS, *WORKERS)),
        kind=rng.choice(KINDS) if rng.random() < 0.4 or (everywhere and bad == 1.0) else "",
        lose=bad * rng.random(),
        double=min(0.5, bad) * rng.random(),
        late=bad * rng.random(),
        latest_s=rng.choice((0.05, 0.5, 4.0)),
        reorder=rng.random() < 0.7,
    )


def _kill(rng: Random) -> Kill:
    victim = rng.choice(MORTAL)
    return Kill(rng.uniform(0.5, FAULTS_S - 5.0), victim, rng.uniform(0.1, 5.0), silent=rng.random() < 0.25)


def _pause(rng: Random) -> Pause:
    at_s, for_s = _span(rng, 0.5, 5.0)
    if rng.random() < 0.5:
        at_s, for_s = rng.uniform(0.0, FAULTS_S - LONG_PAUSE_S), LONG_PAUSE_S
    return Pause(at_s, for_s, rng.choice(MORTAL))


def _cut(rng: Random) -> Cut:
    at_s, for_s = _span(rng, 0.5, 9.0)
    one = rng.choice((*GATEWAYS, *LEADERS, *WORKERS))
    others = [*CANDIDATES, "bus", "bus", "store", *GATEWAYS, *LEADERS, *WORKERS, *(ENGINES if one[0] in "gw" else ())]
    return (
        Cut(at_s, for_s, rng.choice((one, one, one, "*")), "bus")
        if rng.random() < 0.3
        else Cut(at_s, for_s, one, rng.choice([other for other in others if other != one]))
    )


def _skew(rng: Random) -> Skew:
    return Skew(rng.uniform(0.0, 5.0), rng.choice(MORTAL), rng.choice((-86_400.0, -30.0, 30.0, 3_600.0)))
