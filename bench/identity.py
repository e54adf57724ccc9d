"""Whose steps these are: found for a mix of all harnesses' sessions, through one gateway and through three.

    python bench/identity.py [--sessions 2000] [--seed 20]

Ten harnesses that declare their sessions, each in its own way, and as many sessions that nobody names, up to 60 at a
time, two tenants, three APIs; one in five begins with the same words as others, one step in thirty is followed by a
compaction. Through three gateways one step in ten reaches another one than the session's last.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from identity_mix import mixed  # noqa: E402 - after the path


def main() -> int:
    """Print the figures; 0 when they are as good as they should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=2_000)
    parser.add_argument("--seed", type=int, default=20)
    flags = parser.parse_args()
    good = True
    for gateways, moves in ((1, 0.0), (3, 0.1)):
        found = mixed(flags.sessions, flags.seed, gateways, moves)
        whole = found.anonymous_whole / found.anonymous_sessions
        print(
            f"{gateways} gateway(s): {found.declared_right} of {found.declared_steps} declared steps "
            f"right; {found.anonymous_whole} of {found.anonymous_sessions} anonymous sessions whole ({whole:.2%}); "
            f"{found.shared_workflows} workflows of several sessions; {found.across_tenants} joins across tenants"
        )
        good &= found.declared_right == found.declared_steps and whole >= 0.99 and found.across_tenants == 0
    print(f"goal: all declared right, 99 % of anonymous whole, nothing across tenants: {'met' if good else 'missed'}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
