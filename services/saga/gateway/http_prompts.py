"""A request's prompt from messages to page hashes, and whether the engine agrees. Off the event loop where it is large.

Joins the tokenizers of models (`prompt_tokens.py`), the sessions' last prompts (`sessions.py`) and what engines say of
our counts (`agreement.py`). Where they disagree, steps go without page hashes, and placement goes by what the worker
agents learn of the session from its engine (docs/tokens.md).
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

import msgspec

from saga.contract.ids import PoolId
from saga.gateway import sessions
from saga.gateway.agreement import Agreement, Finding
from saga.gateway.dialects.dialect import Asked
from saga.gateway.fleet import Pool
from saga.gateway.http_connection import EngineLostError
from saga.gateway.http_engine import Departure, EngineClient
from saga.gateway.identity import Identity
from saga.gateway.prompt_tokens import BYTES, Prompted, Tokenizer
from saga.gateway.sessions import Prompt, SessionChains
from saga.kv.tokens import decode_ids, encode_ids, token_count
from saga.runtime import metrics
from saga.runtime.log import get_logger

TOKENIZE: Final = "/v1/tokenize"
ASK_UP_TO_TOKENS: Final = 32_768  # an engine is not asked for more
ASK_WITHIN_S: Final = 10.0
_ASKED: Final = (
    "model",
    "messages",
    "prompt",
    "tools",
    "tool_choice",
    "chat_template_kwargs",
    "reasoning_effort",
    "continue_final_message",
)

COMPARED: Final = metrics.counter(
    "saga_gateway_prompt_counts_total", "Prompts by whether the engine counted as many tokens", ["pool", "api", "same"]
)
TRUSTED: Final = metrics.gauge(
    "saga_gateway_pages_trusted", "1: page hashes of ours place steps; 0: what engines say of sessions", ["pool", "api"]
)
log = get_logger()
T = TypeVar("T")


class _Tokenized(msgspec.Struct):
    """An engine's answer."""

    tokens: list[int]


class Ready(msgspec.Struct, frozen=True):
    """A request with its prompt in tokens."""

    asked: Asked
    prompt: Prompt
    pages_known: bool  # the engine's pages will have these hashes, as far as anybody knows
    exact: bool  # its count says whether we have the right tokenizer
    words: Callable[[str], bytes] | None  # tokens of the answer; None: not known
    ids: Mapping[str, object]  # for the engine's body, where the gateway renders


class Prompts:
    """Of all requests."""

    def __init__(
        self, tokenizers: Mapping[str, Tokenizer], engines: EngineClient, chains: SessionChains, *, send_ids: bool
    ) -> None:
        """`tokenizers`: by model; `*`: of all others. `send_ids`: engines get token ids where they take them."""
        self._tokenizers = tokenizers
        self._engines = engines
        self._chains = chains
        self._send_ids = send_ids
        self._agreement = Agreement()
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="tokenize")

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def aside(self, work: Callable[..., T], *arguments: object) -> T:
        """In a thread, so that a large prompt does not hold up every stream."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *arguments))

    async def ready(self, asked: Asked, whose: Identity, pool: Pool, cache_salt: str, *, aside: bool) -> Ready:
        """The request with its prompt."""
        tokenizer = self._tokenizer(pool.pool)
        last = self._chains.last(whose.session) if whose.lasting else None
        working = partial(_work, tokenizer or BYTES, asked, last, pool.page_tokens, cache_salt)
        prompted, prompt = await self.aside(working) if aside else working()
        believed = self._agreement.trusts(pool.pool, asked.api, whose.session) and not prompted.unknown
        token_bytes = prompt.token_bytes
        guessed = 0 if believed else self._agreement.guess(pool.pool, asked.api, token_count(token_bytes))
        known = believed or tokenizer is not None
        return Ready(
            asked=msgspec.structs.replace(asked, token_bytes=token_bytes, guessed_tokens=guessed),
            prompt=prompt,
            pages_known=believed,
            exact=prompted.exact,
            words=(tokenizer or BYTES).words if known else None,
            ids=self._ids(asked, prompted) if self._send_ids and tokenizer is not None and prompted.exact else {},
        )

    def answered(
        self, ready: Ready, whose: Identity, pool: Pool, engine_url: str, prompt_tokens: int
    ) -> Coroutine[None, None, None] | None:
        """An engine has said how long it found the prompt. Returns what to await beside, if it shall say more."""
        asked, name = ready.asked, pool.pool
        ours = token_count(ready.prompt.token_bytes)
        COMPARED.labels(name, asked.api, "yes" if ours == prompt_tokens else "no").inc()
        self._found(
            name,
            asked,
            self._agreement.counted(
                name, asked.api, whose.session, ours=ours, engines=prompt_tokens, exact=ready.exact
            ),
            f"an engine counted {prompt_tokens} tokens in a prompt of {ours}",
        )
        TRUSTED.labels(name, asked.api).set((name, asked.api) not in self._agreement.untrusted())
        if not ready.exact or asked.api not in ("chat", "completions") or ours > ASK_UP_TO_TOKENS:
            return None
        if ready.ids:  # the engine has computed what we sent, whatever it would have made of the messages
            return None
        if not self._agreement.asks(name, asked.api):
            return None
        return self._compare(ready, name, engine_url)

    async def _compare(self, ready: Ready, pool: PoolId, engine_url: str) -> None:
        """Ask the engine for its tokens of the prompt."""
        raw = ready.asked.raw
        body = msgspec.json.encode({name: raw[name] for name in _ASKED if name in raw})
        try:
            async with asyncio.timeout(ASK_WITHIN_S):
                reply = await self._engines.post(engine_url, TOKENIZE, body, Departure(lambda: True))
                try:
                    text = await reply.read()
                finally:
                    reply.close()
            if reply.status != 200:
                return
            same = encode_ids(msgspec.json.decode(text, type=_Tokenized).tokens) == ready.prompt.token_bytes
        except (EngineLostError, TimeoutError, msgspec.DecodeError, ValueError):
            return  # it does not say: its counts have to do
        told = "an engine has other tokens for a prompt of the same length"
        self._found(pool, ready.asked, self._agreement.tokenized(pool, ready.asked.api, same=same), told)

    def _found(self, pool: PoolId, asked: Asked, finding: Finding, why: str) -> None:
        if not finding:
            return
        known = self._tokenizer(pool) is not None
        if finding == "back":
            log.info("tokens.agree", pool=pool, api=asked.api, detail="page hashes place its steps again")
            return
        advice = "are its tokenizer.json and chat template the engine's?" if known else "set SAGA_GATEWAY_TOKENIZERS"
        log.warning(
            "tokens.disagree",
            pool=pool,
            api=asked.api,
            why=why,
            detail=f"its steps are placed by what engines say of their sessions; {advice}",
        )

    def _tokenizer(self, pool: PoolId) -> Tokenizer | None:
        return self._tokenizers.get(pool) or self._tokenizers.get("*")

    def _ids(self, asked: Asked, prompted: Prompted) -> Mapping[str, object]:
        """SGLang takes ids beside a chat's messages, and for a text's prompt; in its other APIs it has no place."""
        field = {"chat": "input_ids", "completions": "prompt"}.get(asked.api)
        return {field: decode_ids(prompted.encoded.token_bytes)} if field else {}


def _work(
    tokenizer: Tokenizer, asked: Asked, last: Prompt | None, page_tokens: int, cache_salt: str
) -> tuple[Prompted, Prompt]:
    """May run in a thread."""
    prompted = tokenizer.prompted(asked, last.encoded if last is not None else None)
    encoded = prompted.encoded
    prompt = sessions.advance(last, encoded.token_bytes, page_tokens, cache_salt)
    return prompted, msgspec.structs.replace(prompt, encoded=encoded) if encoded.cuts else prompt
