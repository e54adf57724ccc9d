"""The transition table: legal moves advance, illegal ones raise with their story and change nothing."""

from itertools import product
from pathlib import Path

import pytest

from saga.kernel.steps import ENDED, LIVE, TRANSITIONS, IllegalTransitionError, Move, StepLife, StepState, diagram


def test_a_step_lives_from_waiting_to_finished():
    life = StepLife("step")
    for move in (Move.ADMIT, Move.GRANT, Move.TAKE, Move.START, Move.FINISH):
        life.advance(move)

    assert life.state is StepState.FINISHED
    assert not life.live


@pytest.mark.parametrize(("state", "move"), sorted(set(product(StepState, Move)) - set(TRANSITIONS), key=str))
def test_an_illegal_move_raises_and_changes_nothing(state, move):
    life = StepLife("step", state)

    with pytest.raises(IllegalTransitionError, match=f"cannot {move.value} while {state.value}"):
        life.advance(move)
    assert life.state is state
    assert life.story == ()


def test_an_error_tells_the_story():
    life = StepLife("step")
    life.advance(Move.ADMIT)
    life.advance(Move.ABORT)

    with pytest.raises(IllegalTransitionError, match="admit > abort"):
        life.advance(Move.GRANT)


def test_nothing_follows_an_end():
    assert not [state for state, _ in TRANSITIONS if state in ENDED]


def test_the_gateways_word_holds_from_any_live_state():
    for state in LIVE:
        assert StepLife("step", state).may(Move.FINISH)
        assert StepLife("step", state).may(Move.ABORT)


def test_every_live_state_can_come_to_an_end_and_be_reached():
    reachable = {StepState.WAITING}
    while True:
        more = {after for (before, _), after in TRANSITIONS.items() if before in reachable} - reachable
        if not more:
            break
        reachable |= more

    assert reachable == set(StepState)


def test_the_architecture_draws_the_diagram_of_this_table():
    text = (Path(__file__).parents[3] / "ARCHITECTURE.md").read_text()

    assert diagram() in text, "ARCHITECTURE.md is out of date: python -m saga.kernel.steps prints the diagram"
