"""What a seed draws is over in time and befalls somebody; what fails is shown with as little as it takes."""

import fault_run
import msgspec
import pytest
from fault_run import Told, minimised, replay_command
from fault_schedule import CANDIDATES, FAULTS_S, KINDS, MORTAL, Cut, Fault, Kill, Noise, Pause, Skew, draw

from saga.contract.messages import MESSAGE_TYPES


def test_every_fault_is_over_when_they_are_to_stop():
    for seed in range(300):
        for fault in draw(seed):
            lasts_s = fault.for_s if isinstance(fault, Noise | Pause | Cut) else getattr(fault, "down_s", 0.0)
            assert 0.0 <= fault.at_s <= fault.at_s + lasts_s <= FAULTS_S


def test_faults_of_all_kinds_befall_everybody():
    drawn = [fault for seed in range(300) for fault in draw(seed)]

    assert {type(fault) for fault in drawn} == {Noise, Kill, Pause, Cut, Skew}
    assert {fault.victim for fault in drawn if isinstance(fault, Kill)} == set(MORTAL)
    assert {"*", *CANDIDATES, "bus", "store"} <= {p for f in drawn if isinstance(f, Cut) for p in (f.one, f.other)}
    assert {fault.kind for fault in drawn if isinstance(fault, Noise)} == {"", *KINDS}
    assert set(KINDS) <= {kind.__name__ for kind in MESSAGE_TYPES}


def test_a_schedule_can_be_written_down():
    assert msgspec.json.decode(msgspec.json.encode(draw(7)), type=tuple[Fault, ...]) == draw(7)


@pytest.mark.parametrize("enough", [(1,), (0, 3), ()])
def test_a_seed_that_fails_is_shown_with_the_fewest_faults_that_are_enough(monkeypatch, enough):
    def run(seed: int, only: tuple[int, ...] | None = None) -> Told:
        return Told(seed, only, problems=["broken"] * (set(enough) <= set(only or ())))

    monkeypatch.setattr(fault_run, "run", run)
    seed = next(seed for seed in range(100) if len(draw(seed)) > 5)

    assert minimised(seed) == enough
    chosen = ",".join(map(str, enough)) or "none"
    assert replay_command(seed, enough) == f".venv/bin/python tests/faults/seeds_run.py --seed {seed} --only {chosen}"
