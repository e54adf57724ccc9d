"""`saga why --recording`: recordings of admission and placement fed to fresh cores, which are then asked.

A core that is told the same remembers the same. It is asked after each event that could add to the answer, since a long
recording tells it more steps than it remembers.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from saga.contract.messages import WhyAsk, WhyTold
from saga.kernel.effects import Answer, Received
from saga.kernel.record import RecordError
from saga.sim.replayed import fresh_core, read_recording

SERVICES: Final = ("admission", "placement")
ASK_EVERY: Final = 2_000  # events, when a whole workflow is asked for


def stories_in(files: Iterable[Path], ask: WhyAsk) -> list[WhyTold]:
    """What the leaders recorded there knew. Those of other services are passed over. Raises RecordError, OSError."""
    found: dict[str, WhyTold] = {}
    for path in files:
        told = _story_in(path, ask)
        if told is None:
            continue
        known = found.get(told.service)
        if known is None or _more(told, known):
            found[told.service] = told
    if not found:
        raise RecordError("none of these is a recording of an admission or a placement that led")
    return [found[service] for service in SERVICES if service in found]


def _more(one: WhyTold, other: WhyTold) -> bool:
    """Whether one knows more of what was asked: leaders come and go."""

    def moments(told: WhyTold) -> int:
        return sum(len(step.moments) for step in told.steps)

    return moments(one) > moments(other)


def _story_in(path: Path, ask: WhyAsk) -> WhyTold | None:
    """The fullest answer that this core could give during its life; None: it never led, or is of another service."""
    header, entries = read_recording(path)
    if header.service not in SERVICES:
        return None
    core, events = fresh_core(header.service, header.making)
    wanted = ask.step_id.encode()
    best: WhyTold | None = None
    now_s = 0.0
    for number, entry in enumerate(entries, start=1):
        now_s = entry.now_s
        if entry.kind == "Demoted":  # whoever does not lead does not answer
            best = _asked(core, ask, now_s, best)
        core.handle(events.of(entry), now_s)
        if wanted in bytes(entry.event) + bytes(entry.effects) if wanted else number % ASK_EVERY == 0:
            best = _asked(core, ask, now_s, best)
    return _asked(core, ask, now_s, best)


def _asked(core: Any, ask: WhyAsk, now_s: float, best: WhyTold | None) -> WhyTold | None:  # noqa: ANN401 - either core
    for effect in core.handle(Received(ask), now_s):
        if isinstance(effect, Answer) and isinstance(effect.message, WhyTold):
            return effect.message if best is None or _more(effect.message, best) else best
    return best
