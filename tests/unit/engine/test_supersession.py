"""What the engine evicts of a session whose tag was superseded: the dead branch first, never what both share."""

import pytest
from engine_drive import PAGE, Drive, hashes_of

from saga.engine.events import CloseSession

SHARED, DEAD, ALIVE, OTHER = "s" * 40, "d" * 40, "a" * 20, "o" * 32


def resident(drive: Drive, prompt: str) -> int:
    """Leading pages of the prompt that are cached."""
    hashes = hashes_of(prompt)
    pages = [hashes[at : at + 8] for at in range(0, len(hashes), 8)]
    return next((number for number, page in enumerate(pages) if page not in drive.resident), len(pages))


def ask(drive: Drive, rid: str, prompt: str, session: str) -> None:
    drive.ask(rid, prompt, "!", session_id=session)
    drive.run()


def whole(drive: Drive, prompt: str) -> bool:
    return resident(drive, prompt) == len(prompt) // PAGE


def compacted(fresh: str) -> Drive:
    """A session of 20 pages goes on with half of them and 5 others; a stranger has 8 more of the pool's 40."""
    drive = Drive(session_radix_cache=True)
    ask(drive, "1", SHARED + DEAD, "s-1")
    ask(drive, "2", SHARED + ALIVE, fresh)
    if fresh != "s-1":
        drive.do(CloseSession("s-1"))
    ask(drive, "3", OTHER, "")
    return drive


def test_the_dead_branch_goes_first_and_the_shared_prefix_stays():
    drive = compacted("s-2")

    ask(drive, "4", "x" * 48, "")

    assert whole(drive, SHARED + ALIVE)
    assert whole(drive, OTHER)
    assert len(SHARED) // PAGE <= resident(drive, SHARED + DEAD) < len(SHARED + DEAD) // PAGE
    drive.check()


def test_under_one_tag_the_dead_branch_outlives_a_stranger():
    """What supersession is for."""
    drive = compacted("s-1")

    ask(drive, "4", "x" * 48, "")

    assert whole(drive, SHARED + DEAD)
    assert not whole(drive, OTHER)


def test_even_when_nothing_else_is_left_the_live_branch_goes_last():
    drive = compacted("s-2")

    ask(drive, "4", "x" * 88, "")

    assert resident(drive, SHARED + DEAD) == len(SHARED) // PAGE
    assert whole(drive, SHARED + ALIVE)


@pytest.mark.parametrize("closed", [False, True])
def test_until_the_first_request_under_the_fresh_tag_has_ended_the_old_one_alone_pins_the_prefix(closed):
    """Why the worker waits with the close."""
    drive = Drive(session_radix_cache=True)
    ask(drive, "1", SHARED + DEAD, "s-1")
    if closed:
        drive.do(CloseSession("s-1"))
    ask(drive, "2", OTHER, "")

    ask(drive, "3", "x" * 100, "")

    assert whole(drive, SHARED) == (not closed)
