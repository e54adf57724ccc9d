"""Flags that start real SGLang servers, for `saga up --engine sglang` and `saga bench live --engine sglang`.

Turns them into SglangSettings and says before anything starts what cannot work: no such model, no SGLang in that
Python, no plugin. How servers are started is `sglang`'s business.
"""

import argparse
import itertools
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from saga.cli.sglang import PROVEN_VERSION, SglangSettings
from saga.runtime.errors import StartError
from saga.runtime.log import get_logger

SIMULATED: Final = "simulated"
SGLANG: Final = "sglang"
ENGINES: Final = (SIMULATED, SGLANG)
READY_WITHIN_S: Final = 900.0  # a large model is read from disk first
PYTHON_VARIABLE: Final = "SAGA_SGLANG_PYTHON"
_ASK_WITHIN_S: Final = 60.0
_GPU_DEVICES: Final = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
_WEIGHTS: Final = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf")
_SIZES: Final = ("--tp", "--tp-size", "--tensor-parallel-size", "--pp", "--pp-size", "--pipeline-parallel-size")
_INSTALL: Final = (
    "install the release that SAGA is proven against there (pip install 'saga-mesh[sglang]'), name another Python with "
    f"--sglang-python or {PYTHON_VARIABLE}, or, without a GPU, build one with `make sglang-cpu`"
)
log = get_logger()

# Asked of SGLang's Python without importing SGLang, which takes many seconds.
_QUESTION: Final = """
import importlib.metadata as m, importlib.util, json
def version():
    try: return m.version("sglang")
    except m.PackageNotFoundError: return ""
there = importlib.util.find_spec("sglang") is not None
plugins = [point.name for point in m.entry_points(group="sglang.srt.plugins")]
print(json.dumps({"version": version() if there else "", "plugins": plugins}))
"""


class Installed(msgspec.Struct, frozen=True):
    """What a Python says of its SGLang; no version: there is none."""

    version: str
    plugins: list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags, all of them named `sglang` or `model` so that nobody takes them for the simulated engine's."""
    parser.add_argument("--engine", choices=ENGINES, help="what workers run (default simulated)")
    parser.add_argument("--model", metavar="PATH", help="with --engine sglang: a folder, or a name to download")
    parser.add_argument(
        "--sglang-python", type=Path, metavar="PATH", help=f"Python that has SGLang (default {PYTHON_VARIABLE}, or own)"
    )
    parser.add_argument("--sglang-args", default="", metavar='"..."', help="more flags for each server; the last wins")
    parser.add_argument(
        "--sglang-plugin", action="store_true", help="evict by SAGA's values (needs saga-mesh-sglang installed there)"
    )
    parser.add_argument(
        "--kv-tokens", type=int, default=0, metavar="N", help="KV of each server (default all that fit)"
    )


def sglang_settings(flags: argparse.Namespace, environ: Mapping[str, str], channels: Path) -> SglangSettings:
    """The servers asked for. Raises StartError for what cannot work. `channels`: where the plugin's files go."""
    if not flags.model:
        raise StartError("--engine sglang needs --model PATH: a model folder, or a name that SGLang can download")
    if flags.kv_tokens < 0:
        raise StartError(f"--kv-tokens must be above 0, not {flags.kv_tokens}")
    extra = tuple(shlex.split(flags.sglang_args))
    _check_model(flags.model, extra)
    if flags.sglang_plugin and _shards(extra) > 1:
        raise StartError(
            "--sglang-plugin is for servers without tensor or pipeline parallelism: ranks must evict the same"
        )
    python = Path(flags.sglang_python or environ.get(PYTHON_VARIABLE) or sys.executable)
    installed = ask(python)
    check(python, installed, plugin=flags.sglang_plugin)
    if installed.version != PROVEN_VERSION:
        log.warning("sglang.unproven_version", version=installed.version, proven=PROVEN_VERSION, python=str(python))
    cpu = not any(device.exists() for device in _GPU_DEVICES)
    return SglangSettings(
        model=flags.model,
        python=python,
        cpu=cpu,
        page_tokens=flags.page_tokens or SglangSettings(model="").page_tokens,
        kv_tokens=flags.kv_tokens,
        retention_dir=channels if flags.sglang_plugin else None,
        gpus_each=0 if cpu or _chosen(extra) else _shards(extra),
        extra=extra,
    )


def refuse_without_sglang(flags: argparse.Namespace) -> None:
    """Raises StartError when flags of real servers were given for simulated ones."""
    given = [
        name for name in ("model", "sglang_python", "sglang_args", "sglang_plugin", "kv_tokens") if getattr(flags, name)
    ]
    if given:
        raise StartError(f"--{given[0].replace('_', '-')} is for real servers: add --engine sglang")


def ask(python: Path) -> Installed:
    """What SGLang this Python has. Raises StartError when there is no such Python."""
    try:
        done = subprocess.run(  # noqa: S603 - the user's own Python
            [str(python), "-c", _QUESTION], capture_output=True, text=True, check=True, timeout=_ASK_WITHIN_S
        )
        return msgspec.json.decode(done.stdout, type=Installed)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        raise StartError(f"{python} is no Python that can be asked for SGLang: {error}; {_INSTALL}") from error


def check(python: Path, installed: Installed, *, plugin: bool) -> None:
    """Raises StartError for a Python without SGLang, or without our plugin where it is wanted."""
    if not installed.version:
        raise StartError(f"{python} has no SGLang: {_INSTALL}")
    if plugin and "saga" not in installed.plugins:
        raise StartError(
            f"{python} has no saga-mesh-sglang, which --sglang-plugin needs: {python} -m pip install ./plugins/sglang"
        )


def _check_model(model: str, extra: tuple[str, ...]) -> None:
    """A name that could be one to download is left to SGLang."""
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise StartError(f"--model {model} is no model: it has no config.json")
        if "--load-format" not in extra and not any(found for kind in _WEIGHTS for found in path.glob(kind)):
            raise StartError(
                f'--model {model} has no weights: add --sglang-args "--load-format dummy" to serve random ones'
            )
    elif path.exists() or model.startswith(("/", ".", "~")) or model.count("/") > 1:
        raise StartError(f"--model {model}: no such folder")


def _chosen(extra: tuple[str, ...]) -> bool:
    """Whether the caller chose GPUs."""
    return any(flag.split("=")[0] == "--base-gpu-id" for flag in extra)


def _shards(extra: tuple[str, ...]) -> int:
    """GPUs of one server, by its tensor and pipeline parallelism."""
    gpus = 1
    words = [word for flag in extra for word in flag.split("=", 1)]
    for flag, size in itertools.pairwise(words):
        if flag in _SIZES and size.isdigit():
            gpus *= int(size)
    return gpus
