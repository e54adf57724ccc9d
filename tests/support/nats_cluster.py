"""Three NATS nodes on this machine, as compose/ha.yml has them: started together, killed one by one."""

import asyncio
import contextlib
from pathlib import Path
from random import Random

from saga.cli.plan import free_ports
from saga.runtime.nats_server import find_binary

NODES = 3


class Cluster:
    """Nodes by number; each keeps its data in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        ports = free_ports(2 * NODES, Random())
        self._folder, self._clients, self._routes = folder, ports[:NODES], ports[NODES:]
        self._processes: dict[int, asyncio.subprocess.Process] = {}

    @property
    def url(self) -> str:
        """Of all nodes."""
        return ",".join(f"nats://127.0.0.1:{port}" for port in self._clients)

    async def start(self) -> None:
        """All nodes that do not run."""
        routes = ",".join(f"nats://127.0.0.1:{port}" for port in self._routes)
        for node in range(NODES):
            if node in self._processes:
                continue
            store = str(self._folder / f"node-{node}")
            with (self._folder / f"node-{node}.log").open("ab") as log:
                self._processes[node] = await asyncio.create_subprocess_exec(
                    *(str(find_binary()), "-a", "127.0.0.1", "-p", str(self._clients[node]), "-js", "-sd", store),
                    *("--name", f"node-{node}", "--cluster_name", "test", "--routes", routes),
                    *("--cluster", f"nats://127.0.0.1:{self._routes[node]}"),
                    stdout=log,
                    stderr=log,
                )

    def node_at(self, port: int) -> int:
        """The one whose clients connect there."""
        return self._clients.index(port)

    def node_named(self, name: str) -> int:
        """The one that calls itself so."""
        return int(name.removeprefix("node-"))

    async def kill(self, node: int) -> None:
        """SIGKILL; it stays away until `start`."""
        process = self._processes.pop(node, None)
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def close(self) -> None:
        """Kills all."""
        for node in range(NODES):
            await self.kill(node)
