"""Sends one step to the gateway and reads its stream: times, usage, text and what the response headers say about the
mesh.

No plan and no pacing here (replay), no statistics (report). A refusal with `Retry-After` is waited out and counted as
waiting.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Self

import aiohttp
import msgspec
from msgspec import Struct

STALL_S = 300.0
RETRYABLE = (429, 503)
MAX_RETRY_AFTER_S = 60.0


class StepRequest(Struct, frozen=True):
    """One call: the prompt (one ASCII character per token) and whose it is. `final`: the last step of its session."""

    model: str
    prompt: str
    max_tokens: int
    workflow: str
    session: str
    parent: str | None = None
    final: bool = False


class StepAnswer(Struct):
    """What came back. Times are monotonic seconds; -1 where it never happened. `error` is empty for a complete answer.

    `cached_tokens` is -1 when the usage did not say; `waited` and `control_ms` are the gateway's own words about this
    step.
    """

    sent_s: float
    first_s: float = -1.0
    last_s: float = -1.0
    refused_wait_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = -1
    control_ms: float = -1.0
    waited: str = ""
    worker: str = ""
    text: str = ""
    error: str = ""


class _Choice(Struct):
    text: str = ""


class _CachedTokens(Struct):
    cached_tokens: int | None = None


class _Usage(Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _CachedTokens | None = None


class _Chunk(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: msgspec.Raw = msgspec.Raw()


class SagaFacts(Struct, frozen=True):
    """What the gateway says about a model's engines, as they are (shrunk); `kv_tokens` is the sum over `workers`."""

    speed: float = 1.0
    shrink: int = 1
    context_tokens: int = 0
    page_tokens: int = 1
    kv_tokens: int = 0
    workers: int = 0


class Model(Struct, frozen=True):
    """An entry of `/v1/models`."""

    id: str
    saga: SagaFacts | None = None


class _ModelList(Struct):
    data: list[Model]


class GatewayError(Exception):
    """The gateway cannot be used as it is; the message says what it answered."""


_DECODE_CHUNK = msgspec.json.Decoder(_Chunk).decode
_ENCODE = msgspec.json.Encoder().encode


class GatewayClient:
    """An HTTP client for one gateway; use as an async context manager."""

    def __init__(self, base_url: str, api_key: str = "") -> None:
        self._base_url = base_url.rstrip("/")
        self._api_key = api_key
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        self._http = aiohttp.ClientSession(
            headers=headers,
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=STALL_S),
            # A prompt of a million tokens comes in one body, an answer in many small chunks.
            read_bufsize=2**18,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.close()

    async def models(self) -> list[Model]:
        """The gateway's models. Raises GatewayError when it cannot be reached or does not answer with a list."""
        url = f"{self._base_url}/v1/models"
        try:
            async with self._http.get(url) as response:
                body = await response.read()
                if response.status != 200:
                    raise GatewayError(f"{url} answered {response.status}: {body[:200].decode(errors='replace')}")
            return msgspec.json.decode(body, type=_ModelList).data
        except (aiohttp.ClientError, TimeoutError, msgspec.MsgspecError) as error:
            raise GatewayError(f"{url}: {error}") from error

    async def complete(self, request: StepRequest, on_first: Callable[[], None]) -> StepAnswer:
        """Send one step and read its whole answer; `on_first` is called at the first byte. Never raises for a failed
        step.
        """
        body = _ENCODE(
            {
                "model": request.model,
                "prompt": request.prompt,
                "max_tokens": request.max_tokens,
                "stream": True,
                "ignore_eos": True,
                "stream_options": {"include_usage": True},
            }
        )
        headers = {"X-Saga-Workflow": request.workflow, "X-Saga-Session": request.session}
        if request.parent is not None:
            headers["X-Saga-Parent"] = request.parent
        if request.final:
            headers["X-Saga-Final"] = "1"
        answer = StepAnswer(time.monotonic())
        try:
            while True:
                retry_after_s = await self._attempt(body, headers, answer, on_first)
                if retry_after_s is None:
                    break
                answer.refused_wait_s += retry_after_s
                await asyncio.sleep(retry_after_s)
        except (aiohttp.ClientError, TimeoutError, ConnectionError, msgspec.MsgspecError) as error:
            answer.error = f"{type(error).__name__}: {error}"
        received = answer.completion_tokens or len(answer.text)
        if not answer.error and received != request.max_tokens:
            answer.error = f"expected {request.max_tokens} tokens, got {received}"
        answer.last_s = time.monotonic()
        return answer

    async def _attempt(
        self, body: bytes, headers: dict[str, str], answer: StepAnswer, on_first: Callable[[], None]
    ) -> float | None:
        """Seconds to wait before the next attempt, or None when the answer is settled, well or not."""
        async with self._http.post(f"{self._base_url}/v1/completions", data=body, headers=headers) as response:
            if response.status in RETRYABLE and "Retry-After" in response.headers:
                await response.read()
                return _retry_after_s(response.headers["Retry-After"])
            if response.status != 200:
                text = (await response.read())[:300].decode(errors="replace")
                answer.error = f"HTTP {response.status}: {text}"
                return None
            answer.waited = response.headers.get("X-Saga-Waited", "")
            answer.worker = response.headers.get("X-Saga-Worker", "")
            answer.control_ms = _number(response.headers.get("X-Saga-Control-Ms"))
            await _read_stream(response.content, answer, on_first)
            return None


async def _read_stream(content: aiohttp.StreamReader, answer: StepAnswer, on_first: Callable[[], None]) -> None:
    """Read server-sent events to `[DONE]`, filling `answer`. A stream that ends before is an error."""
    parts: list[str] = []
    rest = b""
    while data := await content.readany():
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if not line.startswith(b"data:"):
                if line.startswith(b": X-Saga-"):
                    _take_comment(line.decode(errors="replace"), answer)
                continue  # a blank line, or a comment that keeps proxies alive
            payload = line[5:].strip()
            if payload == b"[DONE]":
                answer.text = "".join(parts)
                await content.read()  # the end of the body: only then is the connection free for the next step
                return
            chunk = _DECODE_CHUNK(payload)
            if chunk.choices and chunk.choices[0].text:
                if not parts:
                    answer.first_s = time.monotonic()
                    on_first()
                parts.append(chunk.choices[0].text)
            _take_rest(chunk, answer)
    answer.error = answer.error or "the stream ended before [DONE]"


def _take_comment(line: str, answer: StepAnswer) -> None:
    """A step that waited long gets its headers before its grant, and what they lack as comments after it."""
    name, _, value = line[2:].partition(": ")
    match name:
        case "X-Saga-Waited":
            answer.waited = value.strip()
        case "X-Saga-Worker":
            answer.worker = value.strip()
        case "X-Saga-Control-Ms":
            answer.control_ms = _number(value)


def _take_rest(chunk: _Chunk, answer: StepAnswer) -> None:
    """Usage and error of a chunk; most have neither."""
    if bytes(chunk.error) not in {b"", b"null"}:
        answer.error = f"stream error: {bytes(chunk.error)[:300].decode(errors='replace')}"
    usage = chunk.usage
    if usage is None:
        return
    answer.prompt_tokens = usage.prompt_tokens
    answer.completion_tokens = usage.completion_tokens
    if usage.prompt_tokens_details is not None and usage.prompt_tokens_details.cached_tokens is not None:
        answer.cached_tokens = usage.prompt_tokens_details.cached_tokens


def _retry_after_s(header: str) -> float:
    """Seconds of a `Retry-After`; the date form, which our gateway never sends, counts as one second."""
    seconds = _number(header)
    return min(seconds, MAX_RETRY_AFTER_S) if seconds >= 0 else 1.0


def _number(header: str | None) -> float:
    try:
        return float(header) if header is not None else -1.0
    except ValueError:
        return -1.0
