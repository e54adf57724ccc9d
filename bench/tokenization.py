"""What a step's prompt costs a gateway, from the body's bytes to page hashes, beyond tokenizing what is new in it.

    python bench/tokenization.py [--steps 15] [--json]

Sessions of about 20K, 40K and 110K tokens in turns of 1K (a tool's call and result), with tools, through the chat API.
Each step brings 1K new tokens. Measured in one run, in turns, so that all see the same machine: the step with the
session's last prompt at hand; the same without (what a gateway pays that has forgotten it); and the tokenizer alone
on the new text. The tokenizer is a BPE of 32,000 tokens trained here on this repository, with Qwen's way of splitting
words; its speed is the library's (Hugging Face's tokenizers). CPU time of this process, on one core: others share it.
"""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from model_folder import TEMPLATE, tokenizer  # noqa: E402 - after the path

from saga.contract.ids import TenantId  # noqa: E402
from saga.gateway.dialects.dialect import understood  # noqa: E402
from saga.gateway.dialects.table import DIALECTS  # noqa: E402
from saga.gateway.hygiene import Hygiene  # noqa: E402
from saga.gateway.prompt_tokens import ModelTokenizer, model_tokenizer  # noqa: E402
from saga.gateway.sessions import Prompt, advance  # noqa: E402
from saga.gateway.vocabulary import Encoded  # noqa: E402
from saga.kv.tokens import token_count  # noqa: E402

TURN_TOKENS = 1_000
SESSIONS_TOKENS = (10_000, 30_000, 100_000)
PAGE_TOKENS = 64
GOAL_MS = 3.0
P = ParamSpec("P")
T = TypeVar("T")
CHAT = DIALECTS["chat"]
TOOLS = [
    {
        "type": "function",
        "function": {"name": f"tool_{n}", "description": "Does it. " * 20, "parameters": {"type": "object"}},
    }
    for n in range(15)
]


def corpus() -> list[str]:
    """This repository's code and pages."""
    files = sorted([*ROOT.glob("services/**/*.py"), *ROOT.glob("shared/**/*.py"), *ROOT.glob("docs/*.md")])
    return [file.read_text(encoding="utf-8") for file in files]


def turns(made: ModelTokenizer, texts: list[str], count: int) -> list[list[dict[str, object]]]:
    """Each a call of a tool and its result, together a thousand tokens, no two alike."""
    text, at = "".join(texts), 0
    said = []
    for number in range(count):
        chars = 4 * TURN_TOKENS
        for _ in range(3):
            chars = round(chars * (TURN_TOKENS - 60) / made.vocabulary.count(text[at : at + chars]))
        at = (at + chars) % (len(text) - 8 * TURN_TOKENS)
        arguments = json.dumps({"path": f"file_{number}.py", "line": number})
        call = {"id": f"c{number}", "type": "function", "function": {"name": "tool_1", "arguments": arguments}}
        said.append(
            [
                {"role": "assistant", "content": f"I look at {number}.", "tool_calls": [call]},
                {"role": "tool", "tool_call_id": f"c{number}", "content": f"{number} " + text[at : at + chars]},
            ]
        )
    return said


def bodies(said: list[list[dict[str, object]]], first: int, steps: int) -> list[bytes]:
    """The requests of one session's last steps."""
    head = [{"role": "system", "content": "You fix code. " * 100}, {"role": "user", "content": "Fix the test."}]
    made = []
    for step in range(steps):
        messages = [*head, *[message for turn in said[: first + step] for message in turn]]
        made.append(json.dumps({"model": "m", "messages": messages, "tools": TOOLS, "stream": True}).encode())
    return made


def step_of(made: ModelTokenizer, hygiene: Hygiene, body: bytes, last: Prompt | None) -> Prompt:
    """All that a gateway does to a prompt."""
    asked = understood(CHAT, body)
    prompted = made.prompted(asked, last.encoded if last is not None else None)
    encoded = prompted.encoded
    prompt = advance(last, encoded.token_bytes, PAGE_TOKENS, "salt")
    prompt = Prompt(prompt.token_bytes, prompt.chain, prompt.base_pages, encoded)
    head = hygiene.head("chat", asked.raw, asked.roles)
    hygiene.look(TenantId("t"), head, encoded.token_bytes, last.token_bytes if last is not None else b"")
    prompt.new_hashes()
    return prompt


def cpu_ms(work: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> tuple[float, T]:
    """(CPU time of this process, all its threads; what came of it)."""
    began = time.process_time()
    made = work(*arguments, **named)
    return 1000.0 * (time.process_time() - began), made


def measured(made: ModelTokenizer, said: list[list[dict[str, object]]], steps: int) -> dict[int, dict[str, float]]:
    """Medians by length of the session, in ms of CPU time."""
    hygiene = Hygiene()
    sent = {size: bodies(said, size // TURN_TOKENS, steps + 1) for size in SESSIONS_TOKENS}
    last = {size: step_of(made, hygiene, sent[size][0], None) for size in SESSIONS_TOKENS}
    seen: dict[int, dict[str, list[float]]] = {
        size: {name: [] for name in ("step", "alone", "beyond", "whole", "tokens", "new")} for size in SESSIONS_TOKENS
    }
    for step in range(1, steps + 1):
        for size in SESSIONS_TOKENS:
            before, body, here = last[size], sent[size][step], seen[size]
            took_ms, prompt = cpu_ms(step_of, made, hygiene, body, before)
            here["step"].append(took_ms)
            last[size] = prompt
            encoded = prompt.encoded
            assert encoded is not None
            new_text = encoded.text[_start(encoded) :]
            here["alone"].append(cpu_ms(made.vocabulary.count, new_text)[0])
            here["beyond"].append(here["step"][-1] - here["alone"][-1])
            if step <= 3:
                here["whole"].append(cpu_ms(step_of, made, hygiene, body, None)[0])
            here["tokens"].append(token_count(encoded.token_bytes))
            here["new"].append(token_count(encoded.token_bytes) - encoded.reused_tokens)
    return {
        size: {name: statistics.median(values) for name, values in of.items()} | {"worst": max(of["beyond"])}
        for size, of in seen.items()
    }


def _start(encoded: Encoded) -> int:
    """Where the text begins that was tokenized anew."""
    return next(cut.chars for cut in encoded.cuts if cut.tokens == encoded.reused_tokens)


def main() -> None:
    """Measure and say so."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args()
    texts = corpus()
    library = tokenizer(32_000, texts)
    made = model_tokenizer(library.to_str(), json.dumps({"chat_template": TEMPLATE}), None, time.time)
    said = turns(made, texts, max(SESSIONS_TOKENS) // TURN_TOKENS + flags.steps + 1)
    rows = measured(made, said, flags.steps)
    if flags.json:
        print(json.dumps(rows, indent=1))
        return
    print(
        "prompt     new    step    tokenizer alone   beyond it (worst)   without the last prompt   ms of CPU, medians"
    )
    for row in rows.values():
        print(
            f"{row['tokens']:7.0f} {row['new']:6.0f} {row['step']:7.2f} {row['alone']:12.2f} "
            f"{row['beyond']:14.2f} ({row['worst']:5.2f}) {row['whole']:18.1f}"
        )
    beyond = rows[max(rows)]["beyond"]
    print(f"goal: {GOAL_MS} ms beyond the new tokens' own, at 100K: {'met' if beyond <= GOAL_MS else 'missed'}")


if __name__ == "__main__":
    main()
