"""A drawing before it is drawn: boxes, arrows and words with their places, in pixels. Made by layouts, drawn as SVG."""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

Look = Literal["tool", "end", "done", "todo"]


class Box(msgspec.Struct, frozen=True):
    """A node; `share` fills it from the left."""

    x: float
    y: float
    width: float
    height: float
    title: str
    lines: tuple[str, ...] = ()
    look: Look = "tool"
    share: float = 0.0


class Arrow(msgspec.Struct, frozen=True):
    """A curve from one point to another, by its two control points."""

    points: tuple[float, float, float, float, float, float, float, float]
    weight: float  # 0 to 1: how wide
    label: str = ""
    dashed: bool = False
    label_at: tuple[float, float] = (0.0, 0.0)  # middle of the label; see `labelled`

    def at(self, share: float) -> tuple[float, float]:
        """The point after this share of the curve."""
        x1, y1, ax, ay, bx, by, x2, y2 = self.points
        rest = 1 - share
        a, b, c, d = rest**3, 3 * rest**2 * share, 3 * rest * share**2, share**3
        return a * x1 + b * ax + c * bx + d * x2, a * y1 + b * ay + c * by + d * y2


class Words(msgspec.Struct, frozen=True):
    """One line of text; y is its baseline."""

    x: float
    y: float
    text: str
    look: Literal["title", "small"] = "small"


class Scene(msgspec.Struct, frozen=True):
    """One drawing."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    words: tuple[Words, ...]


_PLACES: Final = (0.28, 0.38, 0.5, 0.2, 0.6, 0.7, 0.14, 0.8)  # on a curve, the best first
_LABEL_WIDTH: Final = 34.0
_LABEL_HEIGHT: Final = 14.0


def labelled(arrows: Iterable[Arrow], boxes: Sequence[Box]) -> tuple[Arrow, ...]:
    """The arrows with places for their labels: on the arrow, off the boxes, off each other where there is room."""
    taken = [(box.x, box.y, box.x + box.width, box.y + box.height) for box in boxes]
    placed = []
    for arrow in arrows:
        if not arrow.label:
            placed.append(arrow)
            continue
        best, least = (0.0, 0.0), float("inf")
        for share in _PLACES:
            x, y = arrow.at(share)
            covered = sum(_overlap(x, y, rectangle) for rectangle in taken)
            if covered < least - 1e-6:
                best, least = (x, y), covered
        x, y = best
        half_width, half_height = _LABEL_WIDTH / 2, _LABEL_HEIGHT / 2
        taken.append((x - half_width, y - half_height, x + half_width, y + half_height))
        placed.append(msgspec.structs.replace(arrow, label_at=best))
    return tuple(placed)


def _overlap(x: float, y: float, rectangle: tuple[float, float, float, float]) -> float:
    """Area of a label with its middle there that a rectangle covers."""
    left, top, right, bottom = rectangle
    wide = min(right, x + _LABEL_WIDTH / 2) - max(left, x - _LABEL_WIDTH / 2)
    high = min(bottom, y + _LABEL_HEIGHT / 2) - max(top, y - _LABEL_HEIGHT / 2)
    return max(0.0, wide) * max(0.0, high)
