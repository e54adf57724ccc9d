"""The images that the composed cluster is tested with, built where no image registry can be reached.

A base image from Debian's packages by debootstrap, from the mirror that this machine's apt uses and with its bundle of
certificates, kept in the user's cache folder; on it `compose/Dockerfile`, with what this machine's pip is told as a
secret. Nothing of either is written into the repository.
"""

import ast
import os
import platform
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from docker_engine import ENVIRON, DockerEngine, NoDockerError

BASE: Final = "saga-test-base"
TARGETS: Final = {"saga": "saga-mesh", "prometheus": "saga-prometheus"}
INCLUDE: Final = "python3,python3-venv,ca-certificates"
KEEP_BASE_S: Final = 14 * 86_400.0
CERTIFICATES: Final = "etc/ssl/certs/ca-certificates.crt"
_OF_THIS_CALL: Final = {"config-file", "disable-pip-version-check"}
_USELESS: Final = ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale")


def build(engine: DockerEngine, tree: Path) -> None:
    """All images of the Dockerfile in `tree`, from the start if need be. Raises NoDockerError, RuntimeError."""
    if not engine.docker("images", "--quiet", BASE).strip():
        tarball = base_tarball()
        engine.docker("import", "-", BASE, input_file=tarball)
    with tempfile.TemporaryDirectory(prefix="saga-pip-") as folder:
        secret = Path(folder) / "pip.conf"
        secret.touch(mode=0o600)
        secret.write_text(pip_settings())
        for target, name in TARGETS.items():
            engine.docker(
                *("build", "--quiet", "--network=host", f"--file={tree}/compose/Dockerfile", f"--target={target}"),
                *(f"--build-arg=BASE_IMAGE={BASE}", f"--secret=id=pip,src={secret}", f"--tag={name}", str(tree)),
            )


def base_tarball() -> Path:
    """Debian with Python and nothing more; made anew when the one in the cache is old."""
    suite, mirror = apt_source()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "saga-mesh"
    tarball = cache / f"compose-base-{suite}-{platform.machine()}.tar"
    if tarball.exists() and time.time() - tarball.stat().st_mtime < KEEP_BASE_S:
        return tarball
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="saga-base-") as folder:
        root = Path(folder) / "root"
        # What it mounts in there ends with it: nobody may find this machine's /proc below a folder to be removed.
        alone = ("nice", "unshare", "--mount", "--propagation=private", "--")
        _run(*alone, "debootstrap", "--variant=minbase", f"--include={INCLUDE}", suite, str(root), mirror)
        bundle = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile
        if bundle is not None:
            shutil.copyfile(bundle, root / CERTIFICATES)
        for useless in _USELESS:
            shutil.rmtree(root / useless, ignore_errors=True)
            (root / useless).mkdir(parents=True, exist_ok=True)
        partial = tarball.with_suffix(".part")
        _run(
            "tar",
            "--create",
            f"--file={partial}",
            f"--directory={root}",
            "--exclude=./proc/*",
            "--exclude=./sys/*",
            ".",
        )
        partial.replace(tarball)
    return tarball


def apt_source() -> tuple[str, str]:
    """Suite and mirror of this machine's own Debian. Raises NoDockerError when apt names none."""
    suite = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    targets = _run(
        "apt-get", "indextargets", "--format", "$(CODENAME) $(COMPONENT) $(REPO_URI)", "Created-By: Packages"
    )
    for line in targets.splitlines():
        codename, component, mirror = line.split(" ", 2)
        if codename == suite and component == "main":
            return suite, mirror
    raise NoDockerError(f"apt here has no source for Debian {suite or 'of any name'}")


def pip_settings() -> str:
    """What this machine's pip is told, by files and environment, as a pip.conf. Its own folders are left out: a build
    cannot see them."""
    said: dict[str, str] = {}
    for line in _run(sys.executable, "-m", "pip", "config", "list").splitlines():
        name, _, value = line.partition("=")
        key = name.partition(".")[2]
        elsewhere = [part for part in str(ast.literal_eval(value)).split() if not part.startswith(("file:", "/"))]
        if key == "cert":
            said[key] = f"/{CERTIFICATES}"  # where the base image has it
        elif elsewhere and key not in _OF_THIS_CALL:
            said[key] = "\n  ".join(elsewhere)
    return "[global]\n" + "".join(f"{key} = {value}\n" for key, value in said.items())


def _run(*argv: str) -> str:
    """What it prints. Raises NoDockerError: without this there are no images."""
    environ = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:{ENVIRON['PATH']}"}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoDockerError(f"{argv[0]} {argv[1]} failed: {' | '.join((done.stdout + done.stderr).splitlines()[-3:])}")
    return done.stdout
