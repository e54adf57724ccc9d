"""`saga replay FILE...`: recordings of live services, event by event, and the first answer that differs today."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msgspec import to_builtins

from saga.kernel.record import RecordError
from saga.sim.replayed import Moment, Verdict, replay

TELLING = ("step_id", "root", "session", "worker_id", "service", "fence", "at_s", "key", "tag", "rid", "reason")
TELLING_MOST = 3


def main(argv: Sequence[str]) -> int:
    """0: every recording gives the same answers today. 1: one differs. 2: one cannot be read."""
    flags = _parser().parse_args(argv)
    codes = [_one(path, quiet=flags.quiet, full=flags.full) for path in flags.files]
    return max(codes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="saga replay",
        description="Feeds recordings of live services (SAGA_RECORD=DIR) to fresh cores and compares their answers.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="as written under SAGA_RECORD")
    parser.add_argument("--quiet", action="store_true", help="only the verdicts, not every event")
    parser.add_argument("--full", action="store_true", help="events and effects with all their fields")
    return parser


def _one(path: Path, *, quiet: bool, full: bool) -> int:
    def told(moment: Moment) -> None:
        sys.stdout.write(line_of(moment, full=full) + "\n")

    try:
        verdict = replay(path, None if quiet else told)
    except (RecordError, OSError) as error:
        sys.stderr.write(f"saga replay: {path}: {error}\n")
        return 2
    sys.stdout.write(text_of(verdict) + "\n")
    return 0 if verdict.difference is None else 1


def line_of(moment: Moment, *, full: bool = False) -> str:
    """An event and its effects in one line."""
    event = type(moment.event).__name__
    effects = ", ".join(_said(name, fields, full=full) for name, fields in moment.effects) or "nothing"
    return f"#{moment.number} {moment.now_s:.6f} {_said(event, to_builtins(moment.event), full=full)} -> {effects}"


def text_of(verdict: Verdict) -> str:
    """The verdict, and where it differs both answers in full."""
    head = f"{verdict.service} {verdict.name}: {verdict.events:,} events in {verdict.seconds:,.1f} s"
    if verdict.difference is None:
        return f"{head}, {verdict.effects:,} effects: the same"
    then, again = verdict.difference.then, verdict.difference.again
    lines = [f"{head}: event #{then.number} is answered otherwise", f"  event: {line_of(then, full=True)}"]
    at = next((i for i, (a, b) in enumerate(zip(then.effects, again, strict=False)) if a != b), None)
    if at is None:
        at = min(len(then.effects), len(again))
    for title, effects in (("then", then.effects), ("now", again)):
        shown = _said(*effects[at], full=True) if at < len(effects) else "nothing"
        lines.append(f"  effect {at + 1} {title} (of {len(effects)}): {shown}")
    return "\n".join(lines)


def _said(name: str, fields: Any, *, full: bool) -> str:  # noqa: ANN401 - builtins of any Struct
    if full:
        return f"{name}{fields}"
    message = fields.get("message")
    inner = message if isinstance(message, dict) else fields
    kind = f" {message.get('type', '')}" if isinstance(message, dict) else ""
    told = [f"{key}={inner[key]}" for key in TELLING if inner.get(key) not in (None, "")][:TELLING_MOST]
    return f"{name}{kind}" + (f"({', '.join(told)})" if told else "")
