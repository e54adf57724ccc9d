"""How a real SGLang server is started so that it can be a worker: its command line, its environment, its ports.

Starts nothing itself: a `Child` runs what `server` returns, and `healthy` tells when it serves. docs/sglang.md says
what each flag buys. For `saga up --engine sglang` and tests/real_sglang.
"""

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from saga.cli.child import ProcessSpec
from saga.cli.plan import HOST, STOP_ORDER, Plan, free_ports
from saga.cli.probe import HTTP_OK, status_of

PROVEN_VERSION: Final = "0.5.23"
TOPIC: Final = "kv"
GRACE_S: Final = 20.0  # SIGTERM to the last of its processes gone takes it up to 10 s
STARTS_WITHIN_S: Final = 180.0
PORTS_EACH: Final = 3
PLUGIN_POLICY: Final = "saga"  # the eviction policy that plugins/sglang adds

# One thread each and sleeping while idle: an idle scheduler burns a whole core otherwise. No overlap and no warm-up:
# both are for GPUs.
_CPU_FLAGS: Final = (
    *("--device", "cpu", "--attention-backend", "torch_native", "--dtype", "bfloat16"),
    *("--disable-overlap-schedule", "--skip-server-warmup", "--sleep-on-idle", "--mem-fraction-static", "0.2"),
)
_CPU_ENVIRON: Final = {"SGLANG_USE_CPU_ENGINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
_OFFLINE: Final = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # a model folder needs nobody


class SglangSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of server."""

    model: str  # a folder, or a name that SGLang can download
    python: Path = Path(sys.executable)  # of the environment that SGLang is installed in
    cpu: bool = False  # a machine without a GPU
    served_name: str = ""  # what clients ask for; empty: the folder's own name, or `model`
    page_tokens: int = 64
    kv_tokens: int = 0  # 0: as many as fit
    session_tags: bool = True
    kv_events: bool = True
    retention_dir: Path | None = None  # our eviction plugin, with its channels there; None: SGLang's own order
    gpus_each: int = 0  # server number n begins at GPU n times this; 0: SGLang's own choice, GPU 0
    extra: tuple[str, ...] = ()  # more flags, last, so that they win
    env: dict[str, str] = {}


class SglangPorts(msgspec.Struct, frozen=True, kw_only=True):
    """Where a server listens; it keeps them when it is started again."""

    http: int
    events: int
    replay: int

    @property
    def url(self) -> str:
        """Its HTTP."""
        return f"http://{HOST}:{self.http}"


def ports_for(servers: int, random: Random | None = None) -> list[SglangPorts]:
    """Free ones. Raises StartError if there are too few."""
    free = free_ports(servers * PORTS_EACH, random or Random())
    return [
        SglangPorts(http=http, events=events, replay=replay)
        for http, events, replay in zip(*(free[part::PORTS_EACH] for part in range(PORTS_EACH)), strict=True)
    ]


def flags(settings: SglangSettings, ports: SglangPorts, number: int = 0) -> list[str]:
    """All that follows `python -m sglang.launch_server`. `number`: of the server on this machine."""
    made = ["--model-path", settings.model, "--host", HOST, "--port", str(ports.http)]
    folder = Path(settings.model)
    if served_name := settings.served_name or (folder.resolve().name if folder.is_dir() else ""):
        made += ["--served-model-name", served_name]  # else a folder's whole path would be the name
    made += ["--page-size", str(settings.page_tokens), "--enable-metrics", "--enable-cache-report"]
    if settings.kv_tokens:
        made += ["--max-total-tokens", str(settings.kv_tokens)]
    if settings.session_tags:
        made.append("--enable-session-radix-cache")
    if settings.kv_events:
        events = {
            "publisher": "zmq",
            "bind": True,  # else a loopback address would be connected to
            "topic": TOPIC,
            "endpoint": f"tcp://{HOST}:{ports.events}",
            "replay_endpoint": f"tcp://{HOST}:{ports.replay}",
        }
        made += ["--kv-events-config", msgspec.json.encode(events).decode()]
    if settings.retention_dir is not None:
        channel = {"file": str(settings.retention_dir.absolute() / f"retention-{number}")}
        config = msgspec.json.encode(channel).decode()
        made += ["--radix-eviction-policy", PLUGIN_POLICY, "--radix-eviction-policy-config", config]
    if settings.gpus_each and number:
        made += ["--base-gpu-id", str(number * settings.gpus_each)]
    return [*made, *(_CPU_FLAGS if settings.cpu else ()), *settings.extra]


def server(name: str, settings: SglangSettings, ports: SglangPorts, number: int = 0) -> ProcessSpec:
    """The server as a process to supervise; it ends when its supervisor dies."""
    offline = _OFFLINE if Path(settings.model).is_dir() else {}
    command = (str(settings.python), "-m", "sglang.launch_server", *flags(settings, ports, number))
    return ProcessSpec(
        name=name,
        argv=(sys.executable, "-m", "saga.cli.tied", *command),
        env={**offline, **(_CPU_ENVIRON if settings.cpu else {}), **settings.env},
        stop_rank=STOP_ORDER.index("engine"),
        grace_s=GRACE_S,
    )


def on_sglang(mesh: Plan, settings: SglangSettings, ports: Sequence[SglangPorts]) -> Plan:
    """The same mesh with real servers instead of its simulated engines, as many as there are `ports`."""
    real = {f"engine-{number}": server(f"engine-{number}", settings, at, number) for number, at in enumerate(ports)}
    attached = _with_tokenizer(beside(mesh, [at.url for at in ports]), settings)
    by_name = {spec.name: spec for spec in attached.specs} | real
    return msgspec.structs.replace(attached, specs=tuple(by_name[spec.name] for spec in mesh.specs))


def _with_tokenizer(mesh: Plan, settings: SglangSettings) -> Plan:
    """Its gateways have the model's own tokenizer, if that is at hand and nobody named another."""
    folder, setting = Path(settings.model), "SAGA_GATEWAY_TOKENIZERS"
    if not (folder / "tokenizer.json").is_file() or "," in str(folder.resolve()):
        return mesh
    named = {setting: f"{settings.served_name or folder.resolve().name}={folder.resolve()}"}
    specs = tuple(
        msgspec.structs.replace(spec, env=named | spec.env) if spec.name.startswith("gateway") else spec
        for spec in mesh.specs
    )
    return msgspec.structs.replace(mesh, specs=specs)


def beside(mesh: Plan, urls: Sequence[str]) -> Plan:
    """The same mesh without engines of its own: its workers attach to servers that others run, one to each."""
    workers = {f"worker-{number}": {"SAGA_WORKER_ENGINE_URL": url} for number, url in enumerate(urls)}
    specs = tuple(
        msgspec.structs.replace(spec, env=spec.env | workers.get(spec.name, {}))
        for spec in mesh.specs
        if not spec.name.startswith("engine-")
    )
    return msgspec.structs.replace(mesh, specs=specs, engine_urls=tuple(urls))


async def healthy(ports: SglangPorts) -> bool:
    """Whether it serves."""
    with contextlib.suppress(OSError):
        return await status_of(ports.url, "/health") == HTTP_OK
    return False
