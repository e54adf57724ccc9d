"""Resident memory of processes over time, from /proc, and the line through its second half. For bench/soak_live.py.

A process that is started again under its name counts on: its memory falls, which is no leak, and its restart is told by
the mesh.
"""

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct


class Memory(Struct):
    """Of one process: seconds since the first look, and bytes then."""

    name: str
    at_s: list[float] = []
    rss_bytes: list[int] = []

    def at(self, share: float) -> int:
        """Bytes after this share of the looks."""
        return self.rss_bytes[min(len(self.rss_bytes) - 1, int(share * len(self.rss_bytes)))]

    @property
    def slope_bytes_per_s(self) -> float:
        """Of the least-squares line through the second half; 0 with fewer than two looks in it."""
        half = len(self.at_s) // 2
        if len(self.at_s) - half < 2:
            return 0.0
        return statistics.linear_regression(self.at_s[half:], self.rss_bytes[half:]).slope


def rss_bytes(pid: int) -> int | None:
    """Resident memory; None when there is no such process, or no /proc."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


async def sampled(processes: Callable[[], Mapping[str, int]], every_s: float) -> list[Memory]:
    """Looks until it is cancelled, and then returns what it saw."""
    seen: dict[str, Memory] = {}
    begun_s = time.monotonic()
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            for name, pid in processes().items():
                if (now := rss_bytes(pid)) is not None:
                    one = seen.setdefault(name, Memory(name))
                    one.at_s.append(time.monotonic() - begun_s)
                    one.rss_bytes.append(now)
            await asyncio.sleep(every_s)
    return [seen[name] for name in sorted(seen)]
