"""bench/gpu.sh from end to end over the CPU build: server, measurements, fit. Its numbers mean nothing."""

import asyncio
import signal
from pathlib import Path

from sglang_server import ENVIRONMENT, ROOT

from saga.engine.measurements import DecodeTime, PrefillTime, read


def left(folder: Path) -> list[str]:
    """Processes that still name this folder in their command line."""
    lines = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = cmdline.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if str(folder) in said:
            lines.append(said)
    return lines


async def start(out: Path):
    """The script, with what it says in a pipe."""
    return await asyncio.create_subprocess_exec(
        *(ROOT / "bench" / "gpu.sh", "--smoke", "--out", out, "--python", ENVIRONMENT / "bin" / "python"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def test_the_whole_chain_runs_without_a_gpu(tmp_path):
    script = await start(tmp_path)
    output, _ = await script.communicate()
    said = output.decode()
    assert script.returncode == 0, said
    assert "the chain works" in said
    measured = read((tmp_path / "measurements.jsonl").read_bytes())
    assert measured.facts.sglang == "0.5.23"
    assert measured.facts.shape is not None
    prefills = [time for time in measured.times if isinstance(time, PrefillTime)]
    assert any(time.cached_tokens for time in prefills)
    assert not all(time.cached_tokens for time in prefills)
    assert any(isinstance(time, DecodeTime) for time in measured.times)
    report = (tmp_path / "smoke.txt").read_text()
    fitted = all(group in report for group in ("prefill", "prefill after cached", "decode"))
    # A CPU's times need not look like a GPU's: then the fit says what it lacks. Fits are tested in tests/unit.
    assert fitted or "fit_profile: not fitted: " in said
    assert left(tmp_path) == []


async def test_a_script_that_is_ended_ends_its_server(tmp_path):
    script = await start(tmp_path)
    said = b""
    async with asyncio.timeout(60):
        while b"starting SGLang" not in said:
            said += await script.stdout.readline()
        while not left(tmp_path / "models"):
            await asyncio.sleep(0.1)
    script.send_signal(signal.SIGTERM)
    output, _ = await script.communicate()
    assert script.returncode == 128 + signal.SIGTERM, output.decode()
    assert left(tmp_path) == []
