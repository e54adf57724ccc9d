"""Words and numbers of the drawings: how a tool, a duration, a share is written. Used by all that draw a graph."""

from typing import Final

from saga.contract.messages import GAP_SHARES
from saga.contract.workflow_messages import ShapeNode

START: Final = "~start"
END: Final = "~end"
OTHER: Final = "~other"
NONE: Final = "~none"
_CHILD: Final = "class:"  # begins the id of a sub-agent's class
_CHILD_CHARS: Final = 8  # of its name: a digest, mostly
_WORDS: Final = {START: "start", END: "end", OTHER: "other tools", NONE: "no tool", "": "no tool"}
_P50, _P90 = GAP_SHARES.index(0.5), GAP_SHARES.index(0.9)


def title_of(node: ShapeNode) -> str:
    """What a node is called."""
    if is_child(node):
        return f"sub-agent {node.id.removeprefix(_CHILD)[:_CHILD_CHARS]}"
    if node.kind == "step" and node.id not in _WORDS:
        return node.id
    return _WORDS.get(node.id, node.id)


def is_child(node: ShapeNode) -> bool:
    """Whether it stands for the sub-agents of one class, which steps above it started."""
    return node.kind == "start" and node.id != START


def tool_word(tool: str) -> str:
    """What a tool is called."""
    return _WORDS.get(tool, tool)


def seconds(value: float) -> str:
    """A duration with two digits that matter."""
    if value < 0:
        return "?"
    if value < 0.9995:
        return f"{1000 * value:.0f} ms"
    if value < 9.95:
        return f"{value:.1f} s"
    if value < 99.5:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 5_970 else f"{value / 3600:.1f} h"


def percent(share: float) -> str:
    """A probability; what is not quite nothing is not written as nothing."""
    said = f"{100 * share:.0f} %"
    return "<1 %" if share > 0 and said == "0 %" else said


def count(value: float) -> str:
    """How many, shortly."""
    if value < 1_000:
        return f"{value:.0f}"
    return f"{value / 1_000:.1f}k" if value < 1e6 else f"{value / 1e6:.1f}M"


def gap_p50_s(gap_s: tuple[float, ...]) -> float:
    """The median of quantiles at GAP_SHARES, or the one gap; negative: unknown."""
    return gap_s[_P50] if len(gap_s) > _P50 else gap_s[0] if gap_s else -1.0


def gap_words(gap_s: tuple[float, ...]) -> str:
    """`1.2 s · 14 s` for P50 and P90; one duration for one gap; nothing for none."""
    if len(gap_s) > _P90:
        return f"{seconds(gap_s[_P50])} · {seconds(gap_s[_P90])}"
    return seconds(gap_s[0]) if gap_s else ""


def shortened(text: str, width: int) -> str:
    """At most so many characters, the middle left out: both ends of a name tell."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
