from saga.sim.agenda import Agenda


def test_acts_come_in_the_order_of_their_times_and_of_asking():
    agenda = Agenda()
    told: list[tuple[float, str]] = []

    def tell(word: str) -> None:
        told.append((agenda.now_s, word))

    agenda.at(2.0, tell, "late")
    agenda.at(1.0, tell, "first")
    agenda.at(1.0, tell, "second")

    assert agenda.run(10.0) is False
    assert told == [(1.0, "first"), (1.0, "second"), (2.0, "late")]


def test_nothing_happens_after_the_horizon_or_a_stop():
    agenda = Agenda()
    told: list[str] = []
    agenda.at(1.0, lambda word: (told.append(word), agenda.stop()), "stop")
    agenda.at(1.0, told.append, "never")
    assert agenda.run(5.0) is True
    assert told == ["stop"]

    late = Agenda()
    late.at(6.0, told.append, "beyond")
    assert late.run(5.0) is False
    assert told == ["stop"]
    assert late.now_s == 0.0


def test_what_is_due_in_the_past_does_not_turn_time_back():
    agenda = Agenda()
    seen: list[float] = []

    def look(_: None) -> None:
        seen.append(agenda.now_s)

    agenda.at(3.0, lambda _: agenda.at(1.0, look, None), None)
    agenda.run(10.0)
    assert seen == [3.0]
