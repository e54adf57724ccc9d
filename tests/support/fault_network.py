"""The bus and the wires in virtual time: who hears what, when, how often, or never.

As NATS: at most once, in order from one sender to one receiver unless a fault says otherwise; what a process that lost
its connection says is kept and sent when it is back. What goes to an engine waits while the wire is cut, as TCP does.
"""

import fnmatch
from collections import Counter
from collections.abc import Callable
from random import Random

from fault_life import Act
from fault_process import Process
from fault_schedule import Cut, Noise

from saga.contract.messages import Message, decode, encode
from saga.sim.agenda import Agenda

APPEND_AGAIN_S = 1.0  # an end of a step that the stream has not acknowledged is sent again
MOST_KEPT = 5_000  # messages of one process while the bus is away
MAX_MESSAGE_BYTES = 256 * 1024
WIRE_S = 0.0005


class Network:
    """Between processes, by subjects; between gateways, agents and engines, by wires."""

    def __init__(self, agenda: Agenda, rng: Random, role_of: Callable[[str], str]) -> None:
        """`role_of`: what a schedule may call the process of this name, beside its name."""
        self.agenda = agenda
        self.stream: list[Message] = []  # JetStream's: ends of steps
        self.sent = Counter[str]()  # by kind
        self._rng = rng
        self._role_of = role_of
        self._followers: dict[Process, list[str]] = {}
        self._routes: dict[str, list[Process]] = {}
        self._kept: dict[Process, list[Act]] = {}
        self._last_s: dict[tuple[Process, Process], float] = {}
        self._noises: list[Noise] = []
        self._cuts: list[Cut] = []
        self._stalled: list[tuple[str, str, Act]] = []  # on cut wires

    # --- who listens -------------------------------------------------------------------------------------------

    def subscribe(self, process: Process, subjects: list[str]) -> None:
        """From now on it hears these."""
        self._followers.setdefault(process, []).extend(subjects)
        self._routes.clear()

    def unsubscribe(self, process: Process, subjects: list[str]) -> None:
        """And these no more."""
        for subject in subjects:
            self._followers[process].remove(subject)
        self._routes.clear()

    def leave(self, process: Process) -> None:
        """The process is dead."""
        self._followers.pop(process, None)
        self._kept.pop(process, None)
        self._routes.clear()

    # --- faults ------------------------------------------------------------------------------------------------

    def disturb(self, noise: Noise) -> None:
        """For as long as it says."""
        self._noises.append(noise)
        self.agenda.after(noise.for_s, self._noises.remove, noise)

    def cut(self, cut: Cut) -> None:
        """For as long as it says."""
        self._cuts.append(cut)
        self.agenda.after(cut.for_s, self._healed, cut)

    def _healed(self, cut: Cut) -> None:
        self._cuts.remove(cut)
        stalled, self._stalled = self._stalled, []
        for one, other, act in stalled:
            self.wire(one, other, act)

    def divided(self, one: str, other: str) -> bool:
        """Whether nothing passes between these two, by name or role."""
        return any(
            (self._is(one, cut.one) and self._is(other, cut.other))
            or (self._is(one, cut.other) and self._is(other, cut.one))
            for cut in self._cuts
        )

    def _is(self, name: str, called: str) -> bool:
        role = self._role_of(name)
        return called in ("*", name, role) or called == f"{role.removesuffix('-standby')}s"

    # --- the bus -----------------------------------------------------------------------------------------------

    def publish(self, sender: Process, subject: str, message: Message, asker: Process | None = None) -> None:
        """At most once, to all who follow the subject."""
        if sender.away:
            kept = self._kept.setdefault(sender, [])
            if asker is None and len(kept) < MOST_KEPT:
                kept.append(lambda: self.publish(sender, subject, message))
            return
        self.sent[type(message).__name__] += 1
        payload = encode(message)
        assert len(payload) <= MAX_MESSAGE_BYTES, f"{type(message).__name__} of {len(payload)} bytes"
        arrived = decode(payload)
        for receiver in self._hearing(subject):
            self._deliver(sender, receiver, arrived, asker)

    def answer(self, sender: Process, asker: Process, message: Message) -> None:
        """To whoever asked."""
        if not sender.away:
            self._deliver(sender, asker, decode(encode(message)), None)

    def append(self, sender: Process, subject: str, message: Message) -> None:
        """Again and again until the stream has it; its followers hear it each time."""
        lost = sender.away or self.divided(sender.name, "store") or self._unlucky(sender, message)
        if not sender.away:
            self.publish(sender, subject, message)
        if lost:
            again = lambda: self.append(sender, subject, message)  # noqa: E731
            self.agenda.after(APPEND_AGAIN_S, sender.life.do, again)
        else:
            self.stream.append(message)

    def away(self, process: Process) -> None:
        """It has lost its connection."""
        process.away = True

    def back(self, process: Process) -> None:
        """It has its connection again: what it said meanwhile is sent."""
        process.away = False
        for act in self._kept.pop(process, []):
            act()
        process.back()

    def _hearing(self, subject: str) -> list[Process]:
        route = self._routes.get(subject)
        if route is None:
            route = self._routes[subject] = [
                process
                for process, patterns in self._followers.items()
                if any(_matches(pattern, subject) for pattern in patterns)
            ]
        return route

    def _unlucky(self, sender: Process, message: Message) -> bool:
        return any(
            self._rng.random() < noise.lose for noise in self._noises if noise.receiver == "*"
            and self._is(sender.name, noise.sender) and noise.kind in ("", type(message).__name__)
        )  # fmt: skip

    def _deliver(self, sender: Process, receiver: Process, message: Message, asker: Process | None) -> None:
        if self._cuts and self.divided(sender.name, receiver.name):
            return
        copies, late_s, reorder = 1, 0.0, False
        for noise in self._noises:
            heard = self._is(sender.name, noise.sender) and self._is(receiver.name, noise.receiver)
            if not heard or noise.kind not in ("", type(message).__name__):
                continue
            copies -= self._rng.random() < noise.lose
            copies += self._rng.random() < noise.double
            if self._rng.random() < noise.late:
                late_s += self._rng.uniform(0.0, noise.latest_s)
                reorder = reorder or noise.reorder
        link = (sender, receiver)
        for _ in range(copies):
            at_s = self.agenda.now_s + self._rng.uniform(0.0002, 0.001) + late_s
            if not reorder:
                at_s = self._last_s[link] = max(at_s, self._last_s.get(link, 0.0))
            self.agenda.at(at_s, _arrive, (receiver, message, asker))

    # --- wires -------------------------------------------------------------------------------------------------

    def wire(self, one: str, other: str, act: Act) -> None:
        """Happens at the far end of a TCP connection; while the wire is cut, later."""
        if self._cuts and self.divided(one, other):
            self._stalled.append((one, other, act))
        else:
            self.agenda.after(WIRE_S, _call, act)


def _arrive(post: tuple[Process, Message, Process | None]) -> None:
    receiver, message, asker = post
    if not receiver.away:
        receiver.hear(message, asker)


def _call(act: Act) -> None:
    act()


def _matches(pattern: str, subject: str) -> bool:
    if pattern.endswith(">"):
        return subject.startswith(pattern[:-1])
    return pattern == subject or ("*" in pattern and fnmatch.fnmatchcase(subject, pattern))
