"""How long messages took and steps waited in a live run, read from what its services recorded.

All processes of one machine share its monotonic clock, so the time from a sender's event to its receiver's is one
subtraction: handling, publishing, NATS and the receiver's queue. Called by bench/live_vs_sim.py.
"""

from collections.abc import Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import msgspec
from msgspec import Struct

from saga.contract.ids import RootId
from saga.sim.replayed import read_recording

# A step's way to its grant: who says what by which effect, to whom.
HOPS = (
    ("gateway", "Request", "StepReady", "admission"),
    ("admission", "Publish", "StepAdmitted", "placement"),
    ("placement", "Publish", "Grant", "gateway"),
)


class Spread(Struct, frozen=True):
    """Of one-way times, in seconds."""

    count: int
    mean_s: float
    median_s: float


class Measured(Struct, frozen=True):
    """Of one run. `control_s`, `engine_s`: means over completed steps, as the gateway's core was told. `starts_s`: when
    the first step of each workflow came to the gateway, after the very first one."""

    hops: dict[str, Spread]
    starts_s: dict[RootId, float]
    steps: int
    control_s: float
    engine_s: float

    @property
    def message_s(self) -> float:
        """Mean of the hops' means."""
        return mean(hop.mean_s for hop in self.hops.values()) if self.hops else 0.0


def measure(folder: Path) -> Measured:
    """Everything recorded there, of one run. Raises RecordError, OSError."""
    said: dict[tuple[str, str, int], float] = {}  # (message, step, attempt) -> when; the first counts
    heard: dict[tuple[str, str, int], float] = {}
    control_s: list[float] = []
    engine_s: list[float] = []
    came_s: dict[RootId, float] = {}
    for service, now_s, kind, event, effects in _events(folder):
        if kind == "Completed":
            control_s.append(event["control_s"])
            engine_s.append(event["engine_s"])
        elif kind == "Submitted":
            came_s.setdefault(event["step"]["root"], now_s)
        for speaker, effect_kind, message, listener in HOPS:
            if service == listener and kind == "Received" and event["message"]["type"] == message:
                heard.setdefault(_key(event["message"]), now_s)
            if service == speaker:
                for name, effect in effects:
                    if name == effect_kind and effect["message"]["type"] == message:
                        said.setdefault(_key(effect["message"]), now_s)
    hops = {}
    for speaker, _, message, listener in HOPS:
        times = [heard[key] - at_s for key, at_s in said.items() if key[0] == message and key in heard]
        if times:
            hops[f"{speaker} to {listener}"] = Spread(len(times), mean(times), median(times))
    return Measured(
        hops=hops,
        starts_s={root: at_s - min(came_s.values()) for root, at_s in came_s.items()},
        steps=len(engine_s),
        control_s=mean(control_s) if control_s else 0.0,
        engine_s=mean(engine_s) if engine_s else 0.0,
    )


def _key(message: dict[str, Any]) -> tuple[str, str, int]:
    step = message.get("step", message)
    return message["type"], step["step_id"], step.get("attempt", 0)


def _events(folder: Path) -> Iterator[tuple[str, float, str, Any, Any]]:
    for path in sorted(folder.iterdir()):
        header, entries = read_recording(path)
        if header.service not in ("gateway", "admission", "placement"):
            continue
        for entry in entries:
            event, effects = msgspec.msgpack.decode(entry.event), msgspec.msgpack.decode(entry.effects)
            yield header.service, entry.now_s, entry.kind, event, effects
