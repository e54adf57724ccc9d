"""Fuzzes the parsers at the edge beside HTTP: `python tests/fuzz/fuzz_parsers_run.py --seed 1 --inputs 1000000`.

`--only PARSER` runs one of them, `--number N` with it a single input, shown in full. Exit code 1 for any finding.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fuzz_parsers import one_input, parsers, quiet, run

SHOWN_FINDINGS = 40


def main() -> int:
    """Runs; 0 if nothing was found."""
    parser = argparse.ArgumentParser(description="Give broken input to every parser at the edge beside HTTP.")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--only", default="", help="one parser, by its name in the table")
    parser.add_argument("--number", type=int, default=-1, help="with --only: one input, shown")
    asked = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        if asked.number >= 0:
            one = parsers(Path(folder))[asked.only]
            data = one_input(one, asked.only, asked.seed, asked.number)
            print(data)
            print("taken" if one.parse(data) else "refused")
            return 0
        begun_s = time.process_time()
        told = run(asked.seed, asked.inputs, Path(folder), asked.only)
    total = sum(told.taken.values()) + sum(told.refused.values())
    for name, taken in told.taken.items():
        print(f"{name:16} taken {taken:8,} refused {told.refused[name]:8,} slowest {told.slowest_s[name]:.3f} s")
    for found in told.findings[:SHOWN_FINDINGS]:
        print(f"FOUND {found.parser} {found.number}: {found.problem} {found.data[:80]!r}")
    cpu_s = time.process_time() - begun_s
    print(f"{total:,} inputs, seed {asked.seed}, {cpu_s:.0f} s of CPU: {len(told.findings)} findings")
    return 1 if told.findings else 0


if __name__ == "__main__":
    sys.exit(main())
