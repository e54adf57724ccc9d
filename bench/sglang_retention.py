"""What retention saves on real SGLang: tokens prefilled though they had been cached once, by SGLang's own counts.

The same replay of recorded sessions over two real servers with small KV pools, for three systems in turn:
session-affinity with SGLang as it comes (LRU), saga without session tags (LRU too), saga. Lengths are divided by
`--shrink`, recorded gaps are waited, up to `--gap-cap` seconds. Goal: saga at least 20 % below stock LRU. The model is
tiny and runs on a CPU, so times are printed by `saga bench live`, but say nothing of a GPU.
Needs `make sglang-cpu` and recorded sessions; says so and ends otherwise.
Run: python bench/sglang_retention.py --seeds 3 --json FILE; `--systems session-affinity,round-robin,saga` for the order
"""

import argparse
import sys
import tempfile
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from saga.load.cli import main as bench
from saga.load.settings import recorded_sessions

ENVIRONMENT = Path(__file__).parents[1] / ".venv-sglang"
SYSTEMS = ("session-affinity", "saga-no-tags", "saga")
GOAL = 0.20


def main() -> int:
    """0 if all steps of all systems were answered."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=Path, default=recorded_sessions())
    parser.add_argument("--limit", type=int, default=16, help="sessions")
    parser.add_argument("--max-steps", type=int, default=10, help="first steps of each")
    parser.add_argument("--gap-cap", type=float, default=20.0, help="longest gap, seconds")
    parser.add_argument("--shrink", type=int, default=16)
    parser.add_argument("--kv-tokens", type=int, default=16_384, help="of each server")
    parser.add_argument("--seeds", type=int, default=1, help="choices of sessions, each on servers of its own")
    parser.add_argument("--systems", default=",".join(SYSTEMS), metavar="A,B", help="the first is compared with")
    parser.add_argument("--json", type=Path)
    flags = parser.parse_args()
    for needed in (ENVIRONMENT / "bin" / "python", flags.sessions):
        if not needed.exists():
            print(f"{needed} is missing: left out (make sglang-cpu builds the servers)")
            return 0
    documents = [_replay(flags, seed) for seed in range(flags.seeds)]
    if None in documents:
        return 1
    _show([document for document in documents if document is not None])
    if flags.json is not None:
        flags.json.write_bytes(orjson.dumps(documents, option=orjson.OPT_INDENT_2) + b"\n")
    return 0


def _replay(flags: argparse.Namespace, seed: int) -> dict[str, dict[str, int]] | None:
    """Prompt, cached and regenerated tokens by system, as shrunk; None when a step failed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "out.json"
        model, python = ENVIRONMENT / "tiny-model", ENVIRONMENT / "bin" / "python"
        command = (
            f"live --engine sglang --model {model} --sglang-python {python} "
            f"--workers 2 --sessions {flags.sessions} --limit {flags.limit} --max-steps {flags.max_steps} "
            f"--gap-cap {flags.gap_cap} --shrink {flags.shrink} --kv-tokens {flags.kv_tokens} --seed {seed} "
            f"--system {flags.systems} --json {file}"
        )
        if bench([*command.split(), "--sglang-args", "--load-format dummy"]) != 0:
            return None
        said = orjson.loads(file.read_bytes())
    counted = ("prompt_tokens", "cached_tokens", "regenerated_tokens")
    return {system["system"]: {name: system[name] for name in counted} for system in said["systems"]}


def _show(documents: list[dict[str, dict[str, int]]]) -> None:
    table = Table(title="Tokens prefilled though they had been cached once, two real SGLang servers")
    for column in ("seed", "system", "prompt tokens", "cached", "regenerated", "against stock LRU"):
        table.add_column(column, justify="left" if column == "system" else "right")
    for seed, document in enumerate(documents):
        stock = next(iter(document.values()))["regenerated_tokens"]
        for system, counts in document.items():
            less = f"{counts['regenerated_tokens'] / stock - 1:+.0%}" if stock else "-"
            cells = (f"{counts[name]:,}" for name in ("prompt_tokens", "cached_tokens", "regenerated_tokens"))
            table.add_row(str(seed), system, *cells, less)
    Console().print(table)
    print(f"goal: saga at most {-GOAL:+.0%}")


if __name__ == "__main__":
    sys.exit(main())
