"""Draws what the graph learns of recorded agents: `python bench/offline/draw_classes.py [--figures docs/figures]`.

All sessions go through the graph's core as in `forecast_calibration`; what it then knows of all of them together
becomes an SVG of counts, shares and times.
"""

import argparse
import os
import sys
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1]))
from forecast_calibration import SPACING_S, TRACE, learnt, recorded

from saga.drawing.layers import layered
from saga.drawing.svg import svg
from saga.graph.inspection import told
from saga.graph.shelf import GLOBAL

NAME = "coding-sessions"


def main() -> int:
    """0 when it was drawn."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--figures", type=Path, default=Path("docs/figures"))
    parser.add_argument("--sessions", type=Path, default=Path(os.environ.get("SAGA_SESSIONS", TRACE)))
    flags = parser.parse_args()
    if not flags.sessions.is_file():
        print(f"no recorded sessions at {flags.sessions}", file=sys.stderr)
        return 2
    shape = learnt(recorded(flags.sessions), SPACING_S[1]).class_shape(GLOBAL)
    if shape is None:
        print("nothing was learnt", file=sys.stderr)
        return 1
    file = flags.figures / f"aeg-{NAME}.svg"
    file.write_text(svg([layered(msgspec.structs.replace(told(shape), name=NAME))], NAME), encoding="utf-8")
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
