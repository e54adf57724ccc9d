"""What the console costs: its server, and the page in a real Chromium, with many workflows over a real bus.

    python bench/console.py [--workflows 1000] [--steps 200] [--seconds 20] [--json] [--pictures DIR]

A spoken cell (tests/support/spoken_cell.py: real messages of agents drawn from a seed, in a process of its own) talks
over a real nats-server to a console, which one page in headless Chromium watches. Printed: CPU time of the console's
process, as a share of one core, with nobody and with one page looking; first contentful paint of fresh pages; and from
Chromium's tracing the work of the page's main thread for each frame, the sum of its tasks from one frame's begin to the
next, while the page is left alone and while lanes are scrolled and the search is typed. The page asks for a frame only
when something is to be drawn, so none is empty. Work is the thread's own time; `wall_` is with what other processes
took meanwhile, for a busy machine. Goals: under 5 % of a core at 200 steps/s, under 1 s to the first paint, 8 ms (P95)
of frame work.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from chromium import Chromium, Page, installed  # noqa: E402 - tests/support is no package
from spoken_cell import SpokenCell  # noqa: E402 - the same

from saga.runtime.bus_nats import NatsBus  # noqa: E402 - the same
from saga.runtime.nats_server import NatsServer  # noqa: E402 - the same

WARM_S = 25.0
PAINTS = 5
CATEGORIES = (
    "devtools.timeline,disabled-by-default-devtools.timeline,disabled-by-default-devtools.timeline.frame,toplevel"
)


async def speak(url: str, flags: argparse.Namespace) -> None:
    """The spoken cell, until killed."""
    bus = await NatsBus.connect(url, name="spoken", cell="main")
    cell = SpokenCell(workers=8, workflows=flags.workflows, steps_per_s=flags.steps, slots=120, seed=flags.seed)
    cell.at = time.time()
    await cell.answer_tenants(bus)
    begun_s, began = time.monotonic(), cell.steps
    while True:
        await cell.say(bus, 5.0)
        print(f"{(cell.steps - began) / (time.monotonic() - begun_s):.1f}", flush=True)


class Process:
    """A child whose last line and CPU time can be asked for."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(line.decode())

    def cpu_s(self) -> float:
        """User and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float:
        """Resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return round(int(status.split("VmRSS:")[1].split()[0]) / 1024, 1)

    async def share_of_a_core(self, seconds: float) -> float:
        """Over so long."""
        cpu_s, now_s = self.cpu_s(), time.monotonic()
        await asyncio.sleep(seconds)
        return (self.cpu_s() - cpu_s) / (time.monotonic() - now_s)


@contextlib.asynccontextmanager
async def child(*argv: str, **environ: str) -> AsyncIterator[Process]:
    """A Python process that ends with the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *argv,
        env=os.environ | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield Process(process)
    finally:
        process.terminate()
        await process.wait()


async def port_of(console: Process) -> int:
    """As its log says once it listens."""
    async with asyncio.timeout(30):
        while True:
            for line in console.lines:
                if '"console.ready"' in line:
                    return int(json.loads(line)["port"])
            await asyncio.sleep(0.05)


async def traced(page: Page, act: object, seconds: float) -> dict[str, float]:
    """Milliseconds of main-thread work per frame, from Chromium's tracing."""
    page.collected["Tracing.dataCollected"] = []
    await page.call(
        "Tracing.start", transferMode="ReportEvents", traceConfig={"includedCategories": CATEGORIES.split(",")}
    )
    if callable(act):
        await act(page, seconds)
    else:
        await asyncio.sleep(seconds)
    over = page.event("Tracing.tracingComplete")
    await page.call("Tracing.end")
    await asyncio.wait_for(over, 60)
    events = [event for part in page.collected.pop("Tracing.dataCollected") for event in part["value"]]
    mains = {
        (e["pid"], e["tid"]) for e in events if e["name"] == "thread_name" and e["args"]["name"] == "CrRendererMain"
    }
    begins: dict[tuple[int, int], list[float]] = {main: [] for main in mains}
    tasks: dict[tuple[int, int], list[tuple[float, float, float]]] = {main: [] for main in mains}
    for event in events:
        main = (event["pid"], event["tid"])
        if main not in mains:
            continue
        if event["name"] == "BeginMainThreadFrame":
            begins[main].append(event["ts"])
        elif event["name"] == "RunTask" and event["ph"] == "X":
            tasks[main].append((event["ts"], event.get("dur", 0), event.get("tdur", 0)))
    busiest = max(mains, key=lambda main: sum(task[1] for task in tasks[main]))
    return frames(sorted(begins[busiest]), sorted(tasks[busiest]))


def frames(begins: list[float], tasks: list[tuple[float, float, float]]) -> dict[str, float]:
    """Sums of tasks between begins of frames, in milliseconds: of the thread's own time, and as a clock on the wall
    sees them, with all that other processes took meanwhile."""
    wall, own = ([0.0] * max(1, len(begins) - 1) for _ in range(2))
    at = 0
    for ts, dur, cpu in tasks:
        while at + 1 < len(begins) and ts >= begins[at + 1]:
            at += 1
        if begins and begins[0] <= ts < begins[-1]:
            wall[min(at, len(wall) - 1)] += dur / 1000
            own[min(at, len(own) - 1)] += cpu / 1000
    told: dict[str, float] = {"frames": len(wall)}
    for name, work in (("", sorted(own)), ("wall_", sorted(wall))):
        for share in (50, 95, 99):
            told[f"{name}p{share}_ms"] = round(work[int(len(work) * share / 100)], 2)
        told[f"{name}longest_ms"] = round(work[-1], 2)
    return told


async def used(page: Page, seconds: float) -> None:
    """Somebody scrolls, types and points."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        for delta in (120, 120, 120, -90, 240, -360):
            await page.call("Input.dispatchMouseEvent", type="mouseWheel", x=600, y=600, deltaX=0, deltaY=delta)
            await page.call("Input.dispatchMouseEvent", type="mouseMoved", x=500 + delta, y=500)
            await asyncio.sleep(0.1)
        await page.press("/")
        for letter in "issue":
            await page.type(letter)
            await asyncio.sleep(0.08)
        await page.press("Escape")


async def first_paints(browser: Chromium, url: str) -> list[float]:
    """Milliseconds from navigation to the first content, of fresh pages."""
    found = []
    for _ in range(PAINTS):
        page = await browser.open(url)
        script = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
        found.append(float(await page.until(script)))
        await page.call("Page.close")
    return found


def yardstick_us() -> float:
    """20 turns of a loop: half a microsecond where nothing else runs."""
    best = []
    for _ in range(2_000):
        began = time.perf_counter_ns()
        for _turn in range(20):
            pass
        best.append(time.perf_counter_ns() - began)
    return statistics.median(best) / 1000


async def measure(flags: argparse.Namespace) -> dict[str, object]:
    """All figures."""
    made: dict[str, object] = {
        "workflows": flags.workflows,
        "steps_per_s_asked": flags.steps,
        "yardstick_us": yardstick_us(),
    }
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="saga-console-"))
        server = NatsServer(Path(folder) / "nats")
        await server.start()
        stack.push_async_callback(server.stop)
        environ = {"SAGA_NATS_URL": server.url, "SAGA_CONSOLE_PORT": "0", "SAGA_LOG": "json"}
        console = await stack.enter_async_context(child("-m", "saga.console", **environ))
        url = f"http://127.0.0.1:{await port_of(console)}/"
        argv = [f"--{name}={getattr(flags, name)}" for name in ("workflows", "steps", "seed")]
        spoken = await stack.enter_async_context(child(__file__, "--speak", server.url, *argv))
        await asyncio.sleep(WARM_S)
        made["server_nobody_looks"] = round(await console.share_of_a_core(flags.seconds), 4)
        browser = await stack.enter_async_context(Chromium())
        made["first_paint_ms"] = [round(ms) for ms in await first_paints(browser, url)]
        page = await browser.open(url)
        await page.until(f"window.saga && window.saga.store.flows.size >= {flags.workflows * 9 // 10}")
        await asyncio.sleep(3)
        made["server_one_looks"] = round(await console.share_of_a_core(flags.seconds), 4)
        made["frame_work_left_alone"] = await traced(page, None, flags.seconds)
        made["frame_work_in_use"] = await traced(page, used, flags.seconds)
        if flags.pictures is not None:
            (flags.pictures / "console-many.png").write_bytes(await page.picture())
        made["workflows_shown"] = await page.run("window.saga.store.flows.size")
        made["page_heap_mib"] = round(await page.run("performance.memory.usedJSHeapSize") / 2**20, 1)
        made["server_mib"] = console.memory_mib()
        made["steps_per_s"] = float(spoken.lines[-1])
        made["complaints"] = page.complaints
    return made


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workflows", type=int, default=1_000)
    parser.add_argument("--steps", type=float, default=200.0, help="a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--pictures", type=Path, help="folder for a picture of the page")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--speak", default="", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.speak:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(speak(flags.speak, flags))
        return 0
    if not installed():
        print("no Chromium here: `make chromium` installs Debian's; nothing was measured")
        return 0
    made = asyncio.run(measure(flags))
    if flags.json:
        print(msgspec.json.encode(made).decode())
    else:
        for name, value in made.items():
            print(f"{name:24} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
