"""Measures a running SGLang server: how long prefill and decode take, by length, batch and context. Writes JSON lines.

    python bench/gpu/measure.py --url http://127.0.0.1:30000 --out measurements.jsonl

Times are the scheduler's own (`--enable-metrics`): a prefill from its first chunk to its first token; a decode from the
last first token of a batch to its end, its prompts in the cache. Prompts are random token ids. The server must be left
alone meanwhile: its cache is emptied again and again. Run by bench/gpu.sh with SGLang's Python; needs aiohttp, msgspec.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import IO

import aiohttp
import msgspec
from server import Answer, Server, ServerError

from saga.engine.measurements import DecodeTime, End, Facts, Failure, Line, PrefillTime

KV_SHARE = 0.6  # of the KV that one setting may take, so that nothing is evicted or retracted meanwhile
CONTEXT_SPARE = 16
SHORTEST = 64
TOGETHER = 0.15  # of a decode, the part in which some requests of a batch may be through already
UNKNOWN_VOCABULARY = 30_000
SPECIAL_IDS = 10


class Plan(msgspec.Struct, frozen=True):
    """What is measured where there is room for it."""

    longest_prompt: int
    largest_batch: int
    repetitions: int
    passes: int
    budget_s: float


def doubled(first: int, last: int) -> list[int]:
    """first, twice that, ... up to `last`."""
    return [first << power for power in range(64) if first << power <= last]


def prefills(plan: Plan, facts: Facts) -> list[tuple[int, int]]:
    """(prompt tokens, cached tokens of it): cold ones, then some after much and after little in the cache."""
    longest = min(plan.longest_prompt, facts.context_tokens - CONTEXT_SPARE, int(KV_SHARE * facts.kv_tokens))
    cold = [(tokens, 0) for tokens in doubled(SHORTEST, longest)]
    starts = sorted({longest // part // facts.page_tokens * facts.page_tokens for part in (8, 2)} - {0})
    return cold + [(start + new, start) for start in starts for new in (128, 512, 2048, 8192) if start + new <= longest]


def decodes(plan: Plan, facts: Facts) -> Iterator[tuple[int, list[int]]]:
    """Prompt tokens, and the batches of such requests that there is room for."""
    for prompt_tokens in doubled(2 * SHORTEST, plan.longest_prompt):
        whole = prompt_tokens + plan.passes + 1
        room = min(plan.largest_batch, facts.max_running, int(KV_SHARE * facts.kv_tokens) // whole)
        is_step = prompt_tokens.bit_length() % 2 == 0  # 128, 512, 2,048, ...
        if is_step and room >= 1 and whole <= facts.context_tokens - CONTEXT_SPARE:
            yield prompt_tokens, doubled(1, room)


class Measurement:
    """One file of measurements of one server."""

    def __init__(self, server: Server, facts: Facts, plan: Plan, out: IO[bytes], seed: int) -> None:
        self._server = server
        self._facts = facts
        self._plan = plan
        self._out = out
        self._random = Random(seed)
        self._times = 0
        self._left_out: list[str] = []
        self._until_s = time.monotonic() + plan.budget_s
        vocabulary = facts.shape.vocab_size if facts.shape else UNKNOWN_VOCABULARY
        self._ids = range(SPECIAL_IDS, vocabulary - SPECIAL_IDS)

    async def run(self) -> None:
        """All of it. Raises ServerError when a request fails, after a line that tells so."""
        self._write(self._facts)
        doing = "the server's warm-up"
        try:
            await self._server.ask([self._prompt(SHORTEST)], 2)
            for prompt_tokens, cached_tokens in prefills(self._plan, self._facts):
                doing = f"prefill of {prompt_tokens - cached_tokens:,} tokens after {cached_tokens:,}"
                if self._in_time(doing):
                    await self._prefill(prompt_tokens, cached_tokens)
            for prompt_tokens, batches in decodes(self._plan, self._facts):
                await self._server.flush()
                prompts: list[list[int]] = []
                for batch in batches:
                    doing = f"decode of {batch} x {prompt_tokens:,}"
                    if self._in_time(doing):
                        new = [self._prompt(prompt_tokens) for _ in range(batch - len(prompts))]
                        await self._server.ask(new, 2)  # now their prompts are in the cache
                        prompts += new
                        await self._decode(doing, prompts, prompt_tokens)
        except ServerError as error:
            self._write(Failure(doing, str(error)))
            raise ServerError(f"{doing}: {error}") from error
        self._write(End(self._times, tuple(self._left_out)))

    async def _prefill(self, prompt_tokens: int, cached_tokens: int) -> None:
        """Repetitions after one that does not count: kernels may be compiled in it."""
        await self._server.flush()
        start = self._prompt(cached_tokens)
        if cached_tokens:
            await self._server.ask([start], 1)
        seconds = []
        for _ in range(1 + self._plan.repetitions):
            [answer] = await self._server.ask([start + self._prompt(prompt_tokens - cached_tokens)], 1)
            if answer.cached_tokens != cached_tokens:
                raise ServerError(f"{answer.cached_tokens} tokens were cached instead of {cached_tokens}")
            seconds.append(answer.prefill_s)
        for each in seconds[1:]:
            self._time(PrefillTime(prompt_tokens, cached_tokens, each))
        rate = (prompt_tokens - cached_tokens) / min(seconds[1:])
        say(f"prefill {prompt_tokens - cached_tokens:>7,} after {cached_tokens:>6,}: {rate:>10,.0f} tokens/s")

    async def _decode(self, what: str, prompts: Sequence[list[int]], prompt_tokens: int) -> None:
        batch, passes = len(prompts), self._plan.passes
        done = []
        for _ in range(1 + self._plan.repetitions):
            answers = await self._server.ask(prompts, passes + 1)
            done.append((decode_s(answers), reason_against(answers)))
        good = [seconds for seconds, reason in done[1:] if not reason]
        if not good:
            self._leave_out(what, done[-1][1])
            return
        for seconds in good:
            self._time(DecodeTime(batch, prompt_tokens, passes, seconds))
        say(f"decode  {batch:>7,} x {prompt_tokens:>10,}: {1e3 * min(good) / passes:>8.2f} ms a pass")

    def _prompt(self, tokens: int) -> list[int]:
        return self._random.choices(self._ids, k=tokens)

    def _time(self, line: PrefillTime | DecodeTime) -> None:
        self._times += 1
        self._write(line)

    def _in_time(self, what: str) -> bool:
        if time.monotonic() < self._until_s:
            return True
        self._leave_out(what, f"the {self._plan.budget_s:.0f} s are over")
        return False

    def _leave_out(self, what: str, reason: str) -> None:
        self._left_out.append(f"{what}: {reason}")
        say(f"left out: {what}: {reason}")

    def _write(self, line: Line) -> None:
        self._out.write(msgspec.json.encode(line) + b"\n")
        self._out.flush()


def decode_s(answers: Sequence[Answer]) -> float:
    """From the last first token to the last end."""
    return max(answer.finished_s for answer in answers) - max(answer.prefilled_s for answer in answers)


def reason_against(answers: Sequence[Answer]) -> str:
    """Why this was no decode of the whole batch; empty if it was."""
    if any(answer.retractions for answer in answers):
        return "requests were retracted"
    ends = [answer.finished_s for answer in answers]
    if max(ends) - min(ends) > TOGETHER * decode_s(answers):
        return "not all requests decoded at the same time"
    return ""


def say(text: str) -> None:
    """How far it is."""
    print(text, flush=True)


async def measure(flags: argparse.Namespace) -> None:
    """Facts, then times. Raises ServerError."""
    plan = Plan(flags.longest_prompt, flags.largest_batch, flags.repetitions, flags.passes, flags.budget_s)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=flags.request_s)) as http:
        server = Server(http, flags.url)
        facts = await server.facts(flags.gpu, flags.gpu_bytes)
        say(f"{facts.model} on {facts.gpus} x {facts.gpu}: {facts.kv_tokens:,} tokens of KV, SGLang {facts.sglang}")
        with flags.out.open("wb") as out:
            await Measurement(server, facts, plan, out, flags.seed).run()


def main() -> int:
    """Exit status: 1 when the server cannot be measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--url", required=True, help="of the server")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON lines")
    parser.add_argument("--longest-prompt", type=int, default=32_768, metavar="N", help="tokens (default %(default)s)")
    parser.add_argument("--largest-batch", type=int, default=128, metavar="N", help="default %(default)s")
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="that count (default %(default)s)")
    parser.add_argument("--passes", type=int, default=128, metavar="N", help="of a decode (default %(default)s)")
    parser.add_argument("--budget-s", type=float, default=300.0, metavar="S", help="nothing new after it (default 300)")
    parser.add_argument("--request-s", type=float, default=300.0, metavar="S", help="for one answer (default 300)")
    parser.add_argument("--gpu", default="", metavar="NAME", help="default: what nvidia-smi says")
    parser.add_argument("--gpu-bytes", type=int, default=0, metavar="N", help="memory of one, with --gpu")
    parser.add_argument("--seed", type=int, default=1)
    try:
        asyncio.run(measure(parser.parse_args()))
    except ServerError as error:
        print(f"measure: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
