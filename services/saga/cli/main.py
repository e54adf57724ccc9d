"""The command `saga`."""

import argparse
import sys
from collections.abc import Sequence

from saga.cli import drain, graph, keys, nats_users, tenants, top, up, why, worker, workers


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; its exit code. 2: wrong usage or a start that failed."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["bench"]:  # knows its own flags
        from saga.load.cli import main as bench  # noqa: PLC0415 - the load generator is only loaded when asked for

        return bench(argv[1:])
    if argv[:2] == ["trace", "export"]:  # it reads recordings of cores, which the laboratory knows
        from saga.sim.export_cli import main as export  # noqa: PLC0415 - the same

        return export(argv[2:])
    if argv[:1] == ["trace"]:  # the same
        from saga.load.trace_cli import main as trace  # noqa: PLC0415 - the same

        return trace(argv[1:])
    if argv[:1] == ["replay"]:
        from saga.sim.replay_cli import main as replay  # noqa: PLC0415 - it brings the cores of all services

        return replay(argv[1:])
    flags = _parser().parse_args(argv)
    code: int = flags.act(flags)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="saga", description="Schedules whole agent workflows over a cluster of SGLang servers."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up.add_parser(commands)
    worker.add_parser(commands)
    workers.add_parser(commands)
    drain.add_parser(commands)
    why.add_parser(commands)
    top.add_parser(commands)
    graph.add_parser(commands)
    tenants.add_parser(commands)
    keys.add_parser(commands)
    nats_users.add_parser(commands)
    commands.add_parser("bench", help="replay agent sessions and compare systems", add_help=False)
    commands.add_parser("trace", help="look at recorded sessions, convert them", add_help=False)
    commands.add_parser("replay", help="feed recordings of live services to fresh cores", add_help=False)
    return parser


if __name__ == "__main__":
    sys.exit(main())
