"""A Docker engine of the tests' own: its data, its socket and its network are apart from any other, and end with it.

It can run twice over the same data: in this machine's network, to build images from package registries (without bridge
and without firewall rules), and in a network namespace of its own, where composed clusters run: what is published on
loopback there is published on that loopback, and nothing in it can reach anything outside. Root on Linux only.
"""

import ctypes
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self, TypeVar

PACKAGES: Final = ("docker.io", "docker-compose", "debootstrap")  # Debian's
PROGRAMS: Final = ("dockerd", "docker", "docker-compose", "debootstrap", "nsenter", "unshare", "ip")
READY_WITHIN_S: Final = 60.0
STOP_WITHIN_S: Final = 90.0
_CLONE_NEWNET: Final = 0x40000000
_BRIDGE: Final = "198.18.0.1/24"  # addresses set aside for benchmarks: nobody's network
_POOL: Final = "base=198.19.0.0/16,size=24"
# Debian's own programs, whatever else of the same name is on this machine.
ENVIRON: Final = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("DOCKER_", "COMPOSE_"))},
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
}
PATIENT: Final = {"COMPOSE_HTTP_TIMEOUT": "300"}  # seconds; a machine may have much else to do
TIED: Final = (sys.executable, "-m", "saga.cli.tied")  # ends with us, however we end
T = TypeVar("T")


class NoDockerError(Exception):
    """No engine can be started here; the message says why."""


def install() -> None:
    """Debian's packages, where they are missing. Raises NoDockerError where no engine can run or be installed."""
    if platform.system() != "Linux" or os.geteuid() != 0:
        raise NoDockerError("a Docker engine of our own needs root on Linux")
    missing = [name for name in PROGRAMS if shutil.which(name, path=ENVIRON["PATH"]) is None]
    if missing and shutil.which("apt-get") is None:
        raise NoDockerError(f"there is no {', '.join(missing)}, and no apt-get to install it")
    if missing:
        environ = ENVIRON | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (("update",), ("install", "--yes", "--no-install-recommends", *PACKAGES, "iproute2")):
            done = subprocess.run(
                ["nice", "apt-get", "-qq", *command],
                env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                raise NoDockerError(f"apt-get {command[0]} failed: {' '.join(done.stdout.splitlines()[-2:])}")


class Network:
    """A network namespace with nothing in it but loopback, held by a sleeping process."""

    def __init__(self) -> None:
        self._holder = subprocess.Popen([*TIED, "unshare", "--net", "sleep", "infinity"], env=_python_environ())
        self._threads = ThreadPoolExecutor(8, "in-network", initializer=self._enter)
        try:
            self._await()
        except BaseException:
            self.close()
            raise

    def command(self, *argv: str) -> list[str]:
        """The same command inside."""
        return ["nsenter", f"--net={self._path}", "--", *argv]

    def start(self, act: Callable[[], T]) -> Future[T]:
        """Begins it in a thread whose sockets are inside."""
        return self._threads.submit(act)

    def run(self, act: Callable[[], T]) -> T:
        """The same, and waits for it."""
        return self.start(act).result()

    def close(self) -> None:
        """Lets it go; it vanishes with the last process inside."""
        self._threads.shutdown()
        self._holder.kill()
        self._holder.wait()

    @property
    def _path(self) -> str:
        return f"/proc/{self._holder.pid}/ns/net"

    def _await(self) -> None:
        deadline_s = time.monotonic() + READY_WITHIN_S
        ours = Path("/proc/self/ns/net").readlink()
        while self._holder.poll() is None and Path(self._path).readlink() == ours and time.monotonic() < deadline_s:
            time.sleep(0.02)
        if self._holder.poll() is not None or Path(self._path).readlink() == ours:
            raise NoDockerError("no network namespace can be made here")
        done = subprocess.run(self.command("ip", "link", "set", "lo", "up"), env=ENVIRON, check=False)
        if done.returncode:
            raise NoDockerError("loopback cannot be brought up in a network namespace")

    def _enter(self) -> None:
        inside = os.open(self._path, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(inside, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(inside)


class DockerEngine:
    """One life of a dockerd over `root`. A context manager: leaving it ends the engine and all containers."""

    def __init__(self, root: Path, network: Network | None = None) -> None:
        """`root`: of its data and sockets, a short path. No network: this machine's, for building only."""
        self._root = root
        self.network = network
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """What a Docker client is told."""
        return f"unix://{self._root}/docker.sock"

    @property
    def environ(self) -> dict[str, str]:
        """Of clients."""
        return ENVIRON | {"DOCKER_HOST": self.host, "DOCKER_CONFIG": str(self._root), "DOCKER_BUILDKIT": "1"} | PATIENT

    def docker(self, *args: str, input_file: Path | None = None) -> str:
        """What `docker ARGS` prints. Raises RuntimeError with its last lines."""
        return self.client("docker", *args, input_file=input_file)

    def client(self, *argv: str, environ: dict[str, str] | None = None, input_file: Path | None = None) -> str:
        """The same of any client program."""
        with (input_file or Path(os.devnull)).open("rb") as stdin:
            done = subprocess.run(
                argv, env=self.environ | (environ or {}), stdin=stdin, capture_output=True, text=True, check=False
            )
        if done.returncode:
            said = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
            raise RuntimeError(f"{' '.join(argv)}: exit status {done.returncode}\n{said}")
        return done.stdout

    def __enter__(self) -> Self:
        """Starts it. Raises NoDockerError with its last words when it does not come up."""
        self._root.mkdir(parents=True, exist_ok=True)
        (self._root / "daemon.json").write_text("{}\n")  # not this machine's
        (self._root / "docker.pid").unlink(missing_ok=True)
        # Networks of a run that was cut short would come up again, here perhaps in this machine's own network.
        shutil.rmtree(self._root / "data" / "network", ignore_errors=True)
        argv: Sequence[str] = self._command()
        if self.network is not None:
            argv = self.network.command(*argv)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*TIED, *argv], env=_python_environ(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            self._await()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        """Ends it, containers first."""
        self._stop()

    @property
    def _log(self) -> Path:
        return self._root / "dockerd.log"

    def _command(self) -> tuple[str, ...]:
        root = self._root
        reach = (
            ("--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false")
            if self.network is None
            else (f"--bip={_BRIDGE}", f"--default-address-pool={_POOL}")
        )
        return (
            *("dockerd", f"--config-file={root}/daemon.json", f"--host={self.host}", f"--pidfile={root}/docker.pid"),
            *(f"--data-root={root}/data", f"--exec-root={root}/exec", "--exec-opt=native.cgroupdriver=cgroupfs"),
            *("--log-level=warn", "--shutdown-timeout=60", *reach),
        )

    def _await(self) -> None:
        assert self._process is not None
        deadline_s = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            try:
                self.docker("version")
            except RuntimeError:
                time.sleep(0.2)
            else:
                return
        said = self._log.read_text(errors="replace").splitlines()[-3:]
        raise NoDockerError(f"dockerd does not come up here: {' | '.join(said) or 'it says nothing'}")

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        for pid in self.left_behind():
            os.kill(pid, signal.SIGKILL)

    def left_behind(self) -> list[int]:
        """Processes that were started for this engine and still run: known by its folder in their command line."""
        mark, found = f"{self._root}/".encode(), []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    command = (entry / "cmdline").read_bytes()
                except OSError:
                    continue  # it has ended meanwhile
                if mark in command and command.startswith((b"dockerd", b"containerd", b"/usr/bin/containerd")):
                    found.append(int(entry.name))
        return found


def _python_environ() -> dict[str, str]:
    """Ours, with Debian's programs first."""
    return ENVIRON | {"PATH": f"{ENVIRON['PATH']}:{os.environ.get('PATH', '')}"}
