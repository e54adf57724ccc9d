"""`python -m saga.cli.tied COMMAND ...`: becomes COMMAND, which is told to end when whoever started it dies.

For programs that are not ours and that no closed stdin ends, as SGLang: without it a supervisor that is killed would
leave its engines behind. Linux only, as they are. Standard library only: it starts with every engine.
"""

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_ORPHANED: Final = 1


def main(command: list[str]) -> None:
    """Replaces this process; the tie outlives that. Raises OSError when there is no such command."""
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it died meanwhile
        sys.exit(_ORPHANED)
    os.execvp(command[0], command)  # noqa: S606 - no shell wanted


if __name__ == "__main__":
    main(sys.argv[1:])
