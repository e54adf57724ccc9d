"""A whole mesh as children of this process: `async with Mesh(MeshSettings(...)) as mesh`.

Used by `saga up`, by the load generator and by the failure tests, which kill its processes one by one. Entering returns
once the gateway is ready; leaving ends exactly what was started, gateway first, NATS last.
"""

import asyncio
import contextlib
import fcntl
import itertools
import os
import signal
from collections.abc import Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from saga.cli.child import Child
from saga.cli.plan import MeshSettings, Plan, plan
from saga.cli.probe import ready_answer, workers
from saga.runtime.app import EXIT_START, SUPERVISED
from saga.runtime.errors import StartError
from saga.runtime.log import get_logger
from saga.runtime.nats_server import NatsServer

__all__ = ["Mesh", "MeshSettings"]

NATS = "nats"
POLL_EVERY_S = 0.05
HURRIED_GRACE_S = 0.5
_HOPELESS_EXITS = 3  # lives of one child that ended before the mesh was ready
log = get_logger()


class Mesh:
    """The processes of one mesh. Failure tests use `processes` and `kill`."""

    def __init__(
        self, settings: MeshSettings, *, processes: Plan | None = None, environ: Mapping[str, str] | None = None
    ) -> None:
        """`processes` replaces what the settings would start (NATS apart). Raises StartError for bad settings."""
        self.settings = settings
        self.state_dir = settings.state_dir.absolute()
        self.log_dir = self.state_dir / "logs"
        self.nats_url = settings.nats_url
        self._plan = processes or plan(settings)
        self._environ = dict(os.environ if environ is None else environ)
        self._children: dict[str, Child] = {}
        self._nats: NatsServer | None = None
        self._supervision: list[asyncio.Task[None]] = []
        self._lock_file: int | None = None
        self._was_ready = False

    @property
    def gateway_url(self) -> str:
        """Where clients go."""
        return self._plan.gateway_url

    @property
    def gateway_urls(self) -> list[str]:
        """Of all gateways: any of them serves any client."""
        return [self._plan.gateway_url, *self._plan.more_gateway_urls]

    @property
    def console_url(self) -> str:
        """Where people look; empty: nowhere."""
        return self._plan.console_url

    @property
    def engine_urls(self) -> list[str]:
        """In the order of the workers; an engine that is started again keeps its URL."""
        return list(self._plan.engine_urls)

    @property
    def processes(self) -> dict[str, int]:
        """Name to pid of what runs now."""
        running = {name: child.pid for name, child in self._children.items()}
        if self._nats is not None:
            running[NATS] = self._nats.running_pid
        return {name: pid for name, pid in running.items() if pid is not None}

    @property
    def restarts(self) -> dict[str, int]:
        """Name to number of lives that ended unasked."""
        return {name: len(child.exits) for name, child in self._children.items()}

    def kill(self, name: str, number: int = signal.SIGKILL) -> int:
        """Sends a signal to a process of the mesh, which is started again if it dies. KeyError if it does not run."""
        pid = self.processes[name]
        os.kill(pid, number)
        return pid

    async def wait_ready(self, within_s: float | None = None) -> None:
        """Returns when each gateway is ready and knows every engine. Raises StartError with the reason otherwise."""
        within_s = self.settings.ready_within_s if within_s is None else within_s
        answer = ""
        try:
            async with asyncio.timeout(within_s):
                while (answer := await self._missing()) != "":
                    self._raise_if_hopeless()
                    await asyncio.sleep(POLL_EVERY_S)
                self._raise_if_hopeless()
                self._was_ready = True
        except TimeoutError as error:
            raise StartError(f"the mesh is not ready after {within_s:g} s: {answer} (logs: {self.log_dir})") from error

    async def __aenter__(self) -> Self:
        """Starts everything. Raises StartError; then nothing runs."""
        try:
            self._lock()
            await self._start()
            await self.wait_ready()
        except BaseException:
            await self._stop(HURRIED_GRACE_S)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends everything; without much patience when cancelled."""
        await self._stop(HURRIED_GRACE_S if kind is not None and issubclass(kind, asyncio.CancelledError) else None)

    async def _start(self) -> None:
        self.log_dir.mkdir(parents=True, exist_ok=True)
        if not self.nats_url:
            self._nats = NatsServer(self.state_dir / "nats", log_file=self._log_file(NATS))
            await self._nats.start()
            self.nats_url = self._nats.url
            self._watch(self._nats.keep_up(), NATS)
        environ = self._environ | {"SAGA_NATS_URL": self.nats_url, "SAGA_CELL": self.settings.cell, SUPERVISED: "1"}
        environ.pop("SAGA_METRICS_PORT", None)  # one port cannot be everybody's
        for spec in self._plan.specs:
            child = Child(spec, self._log_file(spec.name), environ)
            await child.start()
            self._children[spec.name] = child
            self._watch(child.supervise(), spec.name)

    async def _stop(self, grace_s: float | None) -> None:
        """In order of rank, NATS last. If even that is cut short, nothing is left running."""
        by_rank = sorted(self._children.values(), key=lambda child: child.spec.stop_rank)
        try:
            for _rank, children in itertools.groupby(by_rank, key=lambda child: child.spec.stop_rank):
                await asyncio.gather(*(child.stop(grace_s) for child in children))
            if self._nats is not None:
                await self._nats.stop()
        finally:
            for child in self._children.values():
                child.abandon()
            for task in self._supervision:
                task.cancel()
            await asyncio.gather(*self._supervision, return_exceptions=True)
            if self._nats is not None:
                await self._nats.kill()
            self._unlock()

    def _watch(self, supervision: Coroutine[object, object, None], name: str) -> None:
        self._supervision.append(asyncio.create_task(supervision, name=f"supervise {name}"))

    async def _missing(self) -> str:
        """Empty when the mesh is whole; else what it waits for."""
        wanted = len(self._plan.engine_urls)
        for url in self.gateway_urls:
            if answer := await ready_answer(url):
                return answer
            if (joined := await workers(url)) < wanted:
                return f"{joined} of {wanted} engines have joined"
        return ""

    def _raise_if_hopeless(self) -> None:
        if self._was_ready:  # deaths of later on are accidents: what starts again comes back
            return
        for name, child in self._children.items():
            if EXIT_START in child.exits:
                raise StartError(child.last_words() or f"{name} cannot start (log: {child.log_file})")
        for name, child in self._children.items():
            if len(child.exits) >= _HOPELESS_EXITS:
                raise StartError(f"{name} keeps dying: {child.last_words()} (log: {child.log_file})")

    def _log_file(self, name: str) -> Path:
        """An empty log for this run; the one of the last run is kept beside it."""
        path = self.log_dir / f"{name}.log"
        with contextlib.suppress(FileNotFoundError):
            path.replace(path.with_suffix(".log.1"))
        return path

    def _lock(self) -> None:
        """Two meshes on one state directory would share a JetStream store."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self._lock_file = os.open(self.state_dir / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StartError(f"another mesh runs in {self.state_dir}: stop it or choose another --state-dir") from error

    def _unlock(self) -> None:
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None
