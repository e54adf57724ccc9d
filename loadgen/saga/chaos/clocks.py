"""Wall clocks that can be set: processes for which the time of day is off by what a file says.

Monotonic clocks are left alone, as when somebody sets the clock of a machine. The file is read at the start and at each
SIGUSR2, so that a clock can jump while its process works.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Final

import msgspec

from saga.cli.plan import Plan

_VARIABLE: Final = "CHAOS_CLOCK_FILE"
_START: Final = f"""
import datetime, os, runpy, signal, sys, time
import saga.runtime.bus_nats as bus_nats
real_time, by = time.time, [0.0]

def look(*_):
    try:
        with open(os.environ["{_VARIABLE}"]) as file:
            by[0] = float(file.read())
    except OSError:
        by[0] = 0.0

class Skewed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(seconds=by[0])

look()
signal.signal(signal.SIGUSR2, look)
time.time = lambda: real_time() + by[0]
bus_nats.datetime = Skewed  # not everybody's: msgspec knows the real class only
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class Clocks:
    """Of all processes of one mesh."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def rewritten(self, planned: Plan) -> Plan:
        """The same processes, with clocks that can be set."""
        specs = []
        for spec in planned.specs:
            module = spec.argv[spec.argv.index("-m") + 1]
            argv = (sys.executable, "-c", _START, module)
            env = spec.env | {_VARIABLE: str(self._file(spec.name))}
            specs.append(msgspec.structs.replace(spec, argv=argv, env=env))
        return msgspec.structs.replace(planned, specs=tuple(specs))

    def set(self, name: str, pid: int, ahead_s: float) -> None:
        """From now on the process's time of day is so far ahead of ours; it stays so over its lives."""
        self._file(name).write_text(str(ahead_s))
        os.kill(pid, signal.SIGUSR2)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.clock"
