"""The one way to live: `run(serve, name="...")` in a service's `__main__`.

Signals only set `app.stopping`; every task has a name and lives in one TaskGroup; a task that dies ends the process
with 1, a StartError ends it with 2 and one line on stderr, a `serve` that returns ends it with 0. A supervised child
(SAGA_SUPERVISED=1) also stops when its stdin closes, which is how it learns that its supervisor was killed.
"""

import asyncio
import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, NoReturn, TypeVar

import uvloop

from saga.runtime import config, log, metrics
from saga.runtime.bus import Bus
from saga.runtime.bus_nats import NatsBus
from saga.runtime.descriptors import lift_file_limit
from saga.runtime.errors import StartError
from saga.runtime.nats_access import access_of

SUPERVISED = "SAGA_SUPERVISED"
ORPHAN_GRACE_S = 10.0  # a child whose supervisor has vanished ends itself after this
TURNS_WITHIN_S = 2.0  # an event loop that takes longer is stuck: /healthz says so
EXIT_DIED = 1
EXIT_START = 2
EXIT_FORCED = 128 + signal.SIGTERM
_FORCED_BY_SIGNALS = 3
T = TypeVar("T")


class App:
    """A running process: its shared settings, its stop event, its tasks. Made by `run`."""

    def __init__(self, name: str, shared: config.Shared, group: asyncio.TaskGroup) -> None:
        self.name = name
        self.shared = shared
        self.stopping = asyncio.Event()
        self._group = group
        self._tasks: set[asyncio.Task[Any]] = set()
        self._signals = 0

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Runs `work` as a task of this process. If it raises, the process ends; at the end it is cancelled."""
        task = self._group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def connect(self) -> Bus:
        """Connects to the cell's NATS and attaches the bus. Raises StartError within 3 s."""
        shared = self.shared
        bus = await NatsBus.connect(
            shared.nats_url,
            name=self.name,
            cell=shared.cell,
            replicas=shared.nats_replicas,
            access=access_of(shared),
        )
        self.attach(bus)
        return bus

    def attach(self, bus: Bus) -> None:
        """A handler that raises on this bus ends the process."""
        self.spawn(_fail_with(bus), name="bus")

    async def stop_or(self, work: Awaitable[T]) -> T | None:
        """The result of `work`, or None as soon as the process is told to stop (`work` is cancelled then)."""
        doing = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({doing, stop}, return_when=asyncio.FIRST_COMPLETED)
            return doing.result() if doing.done() else None
        finally:
            for task in (doing, stop):
                task.cancel()
            await asyncio.gather(doing, stop, return_exceptions=True)

    def cancel_all(self) -> None:
        """Ends what was spawned."""
        for task in list(self._tasks):
            task.cancel()

    @property
    def forced(self) -> bool:
        """Whether a second signal came: stop now, not in order."""
        return self._signals > 1

    def on_signal(self, number: int, serving: "asyncio.Task[None]") -> None:
        """First: stop in order. Second: stop at once. Third: gone."""
        self._signals += 1
        self.stopping.set()
        if self._signals >= _FORCED_BY_SIGNALS:
            os._exit(128 + number)
        if self.forced:
            serving.cancel()


def run(serve: Callable[[App], Awaitable[None]], *, name: str) -> NoReturn:
    """Runs `serve(app)` until it returns, is told to stop, or dies; always raises SystemExit with the exit code."""
    lift_file_limit()
    try:
        shared = config.load_shared()
        log.configure(name, style=shared.log, level=shared.log_level)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            code = runner.run(_live(serve, name, shared))
    except StartError as error:
        code = _refuse(name, error)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    raise SystemExit(code)


async def _live(serve: Callable[[App], Awaitable[None]], name: str, shared: config.Shared) -> int:
    try:
        async with asyncio.TaskGroup() as group:
            app = App(name, shared, group)
            await _serve(serve, app)
    except BaseExceptionGroup as group_error:
        errors = list(_leaves(group_error))
        for error in errors:
            if isinstance(error, StartError):
                return _refuse(name, error)
        for error in errors:
            log.get_logger().error("process.died", error=repr(error), exc_info=error)
        return EXIT_DIED
    return EXIT_FORCED if app.forced else 0


async def _serve(serve: Callable[[App], Awaitable[None]], app: App) -> None:
    async def serving_() -> None:
        await serve(app)

    serving = app.spawn(serving_(), name="serve")
    with _signals_of(app, serving), _metrics_of(app), _tether(app, serving):
        try:
            await asyncio.wait({serving})
        finally:
            app.cancel_all()


@contextlib.contextmanager
def _signals_of(app: App, serving: "asyncio.Task[None]") -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, app.on_signal, number, serving)
    try:
        yield
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


@contextlib.contextmanager
def _metrics_of(app: App) -> Iterator[None]:
    if app.shared.metrics_port < 0:
        yield
        return
    try:
        turns = functools.partial(_turns, asyncio.get_running_loop())
        server = metrics.serve_metrics(app.shared.metrics_port, app.shared.metrics_host, turns)
    except OSError as error:
        where = f"SAGA_METRICS_HOST={app.shared.metrics_host}, SAGA_METRICS_PORT={app.shared.metrics_port}"
        raise StartError(f"{where}: {error.strerror}") from error
    log.get_logger().info("metrics.serving", port=server.port)
    try:
        yield
    finally:
        server.close()


def _turns(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the event loop does what it is given, asked from another thread."""
    done = threading.Event()
    loop.call_soon_threadsafe(done.set)
    return done.wait(TURNS_WITHIN_S)


@contextlib.contextmanager
def _tether(app: App, serving: "asyncio.Task[None]") -> Iterator[None]:
    """Ties a supervised process to its supervisor: the read end of a pipe that only the supervisor holds open."""
    if os.environ.get(SUPERVISED) != "1":
        yield
        return
    loop = asyncio.get_running_loop()
    stdin = sys.stdin.fileno()

    def on_stdin() -> None:
        if os.read(stdin, 4096):
            return
        loop.remove_reader(stdin)
        app.stopping.set()
        loop.call_later(ORPHAN_GRACE_S, serving.cancel)
        loop.call_later(2 * ORPHAN_GRACE_S, os._exit, EXIT_DIED)

    loop.add_reader(stdin, on_stdin)
    try:
        yield
    finally:
        loop.remove_reader(stdin)


async def _fail_with(bus: Bus) -> None:
    await asyncio.shield(bus.failed)


def _refuse(name: str, error: BaseException) -> int:
    sys.stderr.write(f"saga {name}: {error}\n")
    return EXIT_START


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error
