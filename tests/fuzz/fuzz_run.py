"""Fuzzes a gateway in memory: `make fuzz`, or `python tests/fuzz/fuzz_run.py --seed 1 --requests 200000`.

`--model` gives the gateway a model's own tokenizer and template. `--only N` sends request N of the seed alone and shows
what went out and came back. Exit code 1 for any finding.
"""

import argparse
import asyncio
import gc
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fuzz_gateway import open_gateway
from fuzz_requests import Sent, request
from fuzz_transport import Answer
from fuzz_verdict import complaints
from model_folder import TEMPLATE, tokenizer

from saga.gateway.prompt_tokens import Tokenizer, model_tokenizer

AT_ONCE = 32
CHECK_EVERY = 5_000
SHOWN_FINDINGS = 40
WARM_SHARE = 0.5  # of the run, after which memory may no longer grow
MAX_GROWTH_MIB = 24.0  # from there to the end, with all bounded stores full or not
PAGE_KIB = 4
_CODE = re.compile(rb'"code":"([^"]*)"')


def main() -> int:
    """Runs; 0 if nothing was found."""
    parser = argparse.ArgumentParser(description="Send broken and odd requests to a gateway in memory.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--only", type=int, help="the number of one request to send and show")
    parser.add_argument("--model", action="store_true", help="prompts by a model's own tokenizer and template")
    parser.add_argument("--json", type=Path, help="write the result there")
    flags = parser.parse_args()
    if flags.only is not None:
        return uvloop.run(show(request(flags.seed, flags.only), made(model=flags.model)))
    result = uvloop.run(fuzz(flags.seed, flags.requests, made(model=flags.model)))
    print(json.dumps(result, indent=2))
    if flags.json is not None:
        flags.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if result["findings"] else 0


def made(*, model: bool) -> dict[str, Tokenizer]:
    """Tokenizers of the gateway."""
    if not model:
        return {}
    config = json.dumps({"chat_template": TEMPLATE})
    return {"*": model_tokenizer(tokenizer().to_str(), config, None, time.time)}


async def show(sent: Sent, tokenizers: dict[str, Tokenizer]) -> int:
    """One request, in full."""
    async with open_gateway(tokenizers=tokenizers) as gateway:
        answer, wrong = await gateway.asked(sent)
        left = await gateway.settled()
        found = found_in(sent, answer, wrong)
    print(sent.head[:2_000], sent.body[:4_000], sent, sep="\n")
    print(answer.status, answer.headers, answer.body[:4_000], sep="\n")
    print(found, left, gateway.complaints.seen, gateway.engine.problems, sep="\n")
    return 1 if found or left or gateway.complaints.seen else 0


def found_in(sent: Sent, answer: Answer, wrong: str) -> list[str]:
    """All that is wrong with one exchange. A client that left, or sent no request, may have got anything or nothing."""
    if wrong:
        return [wrong]
    if answer.malformed or answer.status >= 400:
        return complaints(sent, answer) if answer.done or answer.malformed else []
    if sent.leaves_after >= 0 or sent.leaves_within >= 0 or sent.broken:
        return []
    return complaints(sent, answer) if answer.done else ["the connection ended without an answer"]


async def fuzz(seed: int, requests: int, tokenizers: dict[str, Tokenizer]) -> dict[str, object]:
    """All requests of a seed, many at once."""
    findings: list[str] = []
    statuses: Counter[str] = Counter()
    codes: Counter[str] = Counter()
    memory: list[tuple[int, float]] = []
    started_s, slowest_s = time.monotonic(), 0.0
    numbers = iter(range(requests))
    async with open_gateway(tokenizers=tokenizers) as gateway:

        def found(number: int, what: str) -> None:
            if len(findings) < SHOWN_FINDINGS:
                findings.append(f"request {number}: {what}")
                print(findings[-1], file=sys.stderr)

        async def client() -> None:
            nonlocal slowest_s
            for number in numbers:
                sent = request(seed, number)
                at_s = time.monotonic()
                answer, wrong = await gateway.asked(sent)
                slowest_s = max(slowest_s, time.monotonic() - at_s)
                statuses[str(answer.status)] += 1
                if code := code_of(answer):
                    codes[code] += 1
                for what in found_in(sent, answer, wrong):
                    found(number, what)
                for seen in (gateway.complaints.seen, gateway.engine.problems):
                    while seen:
                        found(number, f"or one at the same time: {seen.pop(0)}")
                if number % CHECK_EVERY == 0:
                    gc.collect()
                    memory.append((number, resident_mib()))

        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(client())
        for left in await gateway.settled():
            found(requests, left)
        gc.collect()
        memory.append((requests, resident_mib()))
        asked, aborted = gateway.engine.asked, gateway.engine.aborted
    warm = [mib for number, mib in memory if number >= requests * WARM_SHARE]
    growth_mib = warm[-1] - warm[0]
    if requests >= 100_000 and growth_mib > MAX_GROWTH_MIB:
        findings.append(f"memory grew by {growth_mib:.1f} MiB in the second half")
    return {
        "seed": seed,
        "requests": requests,
        "statuses": dict(sorted(statuses.items())),
        "codes": dict(sorted(codes.items())),
        "reached_an_engine": asked,
        "aborted_at_an_engine": aborted,
        "slowest_s": round(slowest_s, 3),
        "resident_mib": {"at_first": memory[0][1], "half_way": warm[0], "at_last": warm[-1]},
        "elapsed_s": round(time.monotonic() - started_s, 1),
        "findings": findings,
    }


def code_of(answer: Answer) -> str:
    """Of an error; empty: it is none, or has none."""
    found = _CODE.search(answer.body) if answer.status >= 400 else None
    return found[1].decode() if found else ""


def resident_mib() -> float:
    """Memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * PAGE_KIB / 1024, 1)


if __name__ == "__main__":
    sys.exit(main())
