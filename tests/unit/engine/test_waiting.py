"""The order of the waiting queue under each schedule."""

import pytest
from engine_drive import Drive, hashes_of, small_profile

from saga.engine.events import Arrive, FixedOutput
from saga.engine.radix import RadixTree
from saga.engine.request import EngineRequest
from saga.engine.settings import EngineSettings
from saga.engine.waiting import LPM_MOST_WAITING, WaitingQueue


def waiting(rid: str, prompt: str, max_new_tokens: int = 1, priority: int = 0) -> EngineRequest:
    output = FixedOutput(1, hashes_of(prompt, 16))
    return EngineRequest(Arrive(rid, len(prompt), max_new_tokens, output, priority), 0, 0.0)


def order(queue: WaitingQueue, tree: RadixTree | None = None) -> list[str]:
    """What comes out; the queue is empty afterwards."""
    queue.schedule(tree or RadixTree())
    rids = []
    while (head := queue.head()) is not None:
        assert queue.pop() is head
        rids.append(head.rid)
    assert len(queue) == 0
    return rids


def queue_of(*requests: EngineRequest, **settings) -> WaitingQueue:
    queue = WaitingQueue(EngineSettings(**settings), 16)
    for request in requests:
        queue.add(request)
    return queue


def cached(*prompts: str) -> RadixTree:
    tree = RadixTree()
    for prompt in prompts:
        tree.insert(tree.root, hashes_of(prompt, 16))
    return tree


def test_longest_output_first_then_first_come():
    requests = [waiting("a", "x", 5), waiting("b", "x", 9), waiting("c", "x", 5), waiting("d", "x", 9)]
    assert order(queue_of(*requests, schedule="lof")) == ["b", "d", "a", "c"]


def test_priority_goes_before_the_longest_output():
    requests = [waiting("a", "x", 5, 1), waiting("b", "x", 9), waiting("c", "x", 7, 1)]
    assert order(queue_of(*requests, schedule="lof", priority_scheduling=True)) == ["c", "a", "b"]


def test_longest_cached_prefix_first_then_first_come():
    tree = cached("a" * 64, "b" * 128)
    requests = [waiting("new", "n" * 99), waiting("a", "a" * 99), waiting("b", "b" * 129), waiting("b2", "b" * 40)]
    assert order(queue_of(*requests, schedule="lpm"), tree) == ["b", "a", "b2", "new"]
    assert tree.match(hashes_of("b" * 128, 16), 99)[1] == 8


def test_of_those_that_share_an_uncached_prefix_only_the_first_goes_before_the_rest():
    shared = "s" * 48
    requests = [waiting("s1", shared + "1" * 40), waiting("s2", shared + "2" * 40), waiting("other", "o" * 80)]
    assert order(queue_of(*requests, schedule="lpm")) == ["s1", "other", "s2"]
    # Cached for more than the threshold, it is no reason to wait.
    tree = cached("s" * 48)
    assert order(queue_of(*requests, schedule="lpm"), tree) == ["s1", "s2", "other"]


def test_a_long_queue_falls_back_to_first_come():
    requests = [waiting(f"{number:03d}", f"{number:03d}" * 20) for number in range(LPM_MOST_WAITING + 1)]
    tree = cached("128" * 20)
    queue = queue_of(*requests, schedule="lpm")
    queue.schedule(tree)
    assert queue.pop().rid == "000"
    assert order(queue, tree)[0] == "128"


class Counting(RadixTree):
    """A tree that counts how often it is asked."""

    asked = 0

    def peek(self, hashes: bytes, max_pages: int) -> tuple[int, int]:
        self.asked += 1
        return super().peek(hashes, max_pages)


def test_nothing_is_matched_anew_unless_cache_or_queue_changed():
    tree = Counting()
    queue = queue_of(*(waiting(str(number), str(number) * 50) for number in range(3)), schedule="lpm")
    for _ in range(5):
        queue.schedule(tree)
    assert tree.asked == 3
    queue.add(waiting("3", "3" * 50))
    queue.schedule(tree)
    assert tree.asked == 7
    tree.insert(tree.root, hashes_of("2" * 50, 16))
    queue.schedule(tree)
    assert (tree.asked, queue.pop().rid) == (11, "2")
    queue.schedule(tree)
    assert tree.asked == 14


def test_matching_splits_nothing_but_marks_as_used():
    tree = cached("a" * 64, "b" * 64)
    queue_of(waiting("a", "a" * 40), schedule="lpm").schedule(tree)
    assert [node.pages for node in tree.nodes()] == [4, 4]
    assert tree.evict(1) == [hashes_of("b" * 64, 16)]


def test_an_engine_serves_the_cached_prompt_first():
    for schedule, finished in (("fcfs", ["hold", "new", "warm"]), ("lpm", ["hold", "warm", "new"])):
        drive = Drive(small_profile(max_running=1), schedule=schedule)
        drive.ask("first", "w" * 20, "o")
        drive.run()
        drive.ask("hold", "h" * 4, "o" * 9)
        drive.step()
        drive.ask("new", "n" * 20, "o")
        drive.ask("warm", "w" * 24, "o")
        drive.run()
        assert drive.finish_order[1:] == finished


def test_priorities_with_lpm_are_refused_as_in_sglang():
    with pytest.raises(ValueError, match="fcfs or lof"):
        EngineSettings(schedule="lpm", priority_scheduling=True)
