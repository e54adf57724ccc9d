"""Trials that did not happen."""

from saga.chaos.stage import Idle, LeaseCount
from saga.chaos.transcript import Attempt, Silence, StepStory, Window, answer_of

CALM, STRUCK, AFTER = Window(100.0, 110.0), Window(110.0, 120.0), Window(120.0, 130.0)
IDLE = Idle(
    leases={"placement-0": LeaseCount(9, 9, 0)},
    agent_leases={"worker-0": 0},
    steps_at_admission=0,
    leading={"admission": ["admission-0"], "placement": ["placement-0"]},
    resident_bytes={"graph": 50 << 20},
    pids={"graph": 7},
)


def attempt(at_s: float = 105.0, **fields) -> Attempt:
    return Attempt(**{"gateway": 0, "sent_s": at_s, "over_s": at_s + 0.5, "outcome": "answered"} | fields)


def story(client: int = 0, at_s: float = 105.0, *, silent_s: float = 0.1, **fields) -> StepStory:
    """A step that was answered at once and rightly, but for the fields."""
    made = StepStory(
        client=client,
        tenant=("red", "blue")[client % 2],
        session=f"s{client}",
        number=0,
        prompt="p",
        max_tokens=4,
        sent_s=at_s,
        attempts=[attempt(at_s)],
        silences=[Silence(at_s, at_s + silent_s)],
        text=answer_of("p", 4),
        over_s=at_s + 0.5,
    )
    for name, value in fields.items():
        setattr(made, name, value)
    return made
