"""One supervised process: started again when it dies, ended politely and then not.

Its output goes to a log file, or to ours. Its stdin is a pipe that only we hold open: it closes when we die, however
that happens, and `saga.runtime.app` then ends the child.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import msgspec

from saga.runtime.app import EXIT_START
from saga.runtime.log import get_logger

FIRST_BACKOFF_S = 0.2
LONGEST_BACKOFF_S = 5.0
HEALTHY_AFTER_S = 10.0
_TAIL_BYTES = 4096
log = get_logger()


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. Processes with a lower `stop_rank` are ended first; equal ones together."""

    name: str
    argv: tuple[str, ...]
    env: dict[str, str] = {}
    stop_rank: int = 0
    grace_s: float = 5.0  # between SIGTERM and SIGKILL


class Child:
    """One process of a mesh through its lives."""

    def __init__(self, spec: ProcessSpec, log_file: Path | None, environ: Mapping[str, str]) -> None:
        """No log file: its output is this process's own."""
        self.spec = spec
        self.log_file = log_file
        self.exits: list[int] = []  # exit codes of its lives so far; negative: the signal
        self._environ = {**environ, **spec.env}
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of the running process; None between two lives."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def start(self) -> None:
        """Begins a life."""
        with contextlib.ExitStack() as stack:
            output = None if self.log_file is None else stack.enter_context(self.log_file.open("ab"))
            self._process = await asyncio.create_subprocess_exec(
                *self.spec.argv,
                env=self._environ,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C in the terminal is for the supervisor, who stops in order
            )

    async def supervise(self) -> None:
        """Starts it again whenever it dies, at first at once, then ever later; returns when `stop` has ended it."""
        loop = asyncio.get_running_loop()
        backoff_s = 0.0
        while self._process is not None:
            if self._stopping.is_set():  # asked to stop while a new life began
                self.signal(signal.SIGTERM)
            started_s = loop.time()
            code = await self._process.wait()
            self._end_left_behind(self._process.pid)
            if self._stopping.is_set():
                break
            self.exits.append(code)
            if loop.time() - started_s > HEALTHY_AFTER_S:
                backoff_s = 0.0
            if self.exits != [EXIT_START]:  # that is for Mesh.wait_ready to say
                says = self.last_words()
                log.warning("child.exited", child=self.spec.name, code=code, restart_in_s=backoff_s, says=says)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff_s):
                    await self._stopping.wait()
            if self._stopping.is_set():
                break
            backoff_s = min(max(FIRST_BACKOFF_S, 2 * backoff_s), LONGEST_BACKOFF_S)
            await self.start()
        self._ended.set()

    async def stop(self, grace_s: float | None = None) -> None:
        """SIGTERM, then SIGKILL after the grace; no new life. Returns when it is gone."""
        self._stopping.set()
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self.spec.grace_s if grace_s is None else grace_s):
                await self._ended.wait()
        except TimeoutError:
            log.warning("child.killed", child=self.spec.name, detail="did not stop in time")
            self.signal(signal.SIGKILL)
            await self._ended.wait()

    def abandon(self) -> None:
        """SIGKILL without waiting, for a supervisor that is itself being ended."""
        self._stopping.set()
        self.signal(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Sends a signal if the process is there."""
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    @staticmethod
    def _end_left_behind(group: int) -> None:
        """What a dead child had started itself and left: an engine's own processes would hold its GPU and its ports."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)

    def last_words(self) -> str:
        """The last line it wrote; empty if none."""
        if self.log_file is None:
            return ""
        with contextlib.suppress(OSError), self.log_file.open("rb") as output:
            output.seek(max(0, output.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = output.read().decode(errors="replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""
