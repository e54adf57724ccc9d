"""The distribution of a gap, from every level that knows something of it, each shrunk towards the wider. Pure.

From wide to narrow: all gaps of a level, then for each level those after the tool, then those after the tool in the
session's context. What is wider counts as a fixed number of samples of what is narrower: the numbers were found on
recorded sessions (bench/forecast_calibration.py), where samples of one session are alike and count less than others.
"""

from typing import Final

import msgspec

from saga.contract.messages import GAP_SHARES
from saga.graph.models import Model
from saga.graph.situation import Situation
from saga.graph.sketch import Mix, Sketch, blended, quantiles

PRIOR: Final = 20.0
TOOL_PRIOR: Final = 100.0  # of what is known of tool and context elsewhere, against the tool here in any context
WIDER_EDITIONS: Final = 2  # by which all but the narrowest sketch may be newer than the blend
ASKS: Final = 4  # answers before wider sketches are looked at again
MAX_NARROW: Final = 20_000  # answers remembered, of some 500 bytes
MAX_WIDE: Final = 2_000  # distributions remembered, of some 6 KB
Key = tuple[str, str, int]  # of a model, a tool and a context


class _Blend(msgspec.Struct, gc=False):
    """One level's view of a gap, with all wider ones in it."""

    sketches: tuple[Sketch, ...]  # it was made from, in these editions; the narrowest is last
    editions: tuple[int, ...]
    mix: Mix | None
    knows_tool: bool
    edition: int  # one more than that of the blend it takes the place of
    prior_edition: int  # of the wider blend in it; negative: none
    gap_s: tuple[float, ...] = ()  # at GAP_SHARES; of the narrowest level only
    asks: int = 0  # left

    def stale(self, sketches: tuple[Sketch, ...], prior: "_Blend | None") -> bool:
        """Whether it would be made otherwise now: its narrowest sketch is new, others by much."""
        prior_edition = prior.edition if prior is not None else -1
        if len(sketches) != len(self.sketches) or not 0 <= prior_edition - self.prior_edition <= WIDER_EDITIONS:
            return True
        if sketches[-1].edition != self.editions[-1]:
            return True
        for now, then, edition in zip(sketches, self.sketches, self.editions, strict=True):
            if now is not then or now.edition - edition > WIDER_EDITIONS:
                return True
        return False


class Blending:
    """Remembers what it made until a sketch behind it has a new edition."""

    def __init__(self, default_gap_s: tuple[float, ...]) -> None:
        self._default_gap_s = default_gap_s
        self._narrow: dict[Key, _Blend] = {}
        self._wide: dict[Key, _Blend] = {}

    def gap_s(self, situation: Situation, models: tuple[Model, ...]) -> tuple[float, ...]:
        """Quantiles at GAP_SHARES."""
        model = models[0]
        blend = self._narrow.get((model.name, situation.tool, situation.context))
        if blend is not None and blend.asks:
            narrowest = _sketches(situation, model)[-1]
            if narrowest is blend.sketches[-1] and narrowest.edition == blend.editions[-1]:
                blend.asks -= 1
                return blend.gap_s
        wider: _Blend | None = None
        for wide in models[:0:-1]:
            wider = _blend(self._wide, MAX_WIDE, situation, wide, wider)
        blend = _blend(self._narrow, MAX_NARROW, situation, model, wider)
        blend.asks = ASKS
        if not blend.gap_s:
            blend.gap_s = tuple(quantiles(blend.mix, GAP_SHARES)) if blend.mix is not None else self._default_gap_s
            blend.mix = None  # nobody asks again
        return blend.gap_s


def _sketches(situation: Situation, model: Model) -> tuple[Sketch, ...]:
    """What a model knows of the gap: after any tool, after this one, and then in this context."""
    follows = model.tools.get(situation.tool)
    if follows is None:
        return (model.gaps,)
    cell = follows.cells.get(situation.context)
    return (model.gaps, follows.gaps) if cell is None else (model.gaps, follows.gaps, cell.gaps)


def _blend(known: dict[Key, _Blend], most: int, situation: Situation, model: Model, prior: _Blend | None) -> _Blend:
    """Of one level: as it was made, or made anew."""
    sketches = _sketches(situation, model)
    knows_tool = len(sketches) > 1 and sketches[1].total > 0
    tool_known = prior is not None and prior.knows_tool
    if tool_known and len(sketches) > 1:
        sketches = sketches[1:]  # gaps after any tool say nothing more
    key = (model.name, situation.tool, situation.context)
    blend = known.get(key)
    if blend is not None and not blend.stale(sketches, prior):
        return blend
    weights = [PRIOR] * len(sketches)
    if tool_known:
        weights = [TOOL_PRIOR, PRIOR] if knows_tool else []
    mix = blended(prior.mix if prior is not None else None, *zip(sketches, weights, strict=False))
    if len(known) >= most:
        known.clear()
    made = known[key] = _Blend(
        sketches,
        tuple(sketch.edition for sketch in sketches),
        mix,
        knows_tool or tool_known,
        blend.edition + 1 if blend is not None else 0,
        prior.edition if prior is not None else -1,
    )
    return made
