"""`saga why STEP`: what became of a step and why, of a running mesh or of recordings of one."""

import argparse
import re
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console

from saga.cli.asking import stories_of, word_of_worker
from saga.cli.operating import (
    EXIT_NOT_DONE,
    EXIT_USAGE,
    Act,
    Cell,
    NotDoneError,
    UsageError,
    acting,
    console,
    print_json,
    refuse,
    takes_state_dir,
)
from saga.cli.why_story import StepStory, steps_of, story_of, story_of_end, workflow_of
from saga.cli.why_text import cache_lines, head, table_of, weighed_table, workflow_lines
from saga.contract.ids import MAX_ID_CHARS, STEP_ID_CHARS, RootId, StepId
from saga.contract.messages import StepFinished, WhyAsk, WhyTold
from saga.contract.why_messages import WorkflowTold
from saga.runtime.errors import BusUnavailable

STREAM_SINCE_S: Final = 3_600.0  # how far back the stream of step ends is searched
_STEP: Final = re.compile(rf"[0-9a-f]{{{STEP_ID_CHARS}}}")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The flags of `saga why`."""
    parser = commands.add_parser(
        "why",
        help="why a step waited, where it ran and why, what of it was cached",
        description="Each answer carries its step's id (X-Saga-Step). The leaders remember the last 10,000 steps "
        "since they lead; older ones are in recordings (SAGA_RECORD), which --recording reads.",
    )
    takes_state_dir(parser)
    parser.add_argument("step", nargs="?", default="", metavar="STEP", help=f"{STEP_ID_CHARS} hexadecimal digits")
    parser.add_argument("--workflow", default="", metavar="ROOT", help="TENANT/ID: its newest steps, and how it stands")
    parser.add_argument(
        "--recording", type=Path, nargs="+", default=[], metavar="FILE", help="of admission and placement, not live"
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.set_defaults(act=_main)


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer, as --json prints it."""

    steps: tuple[StepStory, ...]
    workflow: WorkflowTold | None
    more: bool  # of a workflow: older steps are remembered, too


def _main(flags: argparse.Namespace) -> int:
    try:
        ask = asked(flags.step, flags.workflow)
    except UsageError as error:
        return refuse("why", str(error), EXIT_USAGE)
    if not flags.recording:
        return acting("why", _live(ask))(flags)
    from saga.sim.why_recorded import stories_in  # noqa: PLC0415 - it brings the cores of the services

    try:
        told = stories_in(flags.recording, ask)
        show(_recorded(told, ask), ask, console(), json=flags.json)
    except NotDoneError as error:
        return refuse("why", str(error), EXIT_NOT_DONE)
    except (ValueError, OSError) as error:
        return refuse("why", str(error), EXIT_USAGE)
    return 0


def asked(step: str, workflow: str) -> WhyAsk:
    """The question. Raises UsageError."""
    if bool(step) == bool(workflow):
        raise UsageError("name a STEP, or a workflow with --workflow TENANT/ID")
    if step and not _STEP.fullmatch(step):
        raise UsageError(f"{step[:64]!r} is no step id: {STEP_ID_CHARS} hexadecimal digits, as X-Saga-Step has them")
    if workflow and ("/" not in workflow or len(workflow) > MAX_ID_CHARS):
        raise UsageError(f"{workflow[:64]!r} is no workflow: TENANT/ID, at most {MAX_ID_CHARS} characters")
    return WhyAsk(step_id=StepId(step), root=RootId(workflow))


def _live(ask: WhyAsk) -> Act:
    async def act(flags: argparse.Namespace, cell: Cell, out: Console) -> None:
        told = await stories_of(cell, ask)
        stories = []
        for ours, theirs in steps_of(told).values():
            kv = await word_of_worker(cell, theirs) if theirs is not None else None
            stories.append(story_of(ours, theirs, kv))
        if not stories and ask.step_id and (ended := await _in_stream(cell, ask.step_id)) is not None:
            stories.append(story_of_end(ended))
        why = Why(steps=tuple(stories), workflow=workflow_of(told), more=any(one.more for one in told))
        if not stories and why.workflow is None:
            raise NotDoneError(unknown(ask, told))
        show(why, ask, out, json=flags.json)

    return act


def _recorded(told: list[WhyTold], ask: WhyAsk) -> Why:
    stories = tuple(story_of(ours, theirs, None) for ours, theirs in steps_of(told).values())
    workflow = workflow_of(told)
    if not stories and workflow is None:
        raise NotDoneError(f"no recording there knows {_named(ask)}: give those of admission and of placement")
    return Why(steps=stories, workflow=workflow, more=any(one.more for one in told))


async def _in_stream(cell: Cell, step_id: StepId) -> StepFinished | None:
    """The step's end, if the stream still has it."""
    try:
        ends = await cell.bus.replay(cell.subjects.every_step_end(), STREAM_SINCE_S)
    except BusUnavailable:
        return None
    return next((end for end in ends if isinstance(end, StepFinished) and end.step_id == step_id), None)


def unknown(ask: WhyAsk, told: list[WhyTold]) -> str:
    """Why there is nothing to say, and how far it would go back."""
    reach = "; ".join(
        f"{one.service} has led for {one.leading_s:,.0f} s and remembers {one.remembered:,} steps, the oldest from "
        f"{one.oldest_s:,.0f} s ago"
        for one in told
    )
    return (
        f"nothing is known of {_named(ask)}: {reach}. It is older, of another cell, or has not been heard of; "
        "SAGA_RECORD keeps more (docs/recordings.md)"
    )


def _named(ask: WhyAsk) -> str:
    return f"step {ask.step_id}" if ask.step_id else f"workflow {ask.root}"


def show(why: Why, ask: WhyAsk, out: Console, *, json: bool) -> None:
    """For people, or for programs."""
    if json:
        print_json(why)
        return
    if why.workflow is not None:
        root = ask.root or why.steps[0].root
        for line in workflow_lines(root, why.workflow):
            out.print(line, soft_wrap=True, markup=False)
    if why.more:
        out.print(f"The newest {len(why.steps)} steps that are remembered:")
    for number, story in enumerate(why.steps):
        if number or why.workflow is not None:
            out.print()
        for line in head(story):
            out.print(line, soft_wrap=True, markup=False)
        out.print(table_of(story))
        table = weighed_table(story.weighed)
        if table is not None:
            out.print("weighed when it was placed:")
            out.print(table)
        for line in cache_lines(story):
            out.print(line, soft_wrap=True, markup=False)
        if story.told_by == ("stream",):
            out.print("Only its end is left, in the stream of step ends: no leader remembers it any more.")
