"""Processes on machines of their own: Linux network namespaces, each with two links to ours that can be cut.

`front` carries HTTP between gateways, engines and clients; `back` carries NATS. A cut link drops packets without a
word, as a broken cable does: connections hang. Needs root.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Iterable
from random import Random
from typing import Final, Literal

import msgspec

from saga.chaos.nats_link import NatsLink
from saga.cli.child import ProcessSpec
from saga.cli.plan import Plan

Wire = Literal["front", "back"]
_NETS: Final[dict[Wire, int]] = {"front": 213, "back": 214}


class Machine:
    """One namespace. Addresses: `here` is ours on a wire, `there` its own."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._name = f"saga{os.getpid()}m{number}"

    def here(self, wire: Wire) -> str:
        """Our end's address."""
        return f"10.{_NETS[wire]}.{self._number}.1"

    def there(self, wire: Wire) -> str:
        """The machine's end's address."""
        return f"10.{_NETS[wire]}.{self._number}.2"

    async def open(self) -> None:
        """Makes it. Raises OSError with the command that failed."""
        await _run("ip", "netns", "add", self._name)
        await _run("ip", "-n", self._name, "link", "set", "lo", "up")
        for wire in _NETS:
            ours, its = self._ends(wire)
            await _run("ip", "link", "add", ours, "type", "veth", "peer", "name", its, "netns", self._name)
            await _run("ip", "addr", "add", f"{self.here(wire)}/30", "dev", ours)
            await _run("ip", "-n", self._name, "addr", "add", f"{self.there(wire)}/30", "dev", its)
            await _run("ip", "-n", self._name, "link", "set", its, "up")
            await _run("ip", "link", "set", ours, "up")

    async def close(self) -> None:
        """Removes it with its links."""
        await _run("ip", "netns", "del", self._name)

    async def cut(self, wire: Wire) -> None:
        """Packets on this wire are lost from now on, at both ends."""
        await self._filtered("-I", wire)

    async def mend(self, wire: Wire) -> None:
        """The wire is whole again."""
        await self._filtered("-D", wire)

    async def _filtered(self, verb: str, wire: Wire) -> None:
        # Dropped where they come in: dropped where they go out, their sender would be told.
        ours, its = self._ends(wire)
        await _run("iptables", "-w", verb, "INPUT", "-i", ours, "-j", "DROP")
        await _run("ip", "netns", "exec", self._name, "iptables", "-w", verb, "INPUT", "-i", its, "-j", "DROP")

    def hosting(self, spec: ProcessSpec, nats_url: str, env: dict[str, str]) -> ProcessSpec:
        """The process, started there."""
        argv = ("ip", "netns", "exec", self._name, *spec.argv)
        return msgspec.structs.replace(spec, argv=argv, env=spec.env | env | {"SAGA_NATS_URL": nats_url})

    def _ends(self, wire: Wire) -> tuple[str, str]:
        name = f"s{os.getpid() % 100000}{wire[0]}{self._number}"
        return f"{name}a", f"{name}b"


class Machines:
    """All machines of one mesh, by the processes that run there."""

    def __init__(self, groups: Iterable[tuple[str, ...]], upstream: Callable[[], str]) -> None:
        """`groups`: names of processes that share a machine; `upstream`: URL of NATS."""
        self._links: list[NatsLink] = []
        self._upstream = upstream
        self._groups = {group: Machine(number) for number, group in enumerate(groups)}
        self._nats_urls: dict[str, str] = {}

    def of(self, process: str) -> Machine | None:
        """Where a process runs; None: here."""
        return next((machine for group, machine in self._groups.items() if process in group), None)

    async def open(self) -> None:
        """Makes them. Raises OSError."""
        for group, machine in self._groups.items():
            await machine.open()
            link = NatsLink(self._upstream, Random(0))
            url = await link.open(machine.here("back"))
            self._links.append(link)
            self._nats_urls.update(dict.fromkeys(group, url))

    async def close(self) -> None:
        """Removes them."""
        for link in self._links:
            await link.close()
        for machine in self._groups.values():
            await machine.close()

    def rewritten(self, planned: Plan) -> Plan:
        """The plan with each of these processes where it belongs, and with the addresses that follow."""
        edge = next((machine for group, machine in self._groups.items() if group[0].startswith("gateway")), None)
        moved: dict[str, str] = {}  # URLs that change
        specs = []
        for spec in planned.specs:
            machine, env = self.of(spec.name), {}
            if spec.name.startswith("engine-"):
                # A gateway on another machine reaches engines that are here by our end of its front wire.
                host = machine.there("front") if machine else edge.here("front") if edge else "127.0.0.1"
                env["SAGA_ENGINE_HOST"] = host
                port = spec.env["SAGA_ENGINE_PORT"]
                moved[f"http://127.0.0.1:{port}"] = f"http://{host}:{port}"
            if spec.name.startswith("gateway-") and machine:
                env["SAGA_GATEWAY_HOST"] = machine.there("front")
                port = spec.env["SAGA_GATEWAY_PORT"]
                moved[f"http://127.0.0.1:{port}"] = f"http://{machine.there('front')}:{port}"
            if machine and "SAGA_METRICS_PORT" in spec.env:
                env["SAGA_METRICS_HOST"] = machine.there("front")
            if machine:
                specs.append(machine.hosting(spec, self._nats_urls[spec.name], env))
            else:
                specs.append(msgspec.structs.replace(spec, env=spec.env | env))
        for number, spec in enumerate(specs):
            url = spec.env.get("SAGA_WORKER_ENGINE_URL", "")
            if url in moved:
                env = spec.env | {"SAGA_WORKER_ENGINE_URL": moved[url]}
                specs[number] = msgspec.structs.replace(spec, env=env)
        return msgspec.structs.replace(
            planned,
            specs=tuple(specs),
            engine_urls=tuple(moved.get(url, url) for url in planned.engine_urls),
            gateway_url=moved.get(planned.gateway_url, planned.gateway_url),
            more_gateway_urls=tuple(moved.get(url, url) for url in planned.more_gateway_urls),
        )


def why_not() -> str:
    """Why there can be no machines here; empty: there can."""
    if os.geteuid() != 0:
        return "needs root, to make network namespaces"
    missing = [tool for tool in ("ip", "iptables") if shutil.which(tool) is None]
    return f"needs {' and '.join(missing)} (Debian: iproute2, iptables), to cut links" if missing else ""


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()
    if process.returncode:
        raise OSError(f"{' '.join(command)}: {told.decode().strip()}")
