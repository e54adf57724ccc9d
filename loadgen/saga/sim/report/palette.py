"""The one place that says how each system looks: colour, line and marker. Also the colours of everything else drawn.

Charts are drawn with stand-in colours that `drawing` turns into CSS variables, so that one SVG serves light, dark and
paper. Colours are Okabe and Ito's, which readers with any colour vision tell apart, darker or lighter where the page's
background needs it; systems that share a hue differ by line and marker.
"""

from typing import Final
from zlib import crc32

from msgspec import Struct

from saga.sim.report.compare import KV_BOUND, SAGA


class Look(Struct, frozen=True):
    """How one system is drawn. `hue`: a name of HUES."""

    hue: str
    line: str = "-"
    marker: str = "o"


# name: on a light background, on a dark one
HUES: Final = {
    "ink": ("#1b1f24", "#e8eaed"),
    "soft": ("#57606a", "#a3abb5"),
    "grid": ("#e3e6ea", "#30363d"),
    "panel": ("#ffffff", "#161b22"),
    "vermillion": ("#d55e00", "#ff7a1a"),
    "blue": ("#0072b2", "#4aa8e8"),
    "green": ("#009e73", "#2cc49a"),
    "orange": ("#d08f00", "#f0b232"),
    "sky": ("#3d9bd4", "#7cc8f5"),
    "purple": ("#b8578f", "#e08fbf"),
    "yellow": ("#b3a400", "#d9cb3a"),
    "grey": ("#8a929b", "#8a929b"),
    "human": ("#e3e6ea", "#30363d"),
}

LOOKS: Final = {
    SAGA: Look("vermillion", "-", "o"),
    KV_BOUND: Look("ink", "--", ""),
    "session-affinity": Look("blue", "-", "s"),
    "affinity+cap": Look("green", "-", "D"),
    "srpt+affinity": Look("purple", "-", "^"),
    "prefix-aware": Look("orange", "-", "v"),
    "kv-ttl": Look("sky", "-", "P"),
    "round-robin": Look("grey", "-", "X"),
    "least-loaded": Look("grey", "--", "<"),
    "edf+affinity": Look("purple", "--", ">"),
    "steps-to-run": Look("sky", "--", "d"),
    "pause-resume": Look("green", "--", "p"),
    "attained-service": Look("blue", "--", "h"),
    "paper": Look("yellow", "-", "*"),
}
SPARE: Final = ("blue", "green", "purple", "orange", "sky", "yellow", "grey")

# Of the timeline of one workflow: hue and legend.
DOINGS: Final = {
    "queued": ("yellow", "queued: not admitted yet"),
    "waiting": ("purple", "waiting: for a slot or in the engine's queue"),
    "prefill": ("vermillion", "prefill"),
    "decode": ("blue", "decode"),
    "tool": ("grey", "tool call (gap)"),
    "human": ("human", "human pause (gap)"),
}


def look(system: str) -> Look:
    """Known systems have their own, `affinity+cap:0.65` that of its base but dotted, others one by their name."""
    if system in LOOKS:
        return LOOKS[system]
    base = LOOKS.get(system.partition(":")[0])
    if base is not None:
        return Look(base.hue, ":", base.marker)
    return Look(SPARE[crc32(system.encode()) % len(SPARE)], "-.", ".")


def stand_in(hue: str) -> str:
    """The colour that charts are drawn with in place of a hue; appears nowhere else."""
    return f"#0100{list(HUES).index(hue):02x}"


def css_variables(*, dark: bool) -> str:
    """Declarations of all hues."""
    return "".join(f"--{name}:{pair[dark]};" for name, pair in HUES.items())
