"""The order of engine events: gaps, replays, doubles, losses and restarts."""

from saga.worker.sequence import EventSequence, Verdict


def verdicts(sequence, *numbers):
    return [sequence.live(number) for number in numbers]


def test_in_order():
    assert verdicts(EventSequence(), 0, 1, 2) == [Verdict.NEXT] * 3


def test_a_gap_and_its_replay():
    sequence = EventSequence()
    sequence.live(0)
    assert sequence.live(3) is Verdict.GAP
    assert [sequence.replayed(n, first=n == 1) for n in (1, 2, 3, 4)] == [Verdict.NEXT] * 4
    assert verdicts(sequence, 4, 5) == [Verdict.KNOWN, Verdict.NEXT]


def test_a_replay_without_its_beginning_is_a_loss():
    sequence = EventSequence()
    assert sequence.replayed(7, first=True) is Verdict.LOST
    assert sequence.replayed(8, first=False) is Verdict.NEXT


def test_a_replay_with_a_hole_is_asked_again():
    sequence = EventSequence()
    assert sequence.replayed(0, first=True) is Verdict.NEXT
    assert sequence.replayed(2, first=False) is Verdict.GAP
    assert sequence.expected == 1


def test_another_process_counts_anew():
    sequence = EventSequence()
    verdicts(sequence, 0, 1, 2)
    assert sequence.live(0) is Verdict.RESTARTED


def test_another_process_is_seen_also_when_all_was_replayed():
    sequence = EventSequence()
    for number in range(5):
        sequence.replayed(number, first=number == 0)
    assert sequence.live(3) is Verdict.KNOWN  # on its way since before the replay
    sequence.settle()
    assert sequence.live(4) is Verdict.RESTARTED


def test_without_replay_it_goes_on_behind_the_gap():
    sequence = EventSequence()
    assert sequence.live(9) is Verdict.GAP
    sequence.skip_to(9)
    assert sequence.live(10) is Verdict.NEXT
