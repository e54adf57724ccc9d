"""Which faults there are: one entry each, in the order in which they are done."""

from typing import Final

from saga.chaos.faults import (
    Fault,
    Pick,
    clocks_set,
    cut_off,
    killed,
    leader,
    middle,
    processes,
    standby,
    stopped,
    store_full,
    stormy,
)
from saga.chaos.machines import Wire
from saga.chaos.nats_link import Weather
from saga.chaos.scenes import EDGE, LOSSY, MACHINES, SETTABLE_CLOCKS, SMALL_STORE, Scene
from saga.cli.mesh import NATS

FAILOVER_S: Final = 2.0  # that clients may be kept waiting by any one of the middle services
PAUSE_S: Final = 10.0  # of what does not end by itself
HOUR_S: Final = 3600.0


def _kill(name: str, what: str, pick: Pick, limit_s: float | None = None, *, short: bool = False) -> Fault:
    return Fault(name=f"kill-{name}", what=f"SIGKILL {what}", play=killed(pick), pause_limit_s=limit_s, short=short)


def _stop(name: str, what: str, pick: Pick, limit_s: float | None = None, *, short: bool = False) -> Fault:
    return Fault(
        name=f"stop-{name}",
        what=f"SIGSTOP {what} for {PAUSE_S:g} s",
        play=stopped(pick),
        hold_s=PAUSE_S,
        pause_limit_s=limit_s,
        short=short,
    )


def _cut(
    name: str,
    what: str,
    pick: Pick,
    wire: Wire,
    scene: Scene,
    *,
    limit_s: float | None = None,
    hold_s: float = PAUSE_S,
) -> Fault:
    return Fault(
        name=f"cut-{name}",
        what=f"between {what} the link loses every packet for {hold_s:g} s",
        play=cut_off(pick, wire),
        scene=scene,
        hold_s=hold_s,
        pause_limit_s=limit_s,
    )


FAULTS: Final = (
    _kill("graph", "graph", processes("graph"), FAILOVER_S),
    _kill("admission-leader", "the leading admission", leader("admission"), FAILOVER_S),
    _kill("admission-standby", "the standby of admission", standby("admission"), FAILOVER_S),
    _kill("placement-leader", "the leading placement", leader("placement"), FAILOVER_S, short=True),
    _kill("placement-standby", "the standby of placement", standby("placement"), FAILOVER_S),
    _kill("middle", "graph, both admissions, both placements at once", middle),
    _kill("gateway", "one of two gateways", processes("gateway-0"), short=True),
    _kill("worker", "a worker agent", processes("worker-0"), FAILOVER_S),
    _kill("engine", "an engine", processes("engine-0"), short=True),
    _kill("nats", "NATS", processes(NATS), short=True),
    _stop("graph", "graph", processes("graph"), FAILOVER_S),
    _stop("admission-leader", "the leading admission", leader("admission"), FAILOVER_S, short=True),
    _stop("admission-standby", "the standby of admission", standby("admission"), FAILOVER_S),
    _stop("placement-leader", "the leading placement", leader("placement"), FAILOVER_S),
    _stop("placement-standby", "the standby of placement", standby("placement"), FAILOVER_S),
    _stop("gateway", "one of two gateways", processes("gateway-0")),
    _stop("worker", "a worker agent", processes("worker-0"), FAILOVER_S),
    _stop("engine", "an engine", processes("engine-0")),
    _stop("nats", "NATS", processes(NATS)),
    Fault(
        name="skew-leaders",
        what="the time of day jumps: leading placement an hour ahead, leading admission an hour back, for 10 s",
        play=clocks_set({"placement": HOUR_S, "admission": -HOUR_S}),
        scene=SETTABLE_CLOCKS,
        hold_s=PAUSE_S,
        pause_limit_s=FAILOVER_S,
    ),
    Fault(
        name="skew-worker",
        what="a worker agent's time of day goes back an hour, it and its engine are killed, the clock is right again",
        play=clocks_set({"worker-0": -HOUR_S}, then_kill=processes("worker-0", "engine-0")),
        scene=SETTABLE_CLOCKS,
        hold_s=PAUSE_S,
    ),
    Fault(
        name="skew-gateway",
        what="a gateway's time of day jumps an hour ahead, for 10 s",
        play=clocks_set({"gateway-0": HOUR_S}),
        scene=SETTABLE_CLOCKS,
        hold_s=PAUSE_S,
        pause_limit_s=FAILOVER_S,
    ),
    Fault(
        name="store-full",
        what="the disk under JetStream is full for 10 s, then NATS is restarted",
        play=store_full,
        scene=SMALL_STORE,
        hold_s=PAUSE_S,
    ),
    _cut(
        "placement-leader",
        "the leading placement and NATS",
        leader("placement"),
        "back",
        MACHINES,
        limit_s=FAILOVER_S,
    ),
    _cut("worker-nats", "a worker agent and NATS", processes("worker-0"), "back", MACHINES),
    _cut("engine", "an engine and all gateways", processes("engine-0"), "front", MACHINES, hold_s=2 * PAUSE_S),
    _cut("gateway-nats", "a gateway and NATS", processes("gateway-1"), "back", EDGE),
    Fault(
        name="bad-bus",
        what="of what NATS delivers to any process 3 % is lost, 3 % doubled, 20 % up to 0.5 s late, for 10 s",
        play=stormy(Weather(lose=0.03, double=0.03, late=0.2, latest_s=0.5)),
        scene=LOSSY,
        hold_s=PAUSE_S,
    ),
)
