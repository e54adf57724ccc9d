"""Sends one step to an endpoint and reads its stream: times, usage, text and what the response headers say.

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

from saga.load.apis import ANTHROPIC_VERSION, PATHS, Api, Said, Turn, body_of, read_event

STALL_S = 300.0
RETRYABLE = (429, 503)
MAX_RETRY_AFTER_S = 60.0
WORKER_HEADERS = ("X-Saga-Worker", "x-smg-routed-worker-id")


class Speech(Struct, frozen=True):
    """How an endpoint is spoken to. `session_header`: gets the session's id in place of SAGA's own headers; empty: no
    header says whose a step is; None: SAGA's own. `exact`: an answer of another length than asked for is a failure.
    """

    api: Api = "completions"
    session_header: str | None = None
    ignore_eos: bool = True
    exact: bool = True


class StepRequest(Struct, frozen=True):
    """One call: the prompt (one ASCII character per token) and whose it is. `final`: the last step of its session.

    `turns`: the prompt as messages, for APIs that have them; empty: it is one message.
    """

    model: str
    prompt: str
    max_tokens: int
    workflow: str
    session: str
    parent: str | None = None
    final: bool = False
    turns: tuple[Turn, ...] = ()


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


class SagaFacts(Struct, frozen=True):
    """What the gateway says about a model's engines, as they are (shrunk); `kv_tokens` is the sum over `workers`."""

    speed: float = 1.0
    shrink: int = 1
    context_tokens: int = 0
    page_tokens: int = 1
    kv_tokens: int = 0
    workers: int = 0


class Model(Struct, frozen=True):
    """An entry of `/v1/models`. `max_model_len`: its context, where the server says so."""

    id: str
    max_model_len: int | None = None
    saga: SagaFacts | None = None


class _ModelList(Struct):
    data: list[Model]


class GatewayError(Exception):
    """The gateway cannot be used as it is; the message says what it answered."""


_ENCODE = msgspec.json.Encoder().encode
PLAIN = Speech()


class GatewayClient:
    """An HTTP client for one gateway, router or engine; use as an async context manager."""

    def __init__(self, base_url: str, api_key: str = "", speech: Speech = PLAIN) -> None:
        self._base_url = base_url.rstrip("/").removesuffix("/v1")
        self._api_key = api_key
        self._speech = speech
        self._url = self._base_url + PATHS[speech.api]
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        headers = {"Content-Type": "application/json"}
        if self._api_key:
            headers["Authorization"] = f"Bearer {self._api_key}"
        if self._speech.api == "messages":
            headers |= {"anthropic-version": ANTHROPIC_VERSION, "x-api-key": self._api_key}
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
        speech = self._speech
        turns = request.turns or (Turn("user", request.prompt),)
        body = _ENCODE(body_of(speech.api, request.model, turns, request.max_tokens, ignore_eos=speech.ignore_eos))
        headers = _whose(request, speech.session_header)
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
        if not answer.error and (received != request.max_tokens if speech.exact else not received):
            answer.error = f"expected {request.max_tokens} tokens, got {received}"
        answer.last_s = time.monotonic()
        return answer

    async def _attempt(
        self, body: bytes, headers: dict[str, str], answer: StepAnswer, on_first: Callable[[], None]
    ) -> float | None:
        """Seconds to wait before the next attempt, or None when the answer is settled, well or not."""
        async with self._http.post(self._url, data=body, headers=headers) as response:
            if response.status in RETRYABLE and "Retry-After" in response.headers:
                await response.read()
                return _retry_after_s(response.headers["Retry-After"])
            if response.status != 200:
                text = (await response.read())[:300].decode(errors="replace")
                answer.error = f"HTTP {response.status}: {text}"
                return None
            answer.waited = response.headers.get("X-Saga-Waited", "")
            answer.worker = next((response.headers[name] for name in WORKER_HEADERS if name in response.headers), "")
            answer.control_ms = _number(response.headers.get("X-Saga-Control-Ms"))
            await _read_stream(response.content, answer, on_first)
            return None


def _whose(request: StepRequest, session_header: str | None) -> dict[str, str]:
    """Headers that say which session a step is of."""
    if session_header is not None:
        return {session_header: request.session} if session_header else {}
    headers = {"X-Saga-Workflow": request.workflow, "X-Saga-Session": request.session}
    if request.parent is not None:
        headers["X-Saga-Parent"] = request.parent
    if request.final:
        headers["X-Saga-Final"] = "1"
    return headers


async def _read_stream(content: aiohttp.StreamReader, answer: StepAnswer, on_first: Callable[[], None]) -> None:
    """Read server-sent events to the last, filling `answer`. A stream that ends before is an error."""
    parts: list[str] = []
    rest = b""
    while data := await content.readany():
        lines = (rest + data).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if not line.startswith(b"data:"):
                if line.startswith(b": X-Saga-"):
                    _take_comment(line.decode(errors="replace"), answer)
                continue  # a blank line, an event's name, or a comment that keeps proxies alive
            said = read_event(line[5:].strip())
            if said.text:
                if not parts:
                    answer.first_s = time.monotonic()
                    on_first()
                parts.append(said.text)
            _take_rest(said, answer)
            if said.ended:
                answer.text = "".join(parts)
                await content.read()  # the end of the body: only then is the connection free for the next step
                return
    answer.error = answer.error or "the stream ended before its last event"


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


def _take_rest(said: Said, answer: StepAnswer) -> None:
    """Usage and error of an event; most have neither."""
    if said.error:
        answer.error = f"stream error: {said.error}"
    if said.prompt_tokens >= 0:
        answer.prompt_tokens = said.prompt_tokens
    if said.completion_tokens >= 0:
        answer.completion_tokens = said.completion_tokens
    if said.cached_tokens >= 0:
        answer.cached_tokens = said.cached_tokens


def _retry_after_s(header: str) -> float:
    """Seconds of a `Retry-After`; the date form, which our gateway never sends, counts as one second."""
    seconds = _number(header)
    return min(seconds, MAX_RETRY_AFTER_S) if seconds >= 0 else 1.0


def _number(header: str | None) -> float:
    try:
        return float(header) if header is not None else -1.0
    except ValueError:
        return -1.0
