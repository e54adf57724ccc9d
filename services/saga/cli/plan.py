"""Which processes make a mesh, and what each is told: settings to a list of ProcessSpecs. Starts nothing."""

import contextlib
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from random import Random

import msgspec

from saga.cli.child import ProcessSpec
from saga.runtime.errors import StartError

HOST = "127.0.0.1"
# Below the range from which systems take ports for outgoing connections: an engine that is down for a moment must find
# its port free.
_PORTS = range(20_000, 32_000)
_PORT_TRIES = 200

STOP_ORDER = ("gateway", "console", "admission", "placement", "graph", "worker", "engine")  # then NATS
GRACE_S = 5.0
GATEWAY_GRACE_S = 25.0  # it finishes the requests in flight

SAGA = {"SAGA_ADMISSION_POLICY": "saga", "SAGA_PLACEMENT_POLICY": "saga", "SAGA_WORKER_RETENTION": "saga"}
# What lets everybody run and leaves the queue to the engines, which then start what is cached longest first: with their
# own default these systems would be far slower (docs/evaluation.md).
ROUTER = {"SAGA_ADMISSION_POLICY": "open", "SAGA_WORKER_RETENTION": "lru", "SAGA_ENGINE_SCHEDULE": "lpm"}
# Systems of the laboratory, by the same names: the policy of each decision point, by the setting that chooses it.
SYSTEMS: dict[str, dict[str, str]] = {
    "saga": SAGA,
    "saga-no-tags": SAGA | {"SAGA_WORKER_RETENTION": "lru"},
    "saga-no-forecasts": SAGA | {"SAGA_GRAPH_FORECAST": "defaults"},
    **{
        router: ROUTER | {"SAGA_PLACEMENT_POLICY": router}
        for router in ("round-robin", "least-loaded", "prefix-aware", "session-affinity")
    },
}


class MeshSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a mesh is made of."""

    workers: int = 4
    gateways: int = 1
    profile: str = "h100x1-llama3-8b"  # of every engine
    speed: float = 1.0  # engine seconds per real second
    shrink: int = 1  # divides lengths, KV and rates
    page_tokens: int = 0  # of the KV; 0: the profile's
    system: str = "saga"
    admission_policy: str = ""  # overrides the system's; so do the next two
    placement_policy: str = ""
    retention_policy: str = ""
    tenants: Path | None = None  # TOML of API keys
    live_keys: bool = False  # those of `saga keys`
    gateway_port: int = 0  # of the first gateway; 0: any free one
    console_port: int | None = None  # the same; None: no console
    state_dir: Path = Path(".saga")
    nats_url: str = ""  # of a server that runs already; empty: the mesh brings its own
    cell: str = "main"
    leaders: int = 2  # processes each of admission and placement: one leads, the others stand by
    env: dict[str, dict[str, str]] = {}  # more environment, by service
    ready_within_s: float = 60.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The processes of a mesh (NATS apart) and where they listen."""

    specs: tuple[ProcessSpec, ...]
    gateway_url: str
    engine_urls: tuple[str, ...]
    console_url: str = ""  # empty: there is none
    more_gateway_urls: tuple[str, ...] = ()  # of the others, where there are several


def plan(settings: MeshSettings, random: Random | None = None) -> Plan:
    """Decides on processes and ports. Raises StartError for an unknown system or a number that makes no mesh."""
    if min(settings.workers, settings.leaders, settings.gateways) < 1:
        raise StartError("a mesh needs at least one worker, one admission, one placement and one gateway")
    policies = _policies(settings)
    ports = free_ports(settings.workers + settings.gateways + 1, random or Random())
    gateway_ports = [ports.pop() for _ in range(settings.gateways)]
    gateway_ports[0] = settings.gateway_port or gateway_ports[0]
    engines = [f"http://{HOST}:{port}" for port in ports[: settings.workers]]
    specs = []
    for number, url in enumerate(engines):
        specs.append(_service("engine", f"engine-{number}", settings, _engine_env(settings, url) | policies["engine"]))
        worker_env = {
            "SAGA_WORKER_ID": f"w{number}",
            "SAGA_WORKER_ENGINE_URL": url,
            "SAGA_WORKER_JOURNAL": str(settings.state_dir.absolute() / f"worker-{number}.journal"),
        }
        specs.append(_service("worker", f"worker-{number}", settings, worker_env | policies["worker"]))
    specs.append(_service("graph", "graph", settings, policies["graph"]))
    for service in ("admission", "placement"):
        specs += [
            _service(
                service,
                f"{service}-{number}",
                settings,
                policies[service] | {f"SAGA_{service.upper()}_ID": f"{service}-{number}"},
            )
            for number in range(settings.leaders)
        ]
    gateway_env = {}
    if settings.tenants is not None:
        gateway_env["SAGA_GATEWAY_TENANTS"] = str(settings.tenants.absolute())
    if settings.live_keys:
        gateway_env["SAGA_GATEWAY_LIVE_KEYS"] = "true"
    for number, port in enumerate(gateway_ports):
        name = "gateway" if settings.gateways == 1 else f"gateway-{number}"
        specs.append(_service("gateway", name, settings, gateway_env | {"SAGA_GATEWAY_PORT": str(port)}))
    console_url = ""
    if settings.console_port is not None:
        console_port = settings.console_port or ports.pop()
        specs.append(_service("console", "console", settings, {"SAGA_CONSOLE_PORT": str(console_port)}))
        console_url = f"http://{HOST}:{console_port}"
    gateways = [f"http://{HOST}:{port}" for port in gateway_ports]
    return Plan(
        specs=tuple(specs),
        gateway_url=gateways[0],
        more_gateway_urls=tuple(gateways[1:]),
        engine_urls=tuple(engines),
        console_url=console_url,
    )


def free_or_any(port: int) -> int:
    """The port, or 0 when somebody listens there already."""
    with contextlib.suppress(OSError), socket.create_server((HOST, port)):
        return port
    return 0


def free_ports(count: int, random: Random) -> list[int]:
    """Ports that nobody listens on right now. Raises StartError if there are too few."""
    found: list[int] = []
    for port in random.sample(_PORTS, _PORT_TRIES + count):
        with contextlib.suppress(OSError), socket.create_server((HOST, port)):
            found.append(port)
        if len(found) == count:
            return found
    raise StartError(f"no {count} free ports on {HOST} between {_PORTS.start} and {_PORTS.stop}")


def _policies(settings: MeshSettings) -> dict[str, dict[str, str]]:
    """Policy settings by service."""
    system = SYSTEMS.get(settings.system)
    if system is None:
        raise StartError(f"unknown system {settings.system!r}; known are {', '.join(sorted(SYSTEMS))}")
    chosen = {
        "SAGA_ADMISSION_POLICY": settings.admission_policy,
        "SAGA_PLACEMENT_POLICY": settings.placement_policy,
        "SAGA_WORKER_RETENTION": settings.retention_policy,
    }
    merged = system | {name: value for name, value in chosen.items() if value}
    return {
        service: {name: value for name, value in merged.items() if name.startswith(f"SAGA_{service.upper()}_")}
        for service in ("admission", "engine", "graph", "placement", "worker")
    }


def _engine_env(settings: MeshSettings, url: str) -> dict[str, str]:
    env = {
        "SAGA_ENGINE_PORT": url.rsplit(":", 1)[1],
        "SAGA_ENGINE_PROFILE": settings.profile,
        "SAGA_ENGINE_SPEED": str(settings.speed),
        "SAGA_ENGINE_SHRINK": str(settings.shrink),
    }
    if settings.page_tokens:
        env["SAGA_ENGINE_PAGE_TOKENS"] = str(settings.page_tokens)
    return env


def _service(service: str, name: str, settings: MeshSettings, env: Mapping[str, str]) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-m", f"saga.{service}"),
        env={**env, **settings.env.get(service, {})},
        stop_rank=STOP_ORDER.index(service),
        grace_s=GATEWAY_GRACE_S if service == "gateway" else GRACE_S,
    )
