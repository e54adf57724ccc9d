"""The SGLang server that is measured: its facts, its answers with the scheduler's own times, its cache emptied.

Plain HTTP, no SAGA around it. Called by measure.py.
"""

import asyncio
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import aiohttp
import msgspec
from msgspec import Meta, Struct

from saga.engine.measurements import Facts
from saga.engine.model_shape import ModelShape, ShapeError, shape_of

OK = 200
FLUSH_TRIES = 20
FLUSH_AGAIN_S = 0.5
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits")
SAID = 300  # characters of an unexpected answer


class ServerError(Exception):
    """A server that is not there, cannot be measured as it was started, or answered what it should not."""


class MemoryUsage(Struct, frozen=True):
    """In GiB."""

    weight: float = 0.0


class InternalState(Struct, frozen=True):
    """Of one scheduler."""

    effective_max_running_requests_per_dp: int
    memory_usage: MemoryUsage = MemoryUsage()


class ServerInfo(Struct, frozen=True):
    """What of /server_info matters here."""

    version: str
    model_path: str
    served_model_name: str
    max_total_num_tokens: int
    page_size: int
    chunked_prefill_size: int | None
    max_req_input_len: int
    internal_states: Annotated[list[InternalState], Meta(min_length=1)]
    context_length: int | None = None
    tp_size: int = 1
    pp_size: int = 1
    dp_size: int = 1
    device: str | None = None
    dtype: str = "auto"
    kv_cache_dtype: str = "auto"
    quantization: str | None = None
    attention_backend: str | None = None
    speculative_algorithm: str | None = None
    enable_metrics: bool = False
    disable_radix_cache: bool = False


class MetaInfo(Struct, frozen=True):
    """What of an answer's meta_info matters here; times in seconds of the wall clock."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    forward_entry_time: float
    prefill_finished_time: float
    request_finished_ts: float
    num_retractions: int = 0


class Generated(Struct, frozen=True):
    """One answer of /generate."""

    meta_info: MetaInfo


class Answer(Struct, frozen=True):
    """When a request started, had its first token and its last one, by the server's clock."""

    started_s: float
    prefilled_s: float
    finished_s: float
    cached_tokens: int
    retractions: int

    @property
    def prefill_s(self) -> float:
        """From its first chunk to its first token."""
        return self.prefilled_s - self.started_s


class Server:
    """One server at a URL."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url.rstrip("/")

    async def ask(self, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[Answer]:
        """All prompts at once, each answered with exactly so many tokens. Raises ServerError."""
        if not prompts:
            return []
        sampling = {"max_new_tokens": new_tokens, "ignore_eos": True, "temperature": 0.0}
        text = await self._call("POST", "/generate", {"input_ids": prompts, "sampling_params": sampling})
        try:
            generated = msgspec.json.decode(text, type=list[Generated])
        except msgspec.MsgspecError as error:
            raise ServerError(f"/generate answered without what is measured: {error}") from None
        if [one.meta_info.prompt_tokens for one in generated] != [len(prompt) for prompt in prompts]:
            raise ServerError("/generate answered other prompts than it was asked")
        for one in generated:
            if one.meta_info.completion_tokens != new_tokens:
                raise ServerError(f"a request said {one.meta_info.completion_tokens} tokens instead of {new_tokens}")
        return [_answer(one.meta_info) for one in generated]

    async def flush(self) -> None:
        """Empty its cache; it takes a moment until the server knows that it is idle. Raises ServerError."""
        for _ in range(FLUSH_TRIES):
            async with self._request("POST", "/flush_cache", None) as response:
                if response.status == OK:
                    return
            await asyncio.sleep(FLUSH_AGAIN_S)
        raise ServerError("/flush_cache is refused: does somebody else use this server?")

    async def facts(self, gpu: str, gpu_bytes: int) -> Facts:
        """Of server, model and machine. Raises ServerError for a server that cannot be measured."""
        try:
            info = msgspec.json.decode(await self._call("GET", "/server_info", None), type=ServerInfo)
        except msgspec.MsgspecError as error:
            raise ServerError(f"{self._url}/server_info is not SGLang's: {error}") from None
        _refuse_unmeasurable(info)
        if not gpu:
            gpu, gpu_bytes = ("cpu", 0) if info.device == "cpu" else await asyncio.to_thread(_gpu)
        shape = _shape(info)
        longest = shape.max_position_embeddings if shape else info.max_req_input_len
        return Facts(
            sglang=info.version,
            model=info.served_model_name,
            gpu=gpu,
            gpus=info.tp_size * info.pp_size,
            gpu_bytes=gpu_bytes,
            kv_tokens=info.max_total_num_tokens,
            context_tokens=info.context_length or longest,
            page_tokens=info.page_size,
            chunk_tokens=_chunk_tokens(info),
            max_running=info.internal_states[0].effective_max_running_requests_per_dp,
            tensor_parallel=info.tp_size,
            kv_element_bytes=1 if info.kv_cache_dtype.startswith("fp8") else 2,
            attention=info.attention_backend or "",
            shape=shape,
            loaded_weight_bytes=info.internal_states[0].memory_usage.weight * 2**30,
        )

    async def _call(self, method: str, path: str, body: object) -> bytes:
        async with self._request(method, path, body) as response:
            try:
                text = await response.read()
            except (OSError, aiohttp.ClientError, TimeoutError) as error:
                raise ServerError(f"{path} broke off: {error!r}") from error
            if response.status != OK:
                raise ServerError(f"{path} answered {response.status}: {text.decode(errors='replace')[:SAID]}")
            return text

    def _request(self, method: str, path: str, body: object) -> "_Request":
        return _Request(self._http, method, self._url + path, None if body is None else msgspec.json.encode(body))


class _Request:
    """A request whose failure to connect is a ServerError."""

    def __init__(self, http: aiohttp.ClientSession, method: str, url: str, body: bytes | None) -> None:
        self._url = url
        self._made = http.request(method, url, data=body, headers={"Content-Type": "application/json"})

    async def __aenter__(self) -> aiohttp.ClientResponse:
        try:
            return await self._made.__aenter__()
        except (OSError, aiohttp.ClientError, TimeoutError) as error:
            raise ServerError(f"{self._url} does not answer: {error!r}") from error

    async def __aexit__(self, *raised: object) -> None:
        await self._made.__aexit__(None, None, None)


def _answer(meta: MetaInfo) -> Answer:
    if not 0 < meta.forward_entry_time < meta.prefill_finished_time <= meta.request_finished_ts:
        raise ServerError("a request's times are not in order; was the machine's clock set meanwhile?")
    return Answer(
        meta.forward_entry_time,
        meta.prefill_finished_time,
        meta.request_finished_ts,
        meta.cached_tokens,
        meta.num_retractions,
    )


def _refuse_unmeasurable(info: ServerInfo) -> None:
    if not info.enable_metrics:
        raise ServerError("the server does not tell its scheduler's times: start it with --enable-metrics")
    if info.disable_radix_cache:
        raise ServerError("the server has no prefix cache, which decode is measured with: leave --disable-radix-cache")
    if info.speculative_algorithm:
        raise ServerError("with speculative decoding a pass is not a token: leave --speculative-algorithm")
    if info.dp_size > 1:
        raise ServerError("one data-parallel rank can be measured: start it with --dp-size 1")
    if info.pp_size > 1:
        raise ServerError("the profile's iterations know no pipeline: start it with --pp-size 1")


def _chunk_tokens(info: ServerInfo) -> int:
    chunk_tokens = info.chunked_prefill_size or 0
    return chunk_tokens if chunk_tokens > 0 else info.max_req_input_len


def _shape(info: ServerInfo) -> ModelShape | None:
    """None for a model whose costs are not the plain ones of 16 bits."""
    config = Path(info.model_path) / "config.json"
    if info.quantization is not None or info.dtype not in {"auto", "bfloat16", "float16", "half"}:
        return None
    try:
        return shape_of(config.read_bytes())
    except (OSError, ShapeError):
        return None


def _gpu() -> tuple[str, int]:
    """Name and memory of the GPUs here. Raises ServerError when nobody can tell."""
    try:
        done = subprocess.run(NVIDIA_SMI, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603 - as above
        kinds = {tuple(line.rsplit(",", 1)) for line in done.stdout.strip().splitlines()}
        [(name, mebibytes)] = kinds
        return name.strip(), int(mebibytes) * 2**20
    except (OSError, subprocess.SubprocessError) as error:
        raise ServerError(f"nvidia-smi tells no GPU ({error}): name it with --gpu and --gpu-bytes") from error
    except ValueError:
        raise ServerError("nvidia-smi tells GPUs of several kinds, or none: name one with --gpu, --gpu-bytes") from None
