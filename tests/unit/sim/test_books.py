"""Every container below a core is found, by its path, once, whatever it is kept in."""

from collections import OrderedDict, deque

import msgspec

from saga.sim.books import books


class Entry(msgspec.Struct):
    names: list[str] = []


class Slotted:
    __slots__ = ("queue", "told")

    def __init__(self) -> None:
        self.queue = deque([1, 2, 3])
        self.told = (Entry(["a", "b"]), 7)


class Core:
    def __init__(self) -> None:
        self.sessions = OrderedDict(a=Entry(["x"]), b=Entry(["y", "z"]), c=Entry())
        self.inner = Slotted()
        self.again = self.inner  # the same: counted once
        self.owner = self  # a circle
        self.ids = {1, 2}
        self.buffer = bytearray(b"1234")
        self.name = "not a book"
        self.act = self.inner.queue.append


for kind in (Entry, Slotted, Core):
    kind.__module__ = "saga.made_up"  # only what is ours is walked


def test_containers_are_found_in_slots_structs_tuples_and_each_other():
    assert books(Core()) == {
        "buffer": 4,
        "ids": 2,
        "inner.queue": 3,
        "inner.told.names": 2,
        "sessions": 3,
        "sessions[*].names": 3,
    }


def test_what_is_not_ours_is_not_walked():
    core = Core()
    core.sessions["d"] = object()

    assert books(core)["sessions"] == 4
