"""A program that knows nothing of us ends with its supervisor, however that dies."""

import asyncio
import os
import signal
import sys
from pathlib import Path

from saga.cli.child import Child, ProcessSpec

PROGRAM = "import sys, time; print('up', flush=True); time.sleep(60)"
TIED = (sys.executable, "-m", "saga.cli.tied", sys.executable, "-c", PROGRAM)


async def test_it_dies_with_whoever_started_it(until):
    starter = f"import os, subprocess, time; print(subprocess.Popen({TIED!r}).pid, flush=True); time.sleep(60)"
    supervisor = await asyncio.create_subprocess_exec(sys.executable, "-c", starter, stdout=asyncio.subprocess.PIPE)
    pid = int(await supervisor.stdout.readline())
    assert await supervisor.stdout.readline() == b"up\n"

    supervisor.kill()
    await supervisor.wait()

    await until(lambda: not alive(pid))


async def test_a_child_runs_it_like_any_other(tmp_path, until):
    child = Child(ProcessSpec(name="tied", argv=TIED), tmp_path / "log", os.environ)
    await child.start()
    supervision = asyncio.create_task(child.supervise())
    await until(lambda: child.last_words() == "up")
    first = child.pid

    child.signal(signal.SIGKILL)
    await until(lambda: child.exits == [-signal.SIGKILL] and child.pid not in {None, first})

    await child.stop()
    await supervision
    assert child.pid is None


async def test_what_a_killed_child_had_started_ends_with_it(tmp_path, until):
    """SGLang's server starts processes of its own; left behind they would hold its GPU when it starts again."""
    starts = (
        f"import subprocess, sys, time; print(subprocess.Popen({[sys.executable, '-c', PROGRAM]!r}).pid, flush=True)"
    )
    argv = (sys.executable, "-c", f"{starts}; time.sleep(60)")
    child = Child(ProcessSpec(name="starter", argv=argv), tmp_path / "log", os.environ)
    await child.start()
    supervision = asyncio.create_task(child.supervise())
    await until(lambda: "up" in (tmp_path / "log").read_text())
    started = int((tmp_path / "log").read_text().split()[0])
    assert alive(started)

    child.signal(signal.SIGKILL)

    await until(lambda: not alive(started))
    await child.stop()
    await supervision


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
