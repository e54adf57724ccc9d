"""`saga worker`: becomes a worker agent beside an engine that somebody else runs."""

import argparse
import os
import sys
from typing import NoReturn


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The flags of `saga worker`."""
    parser = commands.add_parser(
        "worker",
        help="attach an engine to a running mesh",
        description="Runs a worker agent beside an engine. SAGA_NATS_URL and SAGA_CELL say which mesh; "
        "further settings are SAGA_WORKER_*.",
    )
    parser.add_argument("--engine", required=True, metavar="URL", help="the engine, e.g. http://127.0.0.1:30000")
    parser.add_argument("--id", metavar="ID", help="unique name of the worker in its cell")
    parser.set_defaults(act=act)


def act(flags: argparse.Namespace) -> NoReturn:
    """Replaces this process."""
    environ = dict(os.environ) | {"SAGA_WORKER_ENGINE_URL": flags.engine}
    if flags.id:
        environ["SAGA_WORKER_ID"] = flags.id
    os.execve(sys.executable, [sys.executable, "-m", "saga.worker"], environ)  # noqa: S606 - our own interpreter
