"""By how much the members of a worker may outgrow its KV before one of them is paused, and by how much others may join
beyond it. Called by `worker_budgets.py`.

What does not fit is evicted and prefilled again, about once each time its session comes back. On an engine that is
busy that delays everybody who runs there; on one that idles between tool calls hardly anybody, and to pause a workflow,
or to keep it outside, would delay it more.
"""

from saga.admission.needs import LONGEST_HELD_S

LONGEST_CYCLE_S = 2 * LONGEST_HELD_S  # of one that counts: the KV of those who stay away for longer has been let go
CYCLE_WEIGHT = 0.02  # of the newest: a mean over some fifty steps
# Of the time of one workflow, which a pause would take whole, that those who run there may lose together. Less than
# one, because who is not paused goes on to grow. Replays of recorded sessions on two small workers: docs/evaluation.md.
DELAYED_SHARE = 0.5


class Cycle:
    """How often a session that keeps its claim comes back, in one pool: seconds from the end of one step to the end of
    the next, a moving mean. Nothing is known before the first."""

    __slots__ = ("mean_s",)

    def __init__(self) -> None:
        self.mean_s = 0.0

    def learn(self, cycle_s: float) -> None:
        """One more. One that stayed away for longer than KV is held is left out."""
        if not 0.0 < cycle_s <= LONGEST_CYCLE_S:
            return
        self.mean_s += (CYCLE_WEIGHT if self.mean_s else 1.0) * (cycle_s - self.mean_s)


def leeway_tokens(cycle_s: float, running: int, prompt_s_per_token: float) -> int:
    """KV over what a worker has, so that prefilling it once a cycle delays those who run there, `running` of them and
    who is prefilled for, by DELAYED_SHARE of a second per second at most."""
    if prompt_s_per_token <= 0.0:
        return 0
    return int(DELAYED_SHARE * cycle_s / (prompt_s_per_token * (1 + running)))
