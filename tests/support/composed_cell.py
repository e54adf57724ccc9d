"""A cell started by docker-compose on an engine of the tests' own, and what tests do to it: look, scale, kill."""

import json
import os
import re
import signal
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from docker_engine import DockerEngine

METRICS_PORT: Final = 9464
ANSWER_WITHIN_S: Final = 5.0
HEALTHY_WITHIN_S: Final = 300.0


class _Health(msgspec.Struct, frozen=True, rename="pascal"):
    status: str = ""


class _State(msgspec.Struct, frozen=True, rename="pascal"):
    pid: int = 0
    running: bool = False
    exit_code: int = 0
    health: _Health = _Health()


class _Network(msgspec.Struct, frozen=True):
    address: str = msgspec.field(name="IPAddress", default="")


class _Published(msgspec.Struct, frozen=True):
    host: str = msgspec.field(name="HostIp", default="")
    port: str = msgspec.field(name="HostPort", default="")


class _Networking(msgspec.Struct, frozen=True, rename="pascal"):
    networks: dict[str, _Network] = {}
    ports: dict[str, list[_Published] | None] = {}


class _Host(msgspec.Struct, frozen=True, rename="pascal"):
    readonly_rootfs: bool = False
    memory: int = 0
    nano_cpus: int = 0
    cap_drop: list[str] | None = None
    privileged: bool = False


class _Made(msgspec.Struct, frozen=True, rename="pascal"):
    user: str = ""
    labels: dict[str, str] = {}
    stop_timeout: int = 10


class Container(msgspec.Struct, frozen=True, rename="pascal"):
    """What the engine says of a container."""

    id: str
    name: str
    state: _State
    network_settings: _Networking
    host_config: _Host
    config: _Made
    restart_count: int = 0

    @property
    def service(self) -> str:
        """Its service in the compose file."""
        return self.config.labels["com.docker.compose.service"]

    @property
    def address(self) -> str:
        """Where it is reached from inside the network; empty while it does not run."""
        return next((network.address for network in self.network_settings.networks.values()), "")

    @property
    def published(self) -> list[tuple[str, int]]:
        """Host and port of all that is published."""
        found = [place for places in self.network_settings.ports.values() for place in places or []]
        return [(place.host, int(place.port)) for place in found]


class ComposedCell:
    """One compose project. `up` first, `down` last."""

    def __init__(
        self, engine: DockerEngine, tree: Path, project: str, environ: dict[str, str], variants: tuple[str, ...] = ()
    ) -> None:
        """`variants`: files that are laid over docker-compose.yml."""
        assert engine.network is not None
        self.project = project
        self.network = engine.network
        self._engine = engine
        self._environ = environ
        files = ("docker-compose.yml", *variants)
        self._argv = ["docker-compose", "--project-name", project, "--project-directory", str(tree)]
        self._argv += [part for name in files for part in ("--file", str(tree / name))]

    def compose(self, *args: str) -> str:
        """What `docker-compose ARGS` prints. Raises RuntimeError with its last lines."""
        return self._engine.client(*self._argv, *args, environ=self._environ)

    def up(self, **scale: int) -> None:
        """Starts it, or brings it to this scale; returns when everything is healthy."""
        wanted = [part for service, number in scale.items() for part in ("--scale", f"{service}={number}")]
        self.compose("up", "--detach", "--no-build", *wanted)
        self.wait_healthy()

    def down(self) -> None:
        """Ends it and removes its data."""
        self.compose("down", "--volumes", "--remove-orphans")

    def containers(self, *services: str) -> list[Container]:
        """Those of these services (none: of all), by name; also those that have ended."""
        label = f"--filter=label=com.docker.compose.project={self.project}"
        ids = self._engine.docker("ps", "--all", "--quiet", "--no-trunc", label).split()
        if not ids:
            return []
        found = msgspec.json.decode(self._engine.docker("inspect", *ids), type=list[Container])
        wanted = [one for one in found if not services or one.service in services]
        return sorted(wanted, key=lambda one: one.name)

    def kill(self, container: Container) -> None:
        """SIGKILL to its first process, as in a crash: the engine's own `kill` would keep it down."""
        os.kill(container.state.pid, signal.SIGKILL)

    def wait_healthy(self, within_s: float = HEALTHY_WITHIN_S) -> float:
        """Returns when all health checks pass, and the seconds it took. AssertionError with those that do not."""

        def sick() -> str:
            ill = [one for one in self.containers() if not one.state.running or one.state.health.status != "healthy"]
            return ", ".join(f"{one.name} {one.state.health.status} (exit {one.state.exit_code})" for one in ill)

        return until(lambda: sick() == "", within_s, lambda: f"{sick()}\n{self.logs()}")

    def logs(self) -> str:
        """The last of what everybody said."""
        return self.compose("logs", "--no-color", "--tail=15")

    def get(self, url: str) -> tuple[int, str]:
        """Status and body of a GET from inside the network; status 0 when nobody answers."""

        def ask() -> tuple[int, str]:
            try:
                with urllib.request.urlopen(url, timeout=ANSWER_WITHIN_S) as answer:
                    return answer.status, answer.read().decode()
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()
            except OSError as error:
                return 0, str(error)

        return self.network.run(ask)

    def gateway_urls(self) -> list[str]:
        """Where the gateways are published."""
        return [f"http://{host}:{port}" for one in self.containers("gateway") for host, port in one.published]

    def workers(self) -> int:
        """How many the first gateway knows; 0 when it does not answer."""
        status, body = self.get(f"{self.gateway_urls()[0]}/v1/models")
        return sum(model["saga"]["workers"] for model in json.loads(body)["data"]) if status == 200 else 0

    def metric(self, container: Container, name: str) -> float:
        """Of a service that has no HTTP of its own; not a number while it does not answer."""
        status, body = self.get(f"http://{container.address}:{METRICS_PORT}/metrics")
        found = re.search(rf"^{name} (\S+)$", body, re.MULTILINE) if status == 200 else None
        return float(found[1]) if found else float("nan")

    def query(self, expression: str) -> list[object]:
        """What Prometheus answers now; empty when there is nothing."""
        asked = urllib.parse.quote(expression)
        _status, body = self.get(f"http://127.0.0.1:9090/api/v1/query?query={asked}")
        answer: list[object] = json.loads(body)["data"]["result"]
        return answer

    def leader(self, service: str) -> Container:
        """The container that leads. AssertionError when there is none, or are two."""
        leading = [one for one in self.containers(service) if self.metric(one, f"saga_{service}_leading") == 1]
        assert len(leading) == 1, f"{len(leading)} lead {service}"
        return leading[0]


def until(holds: Callable[[], bool], within_s: float, why: Callable[[], str] = str) -> float:
    """Polls; the seconds it took. AssertionError with `why()` after that long."""
    started_s = time.monotonic()
    while not holds():
        assert time.monotonic() - started_s < within_s, f"not within {within_s:g} s: {why()}"
        time.sleep(0.25)
    return time.monotonic() - started_s
