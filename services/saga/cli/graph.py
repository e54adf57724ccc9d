"""`saga graph`: what the graph service has learnt, drawn; and how to make it forget."""

import argparse
import asyncio
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console

from saga.cli.graph_ask import GraphService, NobodyError, nats_url
from saga.cli.graph_text import class_text, classes_text, workflow_text
from saga.contract.messages import GraphAsk
from saga.contract.workflow_messages import ClassFacts, Shape, WorkflowFacts
from saga.drawing.lanes import lanes_drawn
from saga.drawing.layers import layered
from saga.drawing.scene import Scene
from saga.drawing.svg import svg
from saga.runtime import log
from saga.runtime.errors import StartError

EXIT_NOT_DONE: Final = 1  # the mesh answers, but has no such thing or could not do it
EXIT_USAGE: Final = 2
Act = Callable[[argparse.Namespace, GraphService, Console], Awaitable[int]]


class NotKnownError(Exception):
    """No class or workflow, or more than one, is called so."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The flags of `saga graph`."""
    parser = commands.add_parser(
        "graph",
        help="what is learnt of agents: list, draw, reset",
        description="Asks the graph service of a running mesh: that of SAGA_NATS_URL and SAGA_CELL, or of the "
        "`saga up` that runs here.",
    )
    parser.add_argument("--state-dir", type=Path, default=Path(".saga"), metavar="DIR", help="of `saga up`")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    classes = actions.add_parser("classes", help="what is learnt, in a list")
    classes.add_argument("--tenant", default="", metavar="T", help="only this tenant's")
    classes.add_argument("--json", action="store_true", help="for programs")
    classes.set_defaults(act=_acting(_classes))
    show = actions.add_parser("show", help="draw an agent class, or a live workflow")
    show.add_argument(
        "name", metavar="CLASS|WORKFLOW", help="as listed; what follows the tenant, or its start, will do"
    )
    show.add_argument("--tenant", default="", metavar="T", help="only this tenant's")
    show.add_argument("--svg", type=Path, metavar="FILE", help="write a drawing for browsers")
    show.add_argument("--json", action="store_true", help="for programs")
    show.set_defaults(act=_acting(_show))
    reset = actions.add_parser("reset", help="forget what was learnt, also in storage")
    which = reset.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", metavar="CLASS", help="as listed")
    which.add_argument("--all", action="store_true", help="everything, of all tenants")
    reset.add_argument("--tenant", default="", metavar="T", help="whose class, where several are called so")
    reset.set_defaults(act=_acting(_reset))


def _acting(act: Act) -> Callable[[argparse.Namespace], int]:
    """Connects, acts, and says on one line what went wrong."""

    async def run(flags: argparse.Namespace) -> int:
        url = nats_url(os.environ, flags.state_dir)
        async with GraphService.reached(url, os.environ.get("SAGA_CELL", "main")) as service:
            return await act(flags, service, Console(highlight=False))

    def main(flags: argparse.Namespace) -> int:
        log.configure("graph", level="error")  # a command's output is what it was asked for
        try:
            return asyncio.run(run(flags))
        except StartError as error:
            return _refuse(str(error), EXIT_USAGE)
        except (NobodyError, NotKnownError) as error:
            return _refuse(str(error), EXIT_NOT_DONE)

    return main


def _refuse(text: str, code: int) -> int:
    print(f"saga graph: {text}", file=sys.stderr)
    return code


async def _classes(flags: argparse.Namespace, service: GraphService, out: Console) -> int:
    known: dict[str, ClassFacts] = {}
    for answer in await service.ask(GraphAsk(what="classes", tenant=flags.tenant)):
        for facts in answer.classes:
            if not facts.samples and not facts.tools_seen:
                continue  # what a reset leaves
            if facts.name not in known or known[facts.name].samples < facts.samples:
                known[facts.name] = facts
    rows = sorted(known.values(), key=lambda facts: (facts.name.split("/")[0] != "class", -facts.samples, facts.name))
    if flags.json:
        _print_json(rows)
        return 0
    if not rows:
        whose = f" of tenant {flags.tenant}" if flags.tenant else ""
        out.print(f"Nothing is learnt yet{whose}: send steps with tool calls through the gateway.")
        return 0
    for line in classes_text(rows, time.time()):
        out.print(line, soft_wrap=True)
    return 0


async def _show(flags: argparse.Namespace, service: GraphService, out: Console) -> int:
    found = await _find(flags.name, flags.tenant, service)
    if flags.svg is not None:
        shapes = [found] if isinstance(found, Shape) else [s for s in (found.declared, found.shape) if s is not None]
        name = found.name if isinstance(found, Shape) else str(found.root)
        try:
            flags.svg.write_text(svg([_scene(shape) for shape in shapes], name), encoding="utf-8")
        except OSError as error:
            return _refuse(f"{flags.svg}: {error.strerror}", EXIT_USAGE)
    if flags.json:
        _print_json(found)
        return 0
    for line in class_text(found) if isinstance(found, Shape) else workflow_text(found):
        out.print(line, soft_wrap=True)
    if flags.svg is not None:
        out.print(f"\nDrawing: {flags.svg}", soft_wrap=True)
    return 0


async def _reset(flags: argparse.Namespace, service: GraphService, out: Console) -> int:
    name = ""
    if not flags.all:
        try:
            found = await _find(flags.name, flags.tenant, service)
        except NotKnownError:
            if "/" not in flags.name and flags.name != "all":
                raise
            found = None  # by its full name it may still be stored, and forgetting twice is no error
        if isinstance(found, WorkflowFacts):
            raise NotKnownError(f"{flags.name!r} is a workflow: it is forgotten when it ends. Classes can be reset.")
        name = found.name if found is not None else flags.name
    answers = await service.reset(name)
    forgotten = sorted({model for answer in answers for model in answer.forgotten})
    if not all(answer.stored for answer in answers):
        return _refuse("forgotten in memory, but storage does not answer: repeat it when NATS is well", EXIT_NOT_DONE)
    if not forgotten:
        out.print(f"Nothing was known of {name or 'anything'}; nothing is stored.")
        return 0
    out.print(f"Forgotten: {', '.join(forgotten[:8])}" + (f" and {len(forgotten) - 8} more" * (len(forgotten) > 8)))
    if name.startswith("class/"):
        out.print(
            "What its tenant and all together have learnt stays: it helps until the class is known again.", style="dim"
        )
    return 0


async def _find(name: str, tenant: str, service: GraphService) -> Shape | WorkflowFacts:
    """The one class or workflow of that name. Raises NotKnownError that lists what is near."""
    answers = await service.ask(GraphAsk(what="show", name=name, tenant=tenant))
    shapes = {shape.name: shape for answer in answers for shape in answer.shapes}
    workflows = {str(facts.root): facts for answer in answers for facts in answer.workflows}
    found: dict[str, Shape | WorkflowFacts] = {**shapes, **workflows}
    exact = {full: it for full, it in found.items() if _is_called(full, name)}
    found = exact or found
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise NotKnownError(f"{name!r} may be any of {', '.join(sorted(found))}: name one of them in full")
    near = sorted({like for answer in answers for like in answer.near})[:6]
    hint = f"; there are {', '.join(near)}" if near else "; nothing is learnt yet"
    raise NotKnownError(f"no class and no live workflow is called {name!r}{hint}")


def _is_called(full: str, name: str) -> bool:
    return full == name or re.sub(r"^(class/[^/]*|[^/]*)/", "", full) == name


def _scene(shape: Shape) -> Scene:
    if shape.kind == "class" or any(edge.kind == "declared" for edge in shape.edges):
        return layered(shape)
    return lanes_drawn(shape)


def _print_json(value: Any) -> None:  # noqa: ANN401 - whatever is shown
    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())
