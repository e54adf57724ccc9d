"""A worker that is to be empty: nothing new starts there, its sessions go on elsewhere, what runs there runs on."""

from placement_story import Story, admitted, hello

from saga.contract.messages import Grant, Heartbeat, WorkerHello
from saga.kernel.effects import Log, Received, Tick


def beat(name: str, *, draining: bool = False, epoch: int = 1) -> Heartbeat:
    return Heartbeat(
        worker=hello(name, epoch=epoch), healthy=True, running=0, waiting=0, used_tokens=0, residency_seq=0,
        draining=draining,
    )  # fmt: skip


def grants(messages) -> list[Grant]:
    return [message for message in messages if isinstance(message, Grant)]


def test_sessions_at_home_there_go_on_elsewhere_with_their_next_step():
    story = Story()
    first = story.grant(1, session="s")
    story.take(first)
    story.finish(first)
    home = first.worker_id

    story.hear(beat(home, draining=True))

    assert story.core.board.workers[home].homed_sessions == 0
    second = story.grant(2, session="s", home=home)
    assert second.worker_id != home
    assert (second.moved_from, second.ran_at) == (home, home), "admission still thinks that it is at home there"


def test_what_runs_there_runs_to_its_end_and_is_at_home_nowhere_then():
    story = Story()
    first = story.grant(1, session="s")
    story.take(first)
    home = first.worker_id

    assert grants(story.hear(beat(home, draining=True))) == []
    assert len(story.core.board.workers[home].leases) == 1
    story.finish(first)

    worker = story.core.board.workers[home]
    assert (len(worker.leases), worker.homed_sessions) == (0, 0)


def test_what_waits_for_a_slot_there_starts_elsewhere_at_once():
    story = Story(max_running=1)
    first = story.grant(1, session="s", home="w0")
    assert first.worker_id == "w0"
    assert grants(story.hear(admitted(2, session="t", home="w0"))) == []

    (elsewhere,) = grants(story.hear(beat("w0", draining=True)))

    assert (elsewhere.session, elsewhere.worker_id) == ("t", "w1")


def test_it_serves_again_at_the_first_word():
    story = Story(workers=1)
    story.hear(beat("w0", draining=True))
    assert grants(story.hear(admitted(1))) == []

    (grant,) = grants(story.hear(beat("w0")))

    assert grant.worker_id == "w0"


def test_one_that_is_started_again_while_it_is_to_be_empty_gets_nothing_in_between():
    story = Story(workers=1)
    story.hear(beat("w0", draining=True))
    story.hear(admitted(1))

    assert grants(story.hear(beat("w0", draining=True, epoch=2))) == []
    assert grants(story.tell(Tick())) == []


def test_a_hello_says_nothing_of_it():
    story = Story(workers=1)
    story.hear(beat("w0", draining=True))

    story.hear(WorkerHello(**{name: getattr(hello("w0"), name) for name in WorkerHello.__struct_fields__}))

    assert story.core.board.workers["w0"].draining


def test_the_log_says_what_is_to_go():
    story = Story()
    first = story.grant(1, session="s")
    story.take(first)
    story.finish(first)

    effects = story.core.handle(Received(beat(first.worker_id, draining=True)), story.now_s)

    (told,) = [effect for effect in effects if isinstance(effect, Log)]
    assert (told.event, told.facts) == ("placement.draining", {"worker": first.worker_id, "sessions": 1, "steps": 0})
