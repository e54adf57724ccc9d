"""Whether a session goes on and how many steps are left, from counts at every level, shrunk to the wider ones. Pure."""

from itertools import zip_longest
from typing import Final

from saga.contract.messages import UNKNOWN_RETURNS
from saga.graph.models import Model
from saga.graph.situation import FIRST_STEPS, MAX_STEP_KIND, Situation, step_kind

PRIOR_STEPS: Final = 8.0  # outcomes that the wider view counts as
MAX_REMAINING_STEPS: Final = 256
UNKNOWN_STEPS: Final = UNKNOWN_RETURNS / (1.0 - UNKNOWN_RETURNS)  # to come, of a session of which nothing is known
LEAST_ENDED, FEW = 0.5, 10.0  # of so many more than were seen, so many ended at least
STALE_SHARE: Final = 1 / 16
STALE_OUTCOMES: Final = 2


class Hazards:
    """Probability that a session ends with its n-th step, whatever it called. A table: it may lag a little behind."""

    def __init__(self, models: tuple[Model, ...]) -> None:
        """From the narrowest to the widest."""
        self._models = models
        self._good_until = [model.outcomes * (1.0 + STALE_SHARE) + STALE_OUTCOMES for model in models]
        flat = 1.0 - UNKNOWN_RETURNS
        for model in reversed(models):
            ended, seen = sum(model.ended), sum(model.ended) + sum(model.continued)
            # Levels share samples: that none ended in so many does not say more than this, however many levels say so.
            flat = max((ended + PRIOR_STEPS * flat) / (seen + PRIOR_STEPS), LEAST_ENDED / (seen + FEW))
        known = max((max(len(m.ended), len(m.continued)) for m in models), default=0)
        at = [flat] * MAX_STEP_KIND
        for model in reversed(models):
            for kind, (ended, continued) in enumerate(zip_longest(model.ended, model.continued, fillvalue=0)):
                at[kind] = (ended + PRIOR_STEPS * at[kind]) / (ended + continued + PRIOR_STEPS)
        self._flat = flat
        self._at = at
        # Nothing is known beyond but the mean hazard. Early in a run that is too low by far: nobody has ended yet since
        # nobody has lived long. So no more is expected beyond the longest session than it has behind it.
        longest = float(FIRST_STEPS[min(known, MAX_STEP_KIND - 1)])
        beyond = min((1.0 - flat) / max(flat, 1.0 / MAX_REMAINING_STEPS), max(longest, UNKNOWN_STEPS))
        self._after = [beyond] * (MAX_STEP_KIND + 1)  # mean steps after the last one of the kind before
        for kind in range(min(known, MAX_STEP_KIND - 1) - 1, -1, -1):
            self._after[kind] = self._through(kind, FIRST_STEPS[kind + 1] - FIRST_STEPS[kind])

    def _through(self, kind: int, steps: int) -> float:
        """Mean steps to come, when so many of this kind lie ahead, each of which may be the last."""
        stays = 1.0 - self._at[kind]
        all_stay = stays**steps
        return stays * (1.0 - all_stay) / max(1.0 - stays, 1e-9) + all_stay * self._after[kind + 1]

    def stale(self, models: tuple[Model, ...]) -> bool:
        """Whether the models are others, or have learnt too much since."""
        if len(models) != len(self._models):
            return True
        for model, then, good_until in zip(models, self._models, self._good_until, strict=True):
            if model is not then or model.outcomes > good_until:
                return True
        return False

    @property
    def flat(self) -> float:
        """Of ending, whichever step it is."""
        return self._flat

    def remaining_steps(self, steps: int) -> float:
        """Mean number of steps after this one, the `steps`-th."""
        kind = step_kind(steps)
        if kind == MAX_STEP_KIND - 1:
            return self._after[-1]
        return self._through(kind, FIRST_STEPS[kind + 1] - max(1, steps))


def returns(situation: Situation, models: tuple[Model, ...], flat: float) -> float:
    """Probability of another step: by the tool called, then by the count of steps, then by the session's pace."""
    ends = flat
    seen = 0
    kind = step_kind(situation.steps)
    for model in reversed(models):
        follows = model.tools.get(situation.tool)
        if follows is None:
            continue
        seen = max(seen, follows.count)
        ends = (follows.ended + PRIOR_STEPS * ends) / (follows.returned + follows.ended + PRIOR_STEPS)
        ended = follows.ended_at[kind] if kind < len(follows.ended_at) else 0
        returned = follows.returned_at[kind] if kind < len(follows.returned_at) else 0
        ends = (ended + PRIOR_STEPS * ends) / (ended + returned + PRIOR_STEPS)
        cell = follows.cells.get(situation.context)
        if cell is not None:
            ends = (cell.ended + PRIOR_STEPS * ends) / (cell.ended + cell.returned + PRIOR_STEPS)
    least = LEAST_ENDED / (seen + FEW)
    return 1.0 - min(max(ends, least), 1.0 - least)
