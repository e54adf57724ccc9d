"""`python -m saga.chaos`: does one fault after another to meshes of its own and says what held."""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from msgspec import Struct

from saga.chaos.catalogue import FAULTS
from saga.chaos.faults import Fault
from saga.chaos.report import Result, as_json, as_line, as_markdown, result_of
from saga.chaos.stage import Size, Stage
from saga.chaos.trial import IDLE_WITHIN_S, Timing, tried
from saga.runtime.errors import StartError


class Plan(Struct, frozen=True, kw_only=True):
    """What to do. `clients`: of both tenants together; more than there are slots, so that some always wait."""

    faults: tuple[Fault, ...] = FAULTS
    seed: int = 0
    rounds: int = 1
    size: Size = Size()
    clients: int = 20
    timing: Timing = Timing()


async def played(plan: Plan, folder: Path, tell: Callable[[Result], None]) -> None:
    """Every fault of the plan, scene by scene. Raises StartError for a mesh that does not start, or does not heal."""
    scenes = {fault.scene.name: fault.scene for fault in plan.faults}
    for name, scene in scenes.items():
        faults = [fault for fault in plan.faults if fault.scene.name == name]
        if skipped := scene.why_not():
            for fault in faults:
                tell(Result(fault=fault.name, what=fault.what, skipped=skipped))
            continue
        async with scene.open(plan.size, folder / name) as stage:
            await _played_on(stage, plan, faults, tell)


async def _played_on(stage: Stage, plan: Plan, faults: list[Fault], tell: Callable[[Result], None]) -> None:
    before = await stage.idle_within(IDLE_WITHIN_S)
    for seed in range(plan.seed, plan.seed + plan.rounds):
        for fault in faults:
            trial = await tried(
                stage, plan.size, fault, clients=plan.clients, seed=seed, timing=plan.timing, before=before
            )
            before = trial.left
            tell(result_of(trial, seed))


@contextlib.asynccontextmanager
async def _folder(kept: Path | None) -> AsyncIterator[Path]:
    if kept is not None:
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="saga-chaos-") as made:
        yield Path(made)


def main(argv: Sequence[str] | None = None) -> int:
    """Exit code 0: all held; 1: something did not; 2: the mesh did not start, or did not heal."""
    parser = argparse.ArgumentParser(prog="python -m saga.chaos", description=__doc__)
    parser.add_argument("--fault", action="append", choices=[f.name for f in FAULTS], help="only this one (repeat)")
    parser.add_argument("--seed", type=int, default=0, help="of the clients' prompts and pauses (default 0)")
    parser.add_argument("--rounds", type=int, default=1, help="of all faults, with consecutive seeds")
    parser.add_argument("--json", type=Path, help="results for programs")
    parser.add_argument("--markdown", type=Path, help="the table of docs/reliability.md")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="state and logs of the mesh go there and stay")
    parser.add_argument("--list", action="store_true", help="faults by name, and nothing else")
    flags = parser.parse_args(argv)
    if flags.list:
        for fault in FAULTS:
            print(f"{fault.name:<20} {fault.what}")
        return 0
    chosen = tuple(fault for fault in FAULTS if not flags.fault or fault.name in flags.fault)
    plan = Plan(faults=chosen, seed=flags.seed, rounds=flags.rounds)
    results: list[Result] = []

    def tell(result: Result) -> None:
        """At once: who interrupts keeps what is done."""
        results.append(result)
        print(as_line(result), flush=True)
        if flags.json:
            flags.json.write_bytes(as_json(results))
        if flags.markdown:
            flags.markdown.write_text(as_markdown(results))

    try:
        asyncio.run(_run(plan, flags.keep, tell))
    except StartError as error:
        sys.stderr.write(f"saga chaos: {error}\n")
        return 2
    return int(not all(result.held for result in results))


async def _run(plan: Plan, kept: Path | None, tell: Callable[[Result], None]) -> None:
    async with _folder(kept) as folder:
        await played(plan, folder, tell)
