"""What SGLang's scheduler pays for eviction with many sessions: its Rust tree, its Python tree with tags, our plugin.

For each of the three in turn, one real server with a tiny model: `--leaves` sessions of a few pages each fill its pool,
then as many requests again as `--requests` once while there is room and once while each must evict. Reported:
scheduler CPU per request of both kinds, and SGLang's own `eviction_duration_seconds` per eviction. On a CPU the model
itself runs in the scheduler, so it is the differences between the three that say something.
Needs `make sglang-cpu`; says so and ends otherwise. Run: python bench/sglang_eviction.py --json FILE
"""

import argparse
import asyncio
import mmap
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import aiohttp
import msgspec
import orjson
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from saga.cli.child import Child
from saga.cli.sglang import SglangPorts, SglangSettings, healthy, ports_for, server
from saga.contract.ids import SessionTag
from saga.worker.retention_ring import RetentionRing

ROOT = Path(__file__).parents[1]
ENVIRONMENT = ROOT / ".venv-sglang"
PAGE_TOKENS = 16
PROMPT_TOKENS = 3 * PAGE_TOKENS
NEW_TOKENS = 2
ROOM_TOKENS = 4 * PAGE_TOKENS  # what one request takes at most
AT_ONCE = 8
STARTS_WITHIN_S = 600.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
VARIANTS = ("rust tree, lru", "python tree, tags", "python tree, plugin")

sys.path.insert(0, str(ROOT / "tests" / "support"))
from sglang_plugin import installed_in  # noqa: E402 - the plugin without installing it


class Cost(Struct, frozen=True):
    """One variant. CPU of the scheduler per request, milliseconds; evictions as SGLang counts and times them."""

    variant: str
    leaves: int
    cpu_ms_with_room: float
    cpu_ms_evicting: float
    evictions: int
    eviction_ms: float


class Load:
    """Requests to one server, each a prompt that nobody said before, in a session of its own."""

    def __init__(self, http: aiohttp.ClientSession, url: str, seed: int) -> None:
        self._http = http
        self._url = url
        self._random = Random(seed)
        self.ring: RetentionRing | None = None
        self._asked = 0

    async def ask(self, count: int) -> None:
        """So many requests, a few at a time. Raises RuntimeError when one is not answered."""
        left = iter(range(count))

        async def worker() -> None:
            for _ in left:
                await self._one()

        await asyncio.gather(*(worker() for _ in range(AT_ONCE)))

    async def evictions(self) -> tuple[int, float]:
        """(evictions, seconds in them) so far, as SGLang says."""
        async with self._http.get(f"{self._url}/metrics") as response:
            lines = (await response.text()).splitlines()
        count, seconds = 0.0, 0.0
        for line in lines:
            if line.startswith("sglang:eviction_duration_seconds_count"):
                count += float(line.rsplit(" ", 1)[1])
            elif line.startswith("sglang:eviction_duration_seconds_sum"):
                seconds += float(line.rsplit(" ", 1)[1])
        return int(count), seconds

    async def _one(self) -> None:
        self._asked += 1
        tag = SessionTag(f"session-{self._asked}")
        body = {
            "input_ids": self._random.choices(range(10, 250), k=PROMPT_TOKENS),
            "sampling_params": {"max_new_tokens": NEW_TOKENS, "ignore_eos": True, "temperature": 0.0},
            "session_id": tag,
        }
        async with self._http.post(f"{self._url}/generate", json=body) as response:
            if response.status != 200:
                raise RuntimeError(f"/generate answered {response.status}: {await response.text()}")
            await response.read()
        if self.ring is not None:
            self.ring.set(tag, self._random.uniform(0.0, 10.0))
            self.ring.beat(time.monotonic())


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def scheduler_below(pid: int) -> int:
    """The scheduler among the processes that a server started. Raises RuntimeError if there is none."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue  # it has ended meanwhile
    for child in parents:
        ancestor = parents.get(child)
        while ancestor not in (None, 0, pid):
            ancestor = parents.get(ancestor or 0)
        if ancestor == pid and b"scheduler" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    raise RuntimeError(f"server {pid} has no scheduler process")


def settings_of(variant: str, leaves: int, requests: int, folder: Path) -> SglangSettings:
    """The server of a variant: its pool holds the leaves and the requests that are to find room."""
    tags = variant != VARIANTS[0]
    plugin = variant == VARIANTS[2]
    return SglangSettings(
        model=str(ENVIRONMENT / "tiny-model"),
        python=ENVIRONMENT / "bin" / "python",
        cpu=True,
        page_tokens=PAGE_TOKENS,
        kv_tokens=(leaves + requests) * PROMPT_TOKENS + AT_ONCE * ROOM_TOKENS,
        session_tags=tags,
        retention_dir=folder if plugin else None,
        env={"PYTHONPATH": installed_in(folder / "site")} if plugin else {},
        extra=("--load-format", "dummy"),
    )


@asynccontextmanager
async def running(settings: SglangSettings, at: SglangPorts, folder: Path) -> AsyncIterator[Child]:
    """A server that serves. Raises RuntimeError when it dies first."""
    child = Child(server("sglang", settings, at), folder / "sglang.log", os.environ)
    await child.start()
    supervision = asyncio.create_task(child.supervise())
    try:
        async with asyncio.timeout(STARTS_WITHIN_S):
            while not await healthy(at):
                if child.exits:
                    raise RuntimeError(f"the server died: {child.log_file.read_text()[-2000:]}")
                await asyncio.sleep(0.2)
        yield child
    finally:
        await child.stop()
        await supervision


async def measure(variant: str, leaves: int, requests: int, seed: int) -> Cost:
    """One variant on a server of its own."""
    with tempfile.TemporaryDirectory(prefix="saga-eviction-") as name:
        folder, at = Path(name), ports_for(1)[0]
        settings = settings_of(variant, leaves, requests, folder)
        async with running(settings, at, folder) as child, aiohttp.ClientSession() as http:
            load = Load(http, at.url, seed)
            if settings.retention_dir is not None:
                with (folder / "retention-0").open("r+b") as file:
                    load.ring = RetentionRing(memoryview(mmap.mmap(file.fileno(), 0)))
            assert child.pid is not None
            scheduler = scheduler_below(child.pid)
            await load.ask(leaves)
            with_room = await _cpu_ms(load, scheduler, requests)
            before, _ = await load.evictions()
            await load.ask(2 * AT_ONCE + ROOM_TOKENS // PROMPT_TOKENS * AT_ONCE)  # until there is no room any more
            count, seconds = await load.evictions()
            evicting = await _cpu_ms(load, scheduler, requests)
            count_after, seconds_after = await load.evictions()
            if before:
                raise RuntimeError(f"{variant}: {before} evictions although there was room")
    evictions = count_after - count
    if evictions == 0:
        raise RuntimeError(f"{variant}: nothing was evicted")
    return Cost(variant, leaves + requests, with_room, evicting, evictions, 1e3 * (seconds_after - seconds) / evictions)


async def _cpu_ms(load: Load, scheduler: int, requests: int) -> float:
    before_s = cpu_s(scheduler)
    await load.ask(requests)
    return 1e3 * (cpu_s(scheduler) - before_s) / requests


def show(costs: list[Cost], out: Console) -> None:
    """One row a variant."""
    table = Table(title="SGLang's scheduler and eviction", title_justify="left")
    for column in ("", "leaves", "CPU/request with room, ms", "evicting, ms", "evictions", "each, ms"):
        table.add_column(column, justify="right")
    for cost in costs:
        numbers = (f"{cost.cpu_ms_with_room:.2f}", f"{cost.cpu_ms_evicting:.2f}", str(cost.evictions))
        table.add_row(cost.variant, str(cost.leaves), *numbers, f"{cost.eviction_ms:.3f}")
    out.print(table)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--leaves", type=int, default=1_000, help="sessions in the cache (default %(default)s)")
    parser.add_argument("--requests", type=int, default=400, help="measured, of each kind (default %(default)s)")
    parser.add_argument("--variant", choices=VARIANTS, help="this one alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE")
    flags = parser.parse_args()
    out = Console(width=120)
    if not (ENVIRONMENT / "tiny-model").is_dir():
        out.print("sglang_eviction: there is no SGLang to measure: make sglang-cpu")
        return
    costs = []
    for variant in [flags.variant] if flags.variant else VARIANTS:
        costs.append(asyncio.run(measure(variant, flags.leaves, flags.requests, flags.seed)))
        show(costs[-1:], out)
    show(costs, out)
    if flags.json is not None:
        flags.json.write_bytes(orjson.dumps(msgspec.to_builtins(costs), option=orjson.OPT_INDENT_2) + b"\n")


if __name__ == "__main__":
    main()
