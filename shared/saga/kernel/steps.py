"""The life of a step: one transition table for all who follow it (gateway, admission, placement).

Each party keeps its own view of a step and advances it by this table alone. Messages may be lost, doubled or late,
so a view may lag; the gateway, which talks to both client and engine, has the last word: what it says holds from any
live state. ARCHITECTURE.md draws its diagram from `diagram()`.
"""

from enum import Enum


class StepState(Enum):
    """Where a step is."""

    WAITING = "waiting"  # known to admission, its workflow not active
    ADMITTED = "admitted"  # tagged, waits for a slot
    GRANTED = "granted"  # a lease is on its way to the gateway
    TAKEN = "taken"  # the gateway holds the lease
    STARTED = "started"  # the request is at the engine
    FINISHED = "finished"
    REFUSED = "refused"
    ABORTED = "aborted"  # the client left, or nobody named the step any more
    FAILED = "failed"

    __hash__ = object.__hash__  # by identity: Enum's own hashes the name, in Python, at every look into the table


class Move(Enum):
    """What can happen to a step."""

    ADMIT = "admit"
    GRANT = "grant"
    TAKE = "take"
    START = "start"
    FINISH = "finish"
    REFUSE = "refuse"
    RETURN = "return"  # the lease came back, died untaken, or its engine died
    ABORT = "abort"
    FAIL = "fail"

    __hash__ = object.__hash__  # as above


LIVE = (StepState.WAITING, StepState.ADMITTED, StepState.GRANTED, StepState.TAKEN, StepState.STARTED)
ENDED = frozenset(StepState) - frozenset(LIVE)

TRANSITIONS: dict[tuple[StepState, Move], StepState] = {
    (StepState.WAITING, Move.ADMIT): StepState.ADMITTED,
    (StepState.ADMITTED, Move.GRANT): StepState.GRANTED,
    (StepState.WAITING, Move.REFUSE): StepState.REFUSED,
    (StepState.ADMITTED, Move.REFUSE): StepState.REFUSED,
    (StepState.GRANTED, Move.RETURN): StepState.ADMITTED,
    (StepState.TAKEN, Move.RETURN): StepState.ADMITTED,
    (StepState.STARTED, Move.RETURN): StepState.ADMITTED,
    # The gateway's word, from any live state: the messages before it may be lost or late.
    **{(state, Move.TAKE): StepState.TAKEN for state in LIVE[:3]},
    **{(state, Move.START): StepState.STARTED for state in LIVE[:4]},
    **{(state, Move.FINISH): StepState.FINISHED for state in LIVE},
    **{(state, Move.ABORT): StepState.ABORTED for state in LIVE},
    **{(state, Move.FAIL): StepState.FAILED for state in LIVE},
}


class IllegalTransitionError(Exception):
    """A core tried a move that the table does not have. A bug: its view is unchanged, its story is in the text."""

    def __init__(self, step_id: str, state: StepState, move: Move, story: tuple[Move, ...]) -> None:
        told = " > ".join(past.value for past in story) or "nothing yet"
        super().__init__(f"step {step_id}: cannot {move.value} while {state.value}; its story: {told}")
        self.state = state
        self.move = move


class StepLife:
    """One party's view of one step."""

    __slots__ = ("state", "step_id", "story")

    def __init__(self, step_id: str, state: StepState = StepState.WAITING) -> None:
        self.step_id = step_id
        self.state = state
        self.story: tuple[Move, ...] = ()

    @property
    def live(self) -> bool:
        """Whether the step may still move."""
        return self.state in LIVE

    def may(self, move: Move) -> bool:
        """Whether the table has this move from here; what it has not is a message come late or twice."""
        return (self.state, move) in TRANSITIONS

    def advance(self, move: Move) -> None:
        """Make the move. Raises IllegalTransitionError, and changes nothing, where the table has none."""
        after = TRANSITIONS.get((self.state, move))
        if after is None:
            raise IllegalTransitionError(self.step_id, self.state, move, self.story)
        self.story = (*self.story[-15:], move)
        self.state = after


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> waiting"]
    merged: dict[tuple[StepState, StepState], list[str]] = {}
    for (before, move), after in TRANSITIONS.items():
        merged.setdefault((before, after), []).append(move.value)
    lines += [f"    {a.value} --> {b.value}: {', '.join(moves)}" for (a, b), moves in merged.items()]
    lines += [f"    {state.value} --> [*]" for state in StepState if state in ENDED]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(diagram())
