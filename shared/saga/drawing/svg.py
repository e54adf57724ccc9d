"""Scenes as one self-contained SVG: no script, no font, no address.

Everything is drawn in `currentColor` and four colours more, which follow what the reader prefers, light or dark; a page
that holds the drawing may set them.
"""

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from saga.drawing.scene import Arrow, Box, Scene, Words

GAP: Final = 12.0  # between scenes
_STYLE: Final = """
.saga{--paper:#ffffff;--box:#f4f6f9;--done:#d6efdd;--line:#5b7aa6;color:#1d2733;
font-family:ui-sans-serif,system-ui,"Segoe UI",Helvetica,Arial,sans-serif}
@media (prefers-color-scheme:dark){.saga{--paper:#14181d;--box:#1f262e;--done:#1f4530;--line:#86a9d8;
color:#e4e9ef}}
.paper{fill:var(--paper)}
.box{fill:var(--box);stroke:currentColor;stroke-opacity:.45}
.done{fill:var(--done);stroke:currentColor;stroke-opacity:.55}
.todo{fill:var(--paper);stroke:currentColor;stroke-opacity:.45;stroke-dasharray:4 3}
.end{fill:var(--paper);stroke:currentColor;stroke-opacity:.6}
.edge{fill:none;stroke:var(--line);stroke-linecap:round}
.tip{fill:var(--line)}
text{fill:currentColor;font-size:12px}
.name{font-weight:600;font-size:13px}
.title{font-weight:700;font-size:17px}
.dim{fill-opacity:.72}
.share{font-size:11px;font-weight:600;paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
""".strip().replace("\n", "")


def svg(scenes: Sequence[Scene], name: str, *, styled: bool = True) -> str:
    """The scenes below each other. Not `styled`: for a page that says itself how `.saga` looks."""
    width = max(scene.width for scene in scenes)
    height = sum(scene.height for scene in scenes) + GAP * (len(scenes) - 1)
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="saga" {size} role="img" aria-label="{_quoted(name)}">',
        f"<title>{escape(name)}</title>",
        *([f"<style>{_STYLE}</style>"] if styled else []),
        f'<rect class="paper" width="{width:.0f}" height="{height:.0f}" rx="6"/>',
    ]
    y = 0.0
    for scene in scenes:
        parts.append(f'<g transform="translate(0 {y:.1f})">')
        parts += [_arrow(arrow) for arrow in sorted(scene.arrows, key=lambda a: (a.weight, a.points))]
        parts += [_box(box) for box in scene.boxes]
        parts += [_label(arrow) for arrow in scene.arrows if arrow.label]
        parts += [_words(words) for words in scene.words]
        parts.append("</g>")
        y += scene.height + GAP
    return "\n".join([*parts, "</svg>", ""])


def _box(box: Box) -> str:
    place = f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
    middle = box.x + box.width / 2
    radius = box.height / 2 if box.look == "end" else 7
    look = {"tool": "box", "end": "end", "done": "done", "todo": "todo"}[box.look]
    parts = [f'<rect class="{look}" {place} rx="{radius:g}"/>']
    if box.share > 0:
        width = max(3.0, (box.width - 12) * min(1.0, box.share))
        bar = f'x="{box.x + 6:.1f}" y="{box.y + box.height - 7:.1f}" width="{width:.1f}" height="3"'
        parts.append(f'<rect class="tip" {bar} rx="1.5"/>')
    line_height = 15.0
    y = box.y + box.height / 2 + 4.5 - line_height * len(box.lines) / 2 - (1 if box.share > 0 else 0)
    parts.append(f'<text class="name" x="{middle:.1f}" y="{y:.1f}" text-anchor="middle">{escape(box.title)}</text>')
    for line in box.lines:
        y += line_height
        parts.append(f'<text class="dim" x="{middle:.1f}" y="{y:.1f}" text-anchor="middle">{escape(line)}</text>')
    return "".join(parts)


def _arrow(arrow: Arrow) -> str:
    x1, y1, ax, ay, bx, by, x2, y2 = arrow.points
    width = 1.0 + 5.0 * arrow.weight
    tip = 5.0 + 1.2 * width
    dx, dy = x2 - bx, y2 - by
    length = max((dx * dx + dy * dy) ** 0.5, 1e-6)
    dx, dy = dx / length, dy / length
    ex, ey = x2 - dx * tip * 0.8, y2 - dy * tip * 0.8  # the line ends inside its tip
    half = tip * 0.55
    corners = f"{x2:.1f},{y2:.1f} {x2 - dx * tip - dy * half:.1f},{y2 - dy * tip + dx * half:.1f} "
    corners += f"{x2 - dx * tip + dy * half:.1f},{y2 - dy * tip - dx * half:.1f}"
    opacity = 0.35 + 0.6 * min(1.0, arrow.weight)
    dashes = f' stroke-dasharray="{2 + width:.1f} {2 + 1.5 * width:.1f}"' if arrow.dashed else ""
    path = f"M{x1:.1f} {y1:.1f}C{ax:.1f} {ay:.1f} {bx:.1f} {by:.1f} {ex:.1f} {ey:.1f}"
    return (
        f'<g opacity="{opacity:.2f}"><path class="edge" d="{path}" stroke-width="{width:.1f}"{dashes}/>'
        f'<polygon class="tip" points="{corners}"/></g>'
    )


def _label(arrow: Arrow) -> str:
    x, y = arrow.label_at
    return f'<text class="share" x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{escape(arrow.label)}</text>'


def _words(words: Words) -> str:
    look = "title" if words.look == "title" else "dim"
    return f'<text class="{look}" x="{words.x:.1f}" y="{words.y:.1f}">{escape(words.text)}</text>'


def _quoted(text: str) -> str:
    return escape(text, {'"': "&quot;"})
