"""plugins/sglang as if it were installed beside SGLang: a folder for PYTHONPATH, with its entry point and no more.

So the environment that tests share stays as `make sglang-cpu` built it.
"""

import os
import tomllib
from pathlib import Path

PLUGIN = Path(__file__).parents[2] / "plugins" / "sglang"


def installed_in(folder: Path) -> str:
    """The PYTHONPATH that has it."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return os.pathsep.join((str(folder), str(PLUGIN)))
