"""One fault, done once under load: calm, blow, recovery, then silence, in which nothing may be left over."""

import asyncio
import time
from collections import Counter

from msgspec import Struct

from saga.chaos.clients import Clients
from saga.chaos.faults import Fault
from saga.chaos.invariants import Trial
from saga.chaos.stage import KEYS, PAGE_TOKENS, Idle, Size, Stage
from saga.chaos.transcript import Window

IDLE_WITHIN_S = 20.0  # leases of what died are found out within the protocol's five seconds


class Timing(Struct, frozen=True):
    """Seconds. `hold_s`: instead of a fault's own; None: its own."""

    warm_s: float = 5.0  # sessions begin, homes settle
    calm_s: float = 8.0
    settle_s: float = 10.0  # in which affinity and shares must come back
    after_s: float = 10.0
    hold_s: float | None = None
    whole_within_s: float = 60.0


async def tried(
    stage: Stage, size: Size, fault: Fault, *, clients: int, seed: int, timing: Timing, before: Idle
) -> Trial:
    """The fault, once. `before`: what was left while nobody asked. Raises StartError when the mesh does not heal."""
    restarts, kills = Counter(stage.mesh.restarts), Counter(stage.asked_to_die)
    load = Clients(stage.gateway_urls, KEYS, clients=clients, seed=seed, page_tokens=PAGE_TOKENS)
    begun_s = time.monotonic()
    async with stage.fences() as fences, asyncio.TaskGroup() as group:
        group.create_task(load.run(), name="clients")
        try:
            await asyncio.sleep(timing.warm_s)
            calm_from_s = time.monotonic()
            await asyncio.sleep(timing.calm_s)
            struck_s = time.monotonic()
            async with fault.play(stage) as blow:
                if fault.hold_s:
                    await asyncio.sleep(fault.hold_s if timing.hold_s is None else timing.hold_s)
            await asyncio.sleep(timing.settle_s)
            well_s = time.monotonic()
            await asyncio.sleep(timing.after_s)
            over_s = time.monotonic()
        finally:
            load.stop()
    await stage.whole(timing.whole_within_s)
    left = await stage.idle_within(IDLE_WITHIN_S)
    return Trial(
        fault=fault,
        blow=blow,
        slots=size.workers * size.slots,
        stories=load.stories,
        calm=Window(calm_from_s, struck_s),
        struck=Window(struck_s, well_s),
        after=Window(well_s, over_s),
        before=before,
        left=left,
        late_grants=fences.late_grants,
        taken_twice=len(fences.taken_twice),
        finished=await stage.finished(time.monotonic() - begun_s + 5.0),
        restarts=Counter(stage.mesh.restarts) - restarts,
        kills=stage.asked_to_die - kills,
    )
