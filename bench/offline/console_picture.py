"""The console's pictures for the documentation: a spoken cell, watched for three minutes.

    python bench/offline/console_picture.py [--seconds 185] [--out docs] [--all]

Writes `console.png` (light, at 1.5 pixels a point, in 256 colours), with --all also the dark, narrow and opened ones.
"""

import argparse
import asyncio
import io
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from chromium import Chromium  # noqa: E402 - tests/support is no package
from console_process import console  # noqa: E402 - the same
from spoken_cell import SpokenCell  # noqa: E402 - the same

from saga.runtime import log  # noqa: E402 - the same
from saga.runtime.bus_nats import NatsBus  # noqa: E402 - the same
from saga.runtime.nats_server import NatsServer  # noqa: E402 - the same

COLOURS = 256


def small(png: bytes) -> bytes:
    """The picture with so many colours: a third of its size, and nobody sees it."""
    image = (
        Image.open(io.BytesIO(png))
        .convert("RGB")
        .quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    )
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


async def picture(flags: argparse.Namespace) -> dict[str, bytes]:
    """By file name."""
    made = {}
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="saga-picture-"))
        server = NatsServer(Path(folder) / "nats")
        await server.start()
        stack.push_async_callback(server.stop)
        environ = os.environ | {"SAGA_NATS_URL": server.url, "SAGA_LOG_LEVEL": "error"}
        graph = await asyncio.create_subprocess_exec(sys.executable, "-m", "saga.graph", env=environ)
        stack.push_async_callback(graph.wait)
        stack.callback(graph.terminate)
        bus = await NatsBus.connect(server.url, name="spoken", cell="main")
        stack.push_async_callback(bus.close)
        watched = await stack.enter_async_context(console(server.url, cell="main"))
        cell = SpokenCell(workers=6, workflows=54, steps_per_s=5.2, slots=6, seed=11, pressure=1.0, sub_agents=0.02)
        cell.at = time.time()
        await cell.answer_tenants(bus)
        speaking = asyncio.create_task(cell.say(bus, flags.seconds + 120))
        stack.callback(speaking.cancel)
        await asyncio.sleep(flags.seconds)
        browser = await stack.enter_async_context(Chromium())
        page = await browser.open(f"http://127.0.0.1:{watched.port}/", width=1360, height=860, scale=1.5)
        await page.until("window.saga?.store.tenants.length == 5")
        await asyncio.sleep(4)
        made["console.png"] = await page.picture()
        if flags.all:
            for _ in range(3):
                await page.press("j")
            await page.press("Enter")
            await asyncio.sleep(2.5)
            made["console-workflow.png"] = await page.picture()
            await page.press("t")
            await asyncio.sleep(1)
            made["console-workflow-dark.png"] = await page.picture()
            await page.press("Escape")
            await asyncio.sleep(1)
            made["console-dark.png"] = await page.picture()
            await page.press("?")
            made["console-keys.png"] = await page.picture()
            await page.press("Escape")
            await page.press("t")
            await page.size(400, 860, 2)
            await asyncio.sleep(2)
            made["console-narrow.png"] = await page.picture()
    return made


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=185.0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--all", action="store_true")
    flags = parser.parse_args()
    log.configure("picture", level="error")
    for name, png in asyncio.run(picture(flags)).items():
        (flags.out / name).write_bytes(small(png))
        print(f"{flags.out / name}: {len(small(png)) / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
