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
WIDER_EDITIONS: Final = 2  # by which all but the narrowest sketch may be newer
MAX_NARROW: Final = 20_000  # answers remembered, of some 500 bytes
MAX_WIDE: Final = 2_000  # distributions remembered, of some 6 KB


class _Blend(msgspec.Struct, gc=False):
    """One level's view of a gap, with all wider ones in it."""

    sketches: tuple[Sketch, ...]  # it was made from, in these editions
    editions: tuple[int, ...]
    mix: Mix | None
    knows_tool: bool
    edition: int  # one more than that of the blend it takes the place of
    prior_edition: int  # of the wider blend in it; negative: none
    gap_s: tuple[float, ...] = ()  # at GAP_SHARES; of the narrowest level only

    def stale(self, sketches: tuple[Sketch, ...], prior: "_Blend | None") -> bool:
        """Whether it would be made otherwise now: its narrowest sketch is new, others by much."""
        prior_edition = prior.edition if prior is not None else -1
        if len(sketches) != len(self.sketches) or not 0 <= prior_edition - self.prior_edition <= WIDER_EDITIONS:
            return True
        allowed = WIDER_EDITIONS
        narrowest = self.sketches[-1] if self.sketches else None
        for now, then, edition in zip(sketches, self.sketches, self.editions, strict=True):
            if now is not then:
                return True
            if now is narrowest:
                allowed = 0
            if now.edition - edition > allowed:
                return True
        return False


class Blending:
    """Remembers what it made until a sketch behind it has a new edition."""

    def __init__(self, default_gap_s: tuple[float, ...]) -> None:
        self._default_gap_s = default_gap_s
        self._narrow: dict[tuple[str, str, int], _Blend] = {}
        self._wide: dict[tuple[str, str, int], _Blend] = {}

    def gap_s(self, situation: Situation, models: tuple[Model, ...]) -> tuple[float, ...]:
        """Quantiles at GAP_SHARES."""
        wider: _Blend | None = None
        for model in models[:0:-1]:
            wider = self._blend(self._wide, MAX_WIDE, situation, model, wider)
        blend = self._blend(self._narrow, MAX_NARROW, situation, models[0], wider)
        if not blend.gap_s:
            blend.gap_s = tuple(quantiles(blend.mix, GAP_SHARES)) if blend.mix is not None else self._default_gap_s
            blend.mix = None  # nobody asks again
        return blend.gap_s

    def _blend(
        self,
        known: dict[tuple[str, str, int], _Blend],
        most: int,
        situation: Situation,
        model: Model,
        prior: _Blend | None,
    ) -> _Blend:
        follows = model.tools.get(situation.tool)
        if follows is None:
            sketches: tuple[Sketch, ...] = (model.gaps,)
        else:
            cell = follows.cells.get(situation.context)
            sketches = (model.gaps, follows.gaps) if cell is None else (model.gaps, follows.gaps, cell.gaps)
        if follows is not None and prior is not None and prior.knows_tool:
            sketches = sketches[1:]  # gaps after whatever tool say nothing more
        key = (model.name, situation.tool, situation.context)
        blend = known.get(key)
        if blend is None or blend.stale(sketches, prior):
            if len(known) >= most:
                known.clear()
            edition = blend.edition + 1 if blend is not None else 0
            blend = known[key] = _made(sketches, prior, edition, follows is not None and follows.gaps.total > 0)
        return blend


def _made(sketches: tuple[Sketch, ...], prior: _Blend | None, edition: int, knows_tool: bool) -> _Blend:  # noqa: FBT001 - private
    tool_known = prior is not None and prior.knows_tool
    weights = [PRIOR] * len(sketches)
    if tool_known:
        weights = [TOOL_PRIOR, PRIOR] if knows_tool else []
    parts = list(zip(sketches, weights, strict=False))
    mix = blended(prior.mix if prior is not None else None, *parts)
    editions = tuple(sketch.edition for sketch in sketches)
    prior_edition = prior.edition if prior is not None else -1
    return _Blend(sketches, editions, mix, knows_tool or tool_known, edition, prior_edition)
