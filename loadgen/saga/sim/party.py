"""One process of the mesh in virtual time: a core, its timer, and what is done about its effects."""

from collections.abc import Callable
from typing import Any

from saga.kernel.effects import Tick, WakeAt
from saga.sim.agenda import Agenda

NEVER_S = float("inf")
SOON_S = 1e-6  # a core that asks to be woken in the past is woken at once, but time goes on
TICK = Tick()


class Gone:
    """A core that is not there: hears everything and says nothing."""

    def handle(self, event: object, now_s: float) -> list[Any]:
        """Nobody heard it."""
        del event, now_s
        return []

    def check(self) -> None:
        """Nothing can be wrong here."""


class Party:
    """Feeds events to a core and performs its effects by a table from effect types to acts."""

    __slots__ = ("_acts", "_agenda", "_wake_s", "core", "name", "record")

    def __init__(
        self,
        name: str,
        core: Any,  # noqa: ANN401 - each core has its own events
        agenda: Agenda,
        acts: "dict[type, Callable[[Party, Any], None]]",
    ) -> None:
        self.name = name
        self.core = core
        self.record: list[tuple[float, Any, list[Any]]] | None = None  # when a list: every event with its effects
        self._agenda = agenda
        self._acts = acts
        self._wake_s = NEVER_S

    def tell(self, event: Any) -> None:  # noqa: ANN401 - as above
        """The core handles an event; its effects happen in order."""
        effects = self.core.handle(event, self._agenda.now_s)
        if self.record is not None:
            self.record.append((self._agenda.now_s, event, list(effects)))
        acts = self._acts
        for effect in effects:
            acts[type(effect)](self, effect)

    def replace(self, core: Any) -> None:  # noqa: ANN401 - as above
        """Another process in its place, which knows nothing and asked for nothing yet."""
        self.core = core
        self._wake_s = NEVER_S

    def wake_at(self, effect: WakeAt) -> None:
        """A Tick then, unless an earlier one is set: each tick says anew when the next is due."""
        at_s = effect.at_s
        if at_s < self._wake_s:
            self._wake_s = at_s = max(at_s, self._agenda.now_s + SOON_S)
            self._agenda.at(at_s, self._tick, at_s)

    def _tick(self, at_s: float) -> None:
        if at_s == self._wake_s:
            self._wake_s = NEVER_S
            self.tell(TICK)
