"""What a grant tells for the step's receipt."""

from placement_story import Story, hello

from saga.contract.messages import Heartbeat, PagesStored, ResidencyDelta, WorkerLeaving
from saga.kernel.effects import Decision

PAGES = b"".join(number.to_bytes(8, "big") for number in range(1, 41))
OTHER = b"".join(number.to_bytes(8, "big") for number in range(101, 131))


class Elsewhere:
    """Anywhere but at home."""

    engine_queues = False
    stays_home = False

    def choose(self, step, candidates):
        del step
        return Decision(min([c.worker_id for c in candidates if not c.is_home] or ["w0"]), "away")


def ran(story, number, **fields):
    grant = story.grant(number, session="s", **fields)
    story.take(grant)
    story.finish(grant)
    return grant


def holds(story, worker, pages):
    story.hear(ResidencyDelta(worker_id=worker, epoch=1, seq=1, changes=(PagesStored(pages),)))


def test_a_session_is_new_once():
    story = Story()

    assert [ran(story, number, new_session=True).new_session for number in (1, 2)] == [True, False]


def test_one_that_admission_remembers_is_not_new():
    assert not Story().grant(1, session="s", home="w1", new_session=False).new_session


def test_one_that_has_only_been_given_a_place_is_new():
    assert Story().grant(1, session="s", home="w1", new_session=True).new_session


def test_a_move_tells_what_it_leaves_behind():
    story = Story(Elsewhere())
    first = ran(story, 1, new_hashes=PAGES)
    assert (first.ran_at, first.left_tokens, first.left_gone) == ("", -1, False)
    holds(story, "w0", PAGES[: 8 * 30])

    second = ran(story, 2, new_hashes=PAGES)

    assert (second.worker_id, second.ran_at, second.left_tokens, second.left_gone) == ("w1", "w0", 480, False)


def test_or_that_it_does_not_know():
    story = Story(Elsewhere())
    ran(story, 1, new_hashes=PAGES)

    assert ran(story, 2, new_hashes=PAGES).left_tokens == -1, "it heard nothing of that worker's pages"


def test_a_home_that_is_gone_is_told():
    story = Story()
    ran(story, 1, new_hashes=PAGES)
    story.hear(Heartbeat(worker=hello("w1"), healthy=True, running=0, waiting=0, used_tokens=0, residency_seq=0))
    story.hear(WorkerLeaving(worker_id="w0", epoch=1, engine_died=True))

    second = ran(story, 2, new_hashes=PAGES)

    assert (second.worker_id, second.ran_at, second.left_gone) == ("w1", "w0", True)


def test_going_back_to_a_line_that_was_let_go_is_told():
    story = Story()
    ran(story, 1, new_hashes=PAGES)
    assert ran(story, 2, new_hashes=PAGES[:16] + OTHER[:80]).superseded_tokens == 0, "compacted: a fresh tag"

    assert ran(story, 3, new_hashes=PAGES + OTHER[:16]).superseded_tokens == 640
    assert ran(story, 4, new_hashes=PAGES + OTHER[:32]).superseded_tokens == 0


def test_but_not_to_one_that_its_tag_still_holds():
    story = Story(supersede=False)
    ran(story, 1, new_hashes=PAGES)
    ran(story, 2, new_hashes=PAGES[:16] + OTHER[:80])

    assert ran(story, 3, new_hashes=PAGES).superseded_tokens == 0
