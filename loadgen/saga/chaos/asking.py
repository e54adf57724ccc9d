"""One HTTP request for a step's streamed answer, and what comes of it. Used by `clients.py`."""

import time
from collections.abc import Mapping

import aiohttp
import msgspec
from msgspec import Struct

from saga.chaos.transcript import SILENCE_S, Outcome, Silence, StepStory

AGAIN_AFTER_S = 0.1  # after a connection that broke
RETRYABLE_STATUS = frozenset({409, 429, 502, 503})
RETRYABLE_TYPE = "retryable_error"
RETRYABLE_CODES = frozenset({"stopping", "no_workers", "overloaded", "engine_failed", "engine_died"})


class _Usage(Struct):
    cached_tokens: int = -1


class _Counts(Struct):
    prompt_tokens_details: _Usage | None = None


class _Error(Struct):
    message: str = ""
    type: str = ""
    code: str | int | None = None


class _Choice(Struct):
    text: str = ""


class _Chunk(Struct):
    choices: list[_Choice] = []
    usage: _Counts | None = None
    error: _Error | None = None


class _Refusal(Struct):
    error: _Error = msgspec.field(default_factory=_Error)


_CHUNK = msgspec.json.Decoder(_Chunk)
_REFUSAL = msgspec.json.Decoder(_Refusal)


class Sign:
    """Notes silences: between two pieces of an answer, or from the step's first sending to the first piece. An attempt
    that fails is no sign."""

    def __init__(self, story: StepStory) -> None:
        self._story = story
        self._last_s = story.sent_s

    def heard(self) -> None:
        """A sign."""
        now_s = time.monotonic()
        if now_s - self._last_s >= SILENCE_S:
            self._story.silences.append(Silence(self._last_s, now_s))
        self._last_s = now_s


class Asking:
    """One request, as it goes."""

    def __init__(self, story: StepStory, sign: Sign) -> None:
        self._story = story
        self._sign = sign
        self._parts: list[str] = []
        self.outcome: Outcome = "wrong"
        self.detail = ""
        self.step_id = ""

    @property
    def text(self) -> str:
        """What came of the answer."""
        return "".join(self._parts)

    def over(self, outcome: Outcome, detail: str = "") -> None:
        """It has come to an end."""
        self.outcome, self.detail = outcome, detail

    async def run(self, http: aiohttp.ClientSession, url: str, body: bytes, headers: Mapping[str, str]) -> float:
        """Sends and reads; seconds until one may ask again. Raises what aiohttp does."""
        async with http.post(url, data=body, headers=headers) as response:
            self.step_id = response.headers.get("X-Saga-Step", "")
            if response.status != 200:
                return self._refused(response.status, response.headers, await response.read())
            await self._read(response.content)
        return AGAIN_AFTER_S

    def _refused(self, status: int, headers: Mapping[str, str], body: bytes) -> float:
        error = _REFUSAL.decode(body).error
        detail = f"{status} {error.code}: {error.message[:100]}"
        if status in RETRYABLE_STATUS and "Retry-After" in headers:
            self.over("retryable", detail)
            return float(headers["Retry-After"])
        self.over("wrong", detail)
        return AGAIN_AFTER_S

    async def _read(self, content: aiohttp.StreamReader) -> None:
        async for line in content:
            if not line.startswith(b"data: "):
                continue
            data = line[6:].strip()
            if data == b"[DONE]":
                self._story.text = self.text
                self.over("answered")
                return
            chunk = _CHUNK.decode(data)
            if chunk.error is not None:
                error = chunk.error
                again = error.type == RETRYABLE_TYPE or error.code in RETRYABLE_CODES
                self.over("retryable" if again else "wrong", f"in the stream: {error.code}: {error.message[:100]}")
                return
            text = "".join(choice.text for choice in chunk.choices)
            if text:
                self._parts.append(text)
                self._sign.heard()
            if chunk.usage is not None and chunk.usage.prompt_tokens_details is not None:
                self._story.cached_tokens = chunk.usage.prompt_tokens_details.cached_tokens
        self.over("cut", "the stream ended before its last event")
