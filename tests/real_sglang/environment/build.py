"""Builds the environment in which a real SGLang serves on a machine without a GPU. Standard library only.

`python build.py FOLDER` makes a virtual environment with SGLang as pinned beside this file, an overlay that lets it
import without CUDA, and a tiny model in FOLDER/tiny-model. Nothing is done when all of that is there and of today.
Called by `make sglang-cpu`.
"""

import hashlib
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
PYTHON: Final = (3, 11)  # the compiled half of SGLang and all pins are for this one
NEEDED_BYTES: Final = 5 << 30
STAMP: Final = ".sglang-cpu"
SAID_LINES: Final = 15


class BuildError(Exception):
    """What keeps the environment from being built, and what to do about it."""


def fingerprint() -> str:
    """Changes with everything that the environment is made of."""
    digest = hashlib.sha256()
    for path in sorted(HERE.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            digest.update(str(path.relative_to(HERE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def python() -> str:
    """A Python of the right version. Raises BuildError when there is none."""
    wanted = ".".join(map(str, PYTHON))
    for candidate in (sys.executable, shutil.which(f"python{wanted}")):
        if candidate and _version(candidate) == wanted:
            return candidate
    raise BuildError(f"SGLang's pinned packages need Python {wanted}: put a python{wanted} on PATH")


def _version(candidate: str) -> str:
    ask = [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    return subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()


def say(text: str) -> None:
    """Tell how far it is."""
    print(f"sglang-cpu: {text}", flush=True)  # noqa: T201 - a script


def run(what: str, *command: str | Path) -> None:
    """One step. Raises BuildError with the last lines that it said."""
    say(what)
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-SAID_LINES:])
        raise BuildError(f"{what}: exit status {done.returncode}\n{tail}")


def build(folder: Path) -> None:
    """All of it, from the start if need be. Raises BuildError."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise BuildError("the pinned packages are for Linux on x86-64")
    interpreter = folder / "bin" / "python"
    if not interpreter.exists():
        free_bytes = shutil.disk_usage(folder.parent).free
        if free_bytes < NEEDED_BYTES:
            raise BuildError(f"{folder.parent} has {free_bytes >> 30} GiB free, {NEEDED_BYTES >> 30} are needed")
        run("a virtual environment", python(), "-m", "venv", folder)
    pip = (interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run("torch", *pip, "-r", HERE / "torch.txt")
    run("SGLang and what it imports", *pip, "--no-deps", "-r", HERE / "requirements.txt")
    site = folder / "lib" / f"python{PYTHON[0]}.{PYTHON[1]}" / "site-packages"
    shutil.copytree(HERE / "overlay", site, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    run("a tiny model", interpreter, HERE / "tiny_model.py", folder / "tiny-model")
    run("a first import", interpreter, "-c", "import sglang.srt.entrypoints.http_server")


def main(folder: Path) -> int:
    """Exit status: 1 when the environment could not be built."""
    stamp, wanted = folder / STAMP, fingerprint()
    if stamp.exists() and stamp.read_text() == wanted:
        return 0
    started_s = time.monotonic()
    try:
        build(folder)
    except BuildError as error:
        print(f"sglang-cpu: {error}", file=sys.stderr)  # noqa: T201 - a script
        return 1
    stamp.write_text(wanted)
    say(f"ready in {folder} after {time.monotonic() - started_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).absolute()))
