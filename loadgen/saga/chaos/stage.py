"""The mesh that faults are done to: two gateways, leaders with standbys, simulated engines, NATS, two tenants.

Everything here is asked from outside: signals to processes, metrics over HTTP, leases of leaders in JetStream KV.
"""

import asyncio
import contextlib
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, TypeVar

import aiohttp
import msgspec
from msgspec import Struct

from saga.chaos.fences import FenceLog
from saga.cli.mesh import Mesh, MeshSettings
from saga.cli.plan import HOST, Plan, plan
from saga.contract.messages import StepFinished
from saga.contract.subjects import Subjects, kv_bucket
from saga.load.mesh_metrics import ANY_PORT, metrics_of
from saga.runtime.bus_nats import NatsBus
from saga.runtime.errors import StartError
from saga.runtime.leader import Lease

KEYS: Final = {"red": "sk-chaos-red", "blue": "sk-chaos-blue"}
LED: Final = ("admission", "placement")
PAGE_TOKENS: Final = 16
PROFILE: Final = "h100x1-llama3-8b"
NATS_WITHIN_S: Final = 60.0
LEASE_ENDS: Final = ("finished", "aborted", "expired", "orphaned")

Rewrite = Callable[[Plan], Plan]
T = TypeVar("T")


class Size(Struct, frozen=True):
    """Of the mesh. `slots`: of each engine; few, so that tenants have to share."""

    workers: int = 3
    gateways: int = 2
    slots: int = 4


class LeaseCount(Struct, frozen=True):
    """What one placement process says of leases since it was born."""

    granted: int
    ended: int
    live: int


class Idle(Struct, frozen=True, kw_only=True):
    """What is left while nobody asks for anything."""

    leases: dict[str, LeaseCount]  # by placement process
    agent_leases: dict[str, int]  # by worker agent
    steps_at_admission: int
    leading: dict[str, list[str]]  # processes that say they lead, by service
    resident_bytes: dict[str, int]  # by process
    pids: dict[str, int]

    @property
    def leaked(self) -> int:
        """Leases and steps that belong to nobody, and leases whose end nobody counted."""
        lost = sum(abs(count.granted - count.ended - count.live) for count in self.leases.values())
        live = sum(count.live for count in self.leases.values())
        return lost + live + sum(self.agent_leases.values()) + self.steps_at_admission


class Stage:
    """A mesh that runs, and questions to it."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self._props: dict[type, object] = {}
        self._hosts: dict[str, str] = {}  # where a process serves its metrics, if not here
        self.asked_to_die: Counter[str] = Counter()  # our kills, by process

    def put(self, prop: object) -> None:
        """Something that faults of this scene play with; one of a kind."""
        self._props[type(prop)] = prop

    def prop(self, kind: type[T]) -> T:
        """The one of this kind. Raises LookupError where the scene has none."""
        if isinstance(found := self._props.get(kind), kind):
            return found
        raise LookupError(f"this scene has no {kind.__name__}")

    def moved(self, process: str, host: str) -> None:
        """The process serves its metrics there."""
        self._hosts[process] = host

    @property
    def gateway_urls(self) -> list[str]:
        """Of all gateways, by number."""
        return self.mesh.gateway_urls

    # --- what is done to it ------------------------------------------------------------------------------------

    def kill(self, *names: str) -> None:
        """SIGKILL, all at once; the supervisor starts them again."""
        for name in names:
            self.asked_to_die[name] += 1
            self.mesh.kill(name)

    def stop(self, name: str) -> int:
        """SIGSTOP; returns the pid."""
        return self.mesh.kill(name, signal.SIGSTOP)

    @staticmethod
    def go_on(pid: int) -> None:
        """SIGCONT, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    # --- what it is asked --------------------------------------------------------------------------------------

    async def leader_of(self, service: str) -> str:
        """Name of the process that leads. Raises LookupError when nobody does."""
        async with self._bus() as bus:
            entry = await (await bus.kv(kv_bucket(self.mesh.settings.cell, "leaders"))).get(service)
        if entry is None:
            raise LookupError(f"nobody leads {service}")
        return msgspec.msgpack.decode(entry.value, type=Lease).holder

    async def standby_of(self, service: str) -> str:
        """Name of a process that could lead and does not."""
        leader = await self.leader_of(service)
        return next(name for name in self.named(service) if name != leader)

    def named(self, service: str) -> list[str]:
        """Processes of a service that run, in the order of their numbers."""
        return sorted(n for n in self.mesh.processes if n == service or n.startswith(f"{service}-"))

    async def leading(self) -> dict[str, list[str]]:
        """By service, the processes that say they lead."""
        said: dict[str, list[str]] = {}
        for service in LED:
            said[service] = []
            for name in self.named(service):
                if (await self._metrics(name)).get(f"saga_{service}_leading") == 1:
                    said[service].append(name)
        return said

    async def idle(self) -> Idle:
        """What is left now. Raises OSError or LookupError while a process does not answer."""
        leases, steps, resident = {}, 0, {}
        for name in self.named("placement"):
            told = await self._metrics(name)
            ended = sum(int(told[f"saga_leases_{end}"]) for end in LEASE_ENDS)
            leases[name] = LeaseCount(int(told["saga_leases_granted"]), ended, int(told["saga_leases_live"]))
        for name in self.named("admission"):
            steps += int((await self._metrics(name))["saga_admission_steps"])
        agents = {name: int((await self._metrics(name))["saga_worker_leases"]) for name in self.named("worker")}
        pids = self.mesh.processes
        for name, pid in pids.items():
            resident[name] = _resident_bytes(pid)
        return Idle(
            leases=leases,
            agent_leases=agents,
            steps_at_admission=steps,
            leading=await self.leading(),
            resident_bytes=resident,
            pids=pids,
        )

    async def idle_within(self, within_s: float) -> Idle:
        """What is left when all leases are back; what is left after that time, if they do not come back."""
        last: Idle | None = None
        why: Exception | None = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while last is None or last.leaked or any(len(names) != 1 for names in last.leading.values()):
                    await asyncio.sleep(0.25)
                    try:
                        last = await self.idle()
                    except (OSError, aiohttp.ClientError, LookupError) as error:  # it was just born
                        why = error
        if last is None:
            raise StartError(f"the mesh cannot be asked: {why!r}")
        return last

    @contextlib.asynccontextmanager
    async def fences(self) -> AsyncIterator[FenceLog]:
        """What is heard of them meanwhile."""
        log = FenceLog()
        async with self._bus() as bus:
            await log.listen(bus, self.mesh.settings.cell)
            yield log

    async def finished(self, since_s: float) -> Counter[str]:
        """How often each step finished in the last seconds, as the stream of step ends has it."""
        async with self._bus() as bus:
            ends = await bus.replay(Subjects(self.mesh.settings.cell).every_step_end(), since_s)
        return Counter(end.step_id for end in ends if isinstance(end, StepFinished))

    async def whole(self, within_s: float) -> None:
        """Returns when every process is there and the gateways are ready. Raises StartError."""
        await self.mesh.wait_ready(within_s)

    async def _metrics(self, process: str) -> dict[str, float]:
        async with asyncio.timeout(5.0):
            return await metrics_of(self.mesh, process, self._hosts.get(process, HOST))

    @contextlib.asynccontextmanager
    async def _bus(self) -> AsyncIterator[NatsBus]:
        """A connection of our own, as soon as NATS is there. Raises StartError when it stays away."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + NATS_WITHIN_S
        while True:
            try:
                bus = await NatsBus.connect(self.mesh.nats_url, name="chaos", cell=self.mesh.settings.cell)
                break
            except StartError:
                if loop.time() > until_s:
                    raise
                await asyncio.sleep(0.1)
        try:
            yield bus
        finally:
            await bus.close()


@contextlib.asynccontextmanager
async def staged(
    size: Size, folder: Path, rewrite: Rewrite | None = None, nats_url: "NatsUrl | None" = None
) -> AsyncIterator[Stage]:
    """A stage in this folder, ready. `rewrite`: changes how its processes are started; `nats_url`: is told where NATS
    is as soon as that is known. Raises StartError."""
    tenants = _tenants_file(folder)
    settings = MeshSettings(
        workers=size.workers,
        gateways=size.gateways,
        profile=PROFILE,
        page_tokens=PAGE_TOKENS,
        tenants=tenants,
        state_dir=folder,
        ready_within_s=120.0,
        env=dict.fromkeys(("admission", "placement", "graph", "worker"), ANY_PORT)
        | {"engine": {"SAGA_ENGINE_MAX_RUNNING": str(size.slots)}},
    )
    planned = plan(settings)
    mesh = Mesh(settings, processes=rewrite(planned) if rewrite else planned)
    if nats_url is not None:
        nats_url.ask = lambda: mesh.nats_url
    async with mesh:
        yield Stage(mesh)


class NatsUrl:
    """Of a mesh that is still to be started."""

    def __init__(self) -> None:
        self.ask: Callable[[], str] = str

    def __call__(self) -> str:
        """The URL. Raises OSError while there is none."""
        if not (url := self.ask()):
            raise ConnectionRefusedError("NATS has not been started")
        return url


def _tenants_file(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tenants.toml"
    path.write_text("".join(f'[tenants.{name}]\nkeys = ["{key}"]\n' for name, key in KEYS.items()))
    return path


def _resident_bytes(pid: int) -> int:
    """Of a process, from /proc; 0 when it has gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
