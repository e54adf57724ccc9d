"""SGLang's HTTP as the worker agent uses it: what the engine is, its load, aborting requests, closing session tags.

The only file of the agent that knows these endpoints (SGLang 0.5.23, or the simulated engine, whose /server_info also
says `saga_engine`: how fast its time runs, by what its lengths were divided, and its cost model).
"""

from typing import Final
from urllib.parse import urlsplit

import aiohttp
import msgspec

from saga.contract.errors import StartError
from saga.contract.ids import SessionTag
from saga.contract.messages import CostModel
from saga.contract.unreadable import UNREADABLE
from saga.worker.events import EngineFacts, LoadSeen

MIN_PAGE_TOKENS: Final = 16
PROVEN_VERSION: Final = "0.5.23"  # tests/real_sglang; another may do, but nobody has tried
OUR_POLICY: Final = "saga"  # of our plugin in SGLang
POLL_TIMEOUT_S: Final = 2.0
ASK_TIMEOUT_S: Final = 5.0


class EngineUnreachable(Exception):  # noqa: N818 - a state, not a fault
    """Nobody listens at the engine's address, or the connection broke: its process is gone or not yet there."""


class EngineSlow(Exception):  # noqa: N818 - the same
    """The engine did not answer in time, or with an error: its process may live."""


class _KvEventsBlock(msgspec.Struct):
    publisher: str = "zmq"
    endpoint_host: str = ""
    endpoint_port_base: int = 0
    replay_endpoint_port_base: int | None = None
    topic: str = ""


class _PolicyConfig(msgspec.Struct):
    file: str = ""


class _Simulated(msgspec.Struct):
    speed: float = 1.0
    shrink: int = 1
    cost: CostModel = CostModel()
    load_s_per_token: float = 0.0
    started_at: float = 0.0


class _ServerInfo(msgspec.Struct):
    page_size: int | None = None
    max_total_num_tokens: int | None = None
    context_length: int | None = None
    max_running_requests: int | None = None
    served_model_name: str | None = None
    model_path: str | None = None
    version: str = ""
    enable_session_radix_cache: bool = False
    radix_eviction_policy: str = ""
    radix_eviction_policy_config: msgspec.Raw = msgspec.Raw(b"null")  # each policy's own
    enable_hierarchical_cache: bool = False
    hicache_ratio: float | None = None  # host tier over device, in tokens, while no size is given
    hicache_size: float | None = None  # GB
    hicache_storage_backend: str | None = None
    kv_events: _KvEventsBlock | None = None
    saga_engine: _Simulated | None = None  # not in SGLang


class _Model(msgspec.Struct):
    id: str = ""
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model] = []


class _Load(msgspec.Struct):
    num_running_reqs: int = 0
    num_waiting_reqs: int = 0
    num_used_tokens: int = 0
    max_running_requests: int = 0


class _Loads(msgspec.Struct):
    loads: list[_Load]


class EngineView(msgspec.Struct, frozen=True):
    """All that attaching needs to know. Another view is another engine process."""

    facts: EngineFacts
    events_endpoint: str
    replay_endpoint: str  # empty: none
    topic: str
    started_at: float  # wall time; 0: the engine does not say
    version: str
    retention_file: str  # where our plugin in the engine reads what tags are worth; empty: there is none
    storage: str  # backend behind the host tier; empty: none


class SglangHttp:
    """One engine's HTTP. Rank 0 alone: a worker is one data-parallel rank."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def view(self) -> EngineView:
        """Who the engine is. Raises EngineUnreachable, EngineSlow; StartError when it is unfit, saying what to set."""
        raw = await self._get("/server_info", ASK_TIMEOUT_S)
        try:
            info = msgspec.json.decode(raw, type=_ServerInfo)
        except UNREADABLE as error:
            raise StartError(f"{self._url} is no SGLang server: /server_info says {error}") from error
        if info.max_total_num_tokens is None or info.page_size is None:
            raise StartError(f"{self._url} is no SGLang server: /server_info lacks max_total_num_tokens or page_size")
        block = _fit(self._url, info)
        load = await self._load()
        model = await self._model()
        simulated = info.saga_engine or _Simulated()
        facts = EngineFacts(
            model=info.served_model_name or model.id or info.model_path or "",
            page_tokens=info.page_size,
            kv_tokens=info.max_total_num_tokens,
            context_tokens=info.context_length or model.max_model_len or info.max_total_num_tokens,
            max_running=info.max_running_requests or load.max_running_requests or 1,
            session_tags=info.enable_session_radix_cache,
            speed=simulated.speed,
            shrink=simulated.shrink,
            cost=simulated.cost,
            host_kv_tokens=_host_kv_tokens(info),
            load_s_per_token=simulated.load_s_per_token,
        )
        host = block.endpoint_host
        if host in {"", "*", "0.0.0.0", "::"}:  # noqa: S104 - where it listens, not we
            host = urlsplit(self._url).hostname or "127.0.0.1"
        replay = block.replay_endpoint_port_base
        return EngineView(
            facts=facts,
            events_endpoint=f"tcp://{host}:{block.endpoint_port_base}",
            replay_endpoint=f"tcp://{host}:{replay}" if replay else "",
            topic=block.topic,
            started_at=simulated.started_at,
            version=info.version,
            retention_file=_retention_file(info),
            storage=(info.hicache_storage_backend or "") if info.enable_hierarchical_cache else "",
        )

    async def load(self) -> LoadSeen:
        """What runs and waits there. Raises EngineUnreachable, EngineSlow."""
        load = await self._load()
        return LoadSeen(load.num_running_reqs, load.num_waiting_reqs, load.num_used_tokens)

    async def abort(self, rid: str) -> None:
        """Abort the requests whose id begins with `rid`. Raises EngineUnreachable, EngineSlow."""
        await self._post("/abort_request", {"rid": rid})

    async def close_tag(self, tag: SessionTag) -> None:
        """Close a session tag; one that is not open is fine. Raises EngineUnreachable, EngineSlow."""
        await self._post("/close_session", {"session_id": tag})

    async def _load(self) -> _Load:
        raw = await self._get("/v1/loads", POLL_TIMEOUT_S)
        try:
            loads = msgspec.json.decode(raw, type=_Loads).loads
        except UNREADABLE as error:
            raise EngineSlow(f"/v1/loads: {error}") from error
        return loads[0] if loads else _Load()

    async def _model(self) -> _Model:
        try:
            models = msgspec.json.decode(await self._get("/v1/models", ASK_TIMEOUT_S), type=_Models)
        except (*UNREADABLE, EngineSlow):
            return _Model()
        return models.data[0] if models.data else _Model()

    async def _get(self, path: str, timeout_s: float) -> bytes:
        return await self._ask("GET", path, None, timeout_s)

    async def _post(self, path: str, body: dict[str, str]) -> None:
        await self._ask("POST", path, body, ASK_TIMEOUT_S)

    async def _ask(self, method: str, path: str, body: dict[str, str] | None, timeout_s: float) -> bytes:
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._session.request(method, self._url + path, json=body, timeout=timeout) as response:
                if response.status == 404 and path == "/server_info":
                    raise StartError(f"{self._url} is no SGLang server: it has no /server_info")
                if response.status != 200:
                    raise EngineSlow(f"{path}: {response.status}")
                return await response.read()
        except TimeoutError as error:
            raise EngineSlow(f"{path}: no answer in {timeout_s} s") from error
        except aiohttp.ClientConnectionError as error:
            raise EngineUnreachable(f"{self._url}: {error}") from error
        except aiohttp.ClientError as error:
            raise EngineSlow(f"{path}: {error}") from error


def _retention_file(info: _ServerInfo) -> str:
    """Of our plugin; empty under any other policy."""
    if info.radix_eviction_policy != OUR_POLICY:
        return ""
    try:
        return msgspec.json.decode(info.radix_eviction_policy_config, type=_PolicyConfig).file
    except UNREADABLE:
        return ""


def _host_kv_tokens(info: _ServerInfo) -> int:
    """Of the host KV tier. One whose size is given in bytes is taken as the least that SGLang starts with: all of the
    device's tokens."""
    if not info.enable_hierarchical_cache or info.max_total_num_tokens is None:
        return 0
    ratio = 1.0 if info.hicache_size or not info.hicache_ratio else info.hicache_ratio
    return int(info.max_total_num_tokens * ratio)


def _fit(url: str, info: _ServerInfo) -> _KvEventsBlock:
    """The KV events block. Raises StartError naming the flag to set when the engine cannot be a worker."""
    block = info.kv_events
    if block is None or block.publisher != "zmq" or not block.endpoint_port_base:
        raise StartError(
            f"{url} publishes no KV events: start it with --kv-events-config "
            '\'{"publisher":"zmq","endpoint":"tcp://*:5557","replay_endpoint":"tcp://*:5558"}\''
        )
    if info.page_size is None or info.page_size < MIN_PAGE_TOKENS:
        raise StartError(
            f"{url} has pages of {info.page_size} tokens: start it with --page-size {MIN_PAGE_TOKENS} or more"
        )
    return block
