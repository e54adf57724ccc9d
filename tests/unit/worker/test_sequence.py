"""The order of engine events: gaps, replays, doubles, losses, strangers and restarts."""

from saga.worker.sequence import REMEMBERED, EventSequence, Verdict

OURS, OTHER = 1_000, 2_000  # a batch's mark here: its process and number


def heard(*numbers):
    sequence = EventSequence()
    assert [live(sequence, number) for number in numbers] == [Verdict.NEXT] * len(numbers)
    return sequence


def live(sequence, number, process=OURS):
    return sequence.live(number, process + number)


def replayed(sequence, number, process=OURS, *, first=False):
    return sequence.replayed(number, process + number, first=first)


def test_in_order():
    sequence = heard(0, 1, 2)
    assert (sequence.expected, sequence.replay_from) == (3, 2)
    assert (EventSequence().expected, EventSequence().replay_from) == (0, 0)


def test_a_gap_and_its_replay():
    sequence = heard(0)
    assert live(sequence, 3) is Verdict.GAP
    assert [replayed(sequence, n, first=n == 0) for n in range(5)] == [Verdict.KNOWN, *[Verdict.NEXT] * 4]
    assert [live(sequence, n) for n in (3, 4, 5)] == [Verdict.KNOWN, Verdict.KNOWN, Verdict.NEXT]


def test_doubles_and_latecomers_are_known():
    sequence = heard(*range(10))
    assert {live(sequence, n) for n in (9, 9, 3, 0)} == {Verdict.KNOWN}
    assert live(sequence, 10) is Verdict.NEXT


def test_a_replay_without_its_beginning_is_a_loss():
    sequence = EventSequence()
    assert replayed(sequence, 7, first=True) is Verdict.LOST
    assert replayed(sequence, 8) is Verdict.NEXT


def test_a_replay_with_a_hole_is_asked_again_and_then_believed():
    sequence = EventSequence()
    assert replayed(sequence, 0, first=True) is Verdict.NEXT
    assert replayed(sequence, 2) is Verdict.GAP
    assert sequence.expected == 1
    assert replayed(sequence, 0, first=True) is Verdict.KNOWN
    assert replayed(sequence, 2, first=True) is Verdict.LOST
    assert sequence.expected == 3


def test_another_process_is_strange_under_every_number_that_was_taken():
    sequence = heard(*range(5))
    assert {live(sequence, n, OTHER) for n in range(5)} == {Verdict.STRANGE}
    assert replayed(sequence, 4, OTHER, first=True) is Verdict.STRANGE
    assert sequence.expected == 5
    assert sequence.is_ours(4, OURS + 4)
    assert not sequence.is_ours(4, OTHER + 4)


def test_a_number_too_old_to_remember_is_strange_when_it_comes_but_harmless_in_a_replay():
    sequence = heard(*range(REMEMBERED + 1))
    assert live(sequence, 0) is Verdict.STRANGE
    assert live(sequence, 1) is Verdict.KNOWN
    assert replayed(sequence, 0) is Verdict.KNOWN


def test_without_replay_it_goes_on_behind_the_gap():
    sequence = EventSequence()
    assert live(sequence, 9) is Verdict.GAP
    sequence.skip_to(9, OURS + 9)
    assert live(sequence, 9) is Verdict.KNOWN
    assert live(sequence, 10) is Verdict.NEXT
    sequence.skip_to(4, OURS + 4)
    assert sequence.expected == 11
