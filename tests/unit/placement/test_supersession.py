"""What a session leaves behind, and when it gets a fresh tag for it."""

import pytest

from saga.contract.ids import SessionTag, StepId
from saga.placement import supersession
from saga.placement.supersession import MAX_LINES, STEADY_STEPS, Tagged, shared_pages


def chain(*runs: str) -> bytes:
    """Page hashes of a prompt: `"a20"` are 20 pages that only chains beginning likewise have."""
    hashes, above = [], ""
    for run in runs:
        for page in range(int(run[1:])):
            above = f"{above}/{run[0]}{page}" if page == 0 else f"{above}.{page}"
            hashes.append((hash(above) & (1 << 64) - 1).to_bytes(8, "big"))
    return b"".join(hashes)


class Told:
    """A session, and what is said of each of its steps."""

    def __init__(self) -> None:
        self.tagged = Tagged(SessionTag("t"))
        self.live: set[StepId] = set()
        self.steps = 0

    def step(self, *runs: str, agent: str = "", ends: bool = True, known: bool = True) -> tuple[int, str]:
        """(pages that a fresh tag lets go, why) of a step with this prompt."""
        self.steps += 1
        step_id = StepId(f"{self.steps:032x}")
        self.live.add(step_id)
        said = self.tagged.follow(step_id, agent, chain(*runs) if known else None, self.live)
        if ends:
            self.live.discard(step_id)
        return said.choice, said.reason

    def runs(self, *steps: tuple[str, ...]) -> list[tuple[int, str]]:
        return [self.step(*runs) for runs in steps]


def test_pages_shared():
    assert shared_pages(chain("a20"), chain("a20", "b5")) == 20
    assert shared_pages(chain("a20", "c9"), chain("a20", "b5")) == 20
    assert shared_pages(chain("a20"), chain("b20")) == 0
    assert shared_pages(b"", chain("b20")) == 0
    for shared in range(1, 30):
        assert shared_pages(chain(f"a{shared}", "b9"), chain(f"a{shared}", "c3")) == shared


def test_a_session_that_grows_keeps_its_tag():
    told = Told()

    assert told.runs(("a10",), ("a10", "b5"), ("a10", "b5", "c7")) == [(0, "first"), (0, "extended"), (0, "extended")]


def test_a_compaction_lets_go_what_it_dropped():
    told = Told()
    told.runs(("s5",), ("s5", "a50"), ("s5", "a50", "b50"))

    assert told.step("s5", "c10") == (100, "compacted")
    assert told.step("s5", "c10", "d10") == (0, "extended")


def test_an_edit_far_back_and_a_fresh_start_do_so_too():
    told = Told()
    told.runs(("s5",), ("s5", "a50"), ("s5", "a50", "b5"))

    assert told.step("s5", "a20", "c60") == (35, "branched")
    assert told.step("x9") == (85, "restarted")


def test_an_answer_that_is_rendered_otherwise_is_no_supersession():
    told = Told()
    told.runs(("s50",), ("s50", "a4"))

    assert told.step("s50", "b9") == (0, "tail")


def test_tails_add_up():
    """Each step asks the same context something else: every question is dead at the next."""
    told = Told()
    told.runs(("s80",), ("s80", "a5"))

    assert told.runs(("s80", "b5"), ("s80", "c5"), ("s80", "d5")) == [(0, "tail"), (0, "tail"), (15, "tail")]


def test_what_is_not_known_decides_nothing():
    told = Told()
    told.runs(("s5",), ("s5", "a50"))

    assert told.step("x5", known=False) == (0, "unknown")
    assert told.step("s5", "c10") == (0, "unknown")
    assert told.step("s5", "c10", "d1") == (0, "extended")


def test_a_step_granted_again_is_the_same_step():
    told = Told()
    told.runs(("s5",), ("s5", "a50"), ("s5", "a50", "b9"))
    told.step("s5", "c10")
    again = told.tagged.follow(StepId(f"{told.steps:032x}"), "", chain("s5", "c10"), told.live)

    assert (again.choice, again.reason) == (0, "again")


def test_parallel_calls_of_one_session_keep_one_tag():
    told = Told()
    told.step("s5")
    for number in range(40):
        assert told.step("s5", f"a{number + 20}", ends=False)[0] == 0
        assert told.step("s5", f"b{number + 20}", ends=False)[0] == 0
        told.live.clear()


def test_attempts_tried_in_turn_cost_one_fresh_tag():
    told = Told()
    told.runs(("s5",), ("s5", "a30"), ("s5", "a30", "x1"))

    assert told.step("s5", "b30") == (31, "compacted")
    assert told.step("s5", "a30", "x2") == (0, "returned")
    for number in range(3, 40):
        assert told.step("s5", f"{'ab'[number % 2]}30", f"x{number}")[0] == 0


def test_a_line_that_goes_on_steadily_lets_go_what_it_left():
    told = Told()
    told.runs(("s5",), ("s5", "a30"), ("s5", "a30", "x1"), ("s5", "b30"), ("s5", "a30", "x2"))

    said = [told.step("s5", "a30", "x2", f"y{number}") for number in range(1, STEADY_STEPS + 3)]

    assert [pages for pages, _ in said if pages] == [30]
    assert said[STEADY_STEPS - 1] == (30, "extended")
    assert told.step("s5", "b30") == (50, "compacted")


def test_a_helper_with_other_tools_supersedes_nothing_and_is_not_superseded():
    told = Told()
    told.runs(("s5",), ("s5", "a50"), ("s5", "a50", "b50"))

    assert told.step("h9", agent="summary") == (0, "other_agent")
    assert told.step("s5", "a50", "b50", "c1") == (0, "extended")
    assert told.step("h9", "i3", agent="summary") == (0, "extended")


def test_a_compaction_through_a_helper_is_seen():
    """A client asks for the summary with another system prompt: the line that it interrupts is compared with itself."""
    told = Told()
    told.runs(("s5",), ("s5", "a50"), ("s5", "a50", "b50"))
    told.step("h1", "s5", "a50", "b50", agent="summary")

    assert told.step("s5", "c10") == (100, "compacted")


def test_small_helpers_do_not_cost_a_large_line_its_tag():
    told = Told()
    told.runs(("s5",), ("s5", "a500"))
    for number in range(12):
        assert told.step("h3", f"x{number + 1}", "y5", agent="title")[0] == 0
        told.step("s5", "a500", f"b{number + 1}")


def test_other_tools_from_now_on_are_a_new_line_and_the_old_one_dies():
    told = Told()
    told.runs(("s5",), ("s5", "a50"))

    said = [told.step("t5", f"b{number}", agent="more tools") for number in range(1, STEADY_STEPS + 2)]

    assert said[0] == (0, "other_agent")
    assert [pages for pages, _ in said if pages] == [55]


def test_lines_are_bounded():
    told = Told()
    for number in range(50):
        told.step("s5", agent=f"agent-{number}")

    assert len(told.tagged._lines) <= MAX_LINES


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_share_that_must_be_dead_is_one_setting(monkeypatch, share):
    monkeypatch.setattr(supersession, "DEAD_SHARE", share)
    told = Told()
    told.runs(("s50",), ("s50", "a10"), ("s50", "a10", "b10"))

    assert (told.step("s50", "c10")[0] > 0) == (share == 0.0)
