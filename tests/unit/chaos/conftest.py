"""Trials that did not happen."""

from collections import Counter

import pytest
from chaos_trials import AFTER, CALM, IDLE, STRUCK

from saga.chaos.catalogue import FAULTS
from saga.chaos.faults import Blow
from saga.chaos.invariants import Trial
from saga.chaos.transcript import StepStory


@pytest.fixture
def trial():
    """Makes a trial of these stories in which nothing else went wrong, but for the fields."""

    def make(*stories: StepStory, fault: str = "kill-placement-leader", **fields) -> Trial:
        told = {
            "fault": next(one for one in FAULTS if one.name == fault),
            "blow": Blow(("placement-0",)),
            "slots": 4,
            "stories": list(stories),
            "calm": CALM,
            "struck": STRUCK,
            "after": AFTER,
            "before": IDLE,
            "left": IDLE,
            "finished": Counter(),
            "restarts": Counter({"placement-0": 1}),
            "kills": Counter({"placement-0": 1}),
        }
        return Trial(**told | fields)

    return make
