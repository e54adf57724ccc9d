"""One process of the mesh in virtual time: a core, its timer, its connection to the bus, what is done about effects."""

from collections.abc import Callable
from typing import Any

from fault_life import Clocks, Life

from saga.contract.messages import Message
from saga.kernel.effects import Received, Reconnected, Tick, WakeAt
from saga.sim.agenda import Agenda

AWAY_TICK_S = 0.25  # as the driver's: while the bus is away no time passes for the core
NEVER_S = float("inf")
Acts = dict[type, Callable[[Any], None]]


class Process:
    """`acts` does effects by their type; `hears` takes messages past the core and says whether it did."""

    def __init__(self, name: str, core: Any, agenda: Agenda, clocks: Clocks, *, ticks_away: bool) -> None:
        """`ticks_away`: whether it goes on ticking while the bus is away."""
        self.name = name
        self.core = core
        self.clocks = clocks
        self.life = Life()
        self.reconnects = True  # whether its core wants to know that the bus is back
        self.acts: Acts = {WakeAt: self._wake_at}
        self.hears: Callable[[Message], bool] = lambda _: False
        self.after: Callable[[Process, Any, list[Any]], None] = lambda *_: None  # invariants look on
        self.away = False  # from the bus
        self.asker: Process | None = None  # of the request that is being handled
        self._agenda = agenda
        self._ticks_away = ticks_away
        self._timer_s = NEVER_S  # world time

    def now_s(self) -> float:
        """Its own monotonic clock."""
        return self.clocks.monotonic_s(self._agenda.now_s)

    def tell(self, event: Any) -> None:
        """An event for the core, now or when the process goes on."""
        self.life.do(lambda: self._handle(event))

    def hear(self, message: Message, asker: "Process | None") -> None:
        """A message from the bus, the same way."""
        self.life.do(lambda: self._heard(message, asker))

    def back(self) -> None:
        """The bus is there again."""
        self.away = False
        if self.reconnects:
            self.tell(Reconnected())

    def _heard(self, message: Message, asker: "Process | None") -> None:
        if self.hears(message):
            return
        self.asker = asker
        self._handle(Received(message))
        self.asker = None

    def _handle(self, event: Any) -> None:
        effects = self.core.handle(event, self.now_s())
        self.core.check()
        self.after(self, event, effects)
        for effect in effects:
            act = self.acts.get(type(effect))
            if act is not None:
                act(effect)

    def _wake_at(self, effect: WakeAt) -> None:
        at_s = max(self.clocks.world_s(effect.at_s), self._agenda.now_s + 1e-6)
        if at_s < self._timer_s:
            self._timer_s = at_s
            self._agenda.at(at_s, self._due, at_s)

    def _due(self, at_s: float) -> None:
        if at_s == self._timer_s:
            self.life.do(self._tick)

    def _tick(self) -> None:
        self._timer_s = NEVER_S
        if self.away and not self._ticks_away:
            self._wake_at(WakeAt(self.now_s() + AWAY_TICK_S))
        else:
            self._handle(Tick())
