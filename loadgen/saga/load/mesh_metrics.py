"""Metrics of processes of a mesh that runs here, each of which serves its own (`SAGA_METRICS_PORT=0`: on any port).

For benchmarks and tests that ask a leader what it has counted. Reads the port from the process's log.
"""

import re
from typing import Final

import aiohttp

from saga.cli.mesh import Mesh
from saga.cli.plan import HOST

ANY_PORT: Final = {"SAGA_METRICS_PORT": "0"}  # environment of a process that is to be asked
_SERVING = re.compile(r'"port": ?(\d+)[^\n]*"metrics.serving"')
_LINE = re.compile(r"^([a-z0-9_]+) (\S+)$", re.MULTILINE)


async def metrics_of(mesh: Mesh, process: str, host: str = HOST) -> dict[str, float]:
    """By name, those without labels. `host`: where it serves them. Raises LookupError for one that serves none."""
    ports = _SERVING.findall((mesh.log_dir / f"{process}.log").read_text())
    if not ports:
        raise LookupError(f"{process} serves no metrics")
    async with aiohttp.ClientSession() as http, http.get(f"http://{host}:{ports[-1]}/metrics") as response:
        return {name: float(value) for name, value in _LINE.findall(await response.text())}


async def leases_of(mesh: Mesh) -> dict[str, float]:
    """What all placement processes together say of leases: granted, live, and how they ended."""
    total: dict[str, float] = {}
    for process in mesh.processes:
        if process.startswith("placement-"):
            for name, value in (await metrics_of(mesh, process)).items():
                if name.startswith("saga_leases_"):
                    end = name.removeprefix("saga_leases_")
                    total[end] = total.get(end, 0.0) + value
    return total
