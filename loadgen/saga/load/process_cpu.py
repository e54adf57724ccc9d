"""CPU seconds that processes have used so far, from /proc; empty on systems without it.

For benchmarks whose processes share the cores they measure. Called by bench/control_plane.py.
"""

import os
from collections.abc import Mapping
from pathlib import Path


def cpu_s(processes: Mapping[str, int]) -> dict[str, float]:
    """User and system CPU seconds of each named pid, and of this process as "generator"."""
    used: dict[str, float] = {}
    for name, pid in {**processes, "generator": os.getpid()}.items():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        used[name] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return used


def per_step_ms(before: Mapping[str, float], after: Mapping[str, float], steps: int) -> dict[str, float]:
    """CPU milliseconds per step of each service, busiest first: the sum over its processes ("engine-0" is engine)."""
    spent: dict[str, float] = {}
    for name, used_s in after.items():
        service = name.rstrip("0123456789").rstrip("-")
        spent[service] = spent.get(service, 0.0) + (used_s - before.get(name, 0.0)) * 1000 / max(1, steps)
    return dict(sorted(spent.items(), key=lambda item: -item[1]))
