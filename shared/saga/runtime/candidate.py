"""A core that leads or stands by: who it is, what it follows when, and how the lead comes and goes.

A standby follows only what is dear to rebuild (presence, residency). It takes up the subjects of steps when it is
promoted, before it says hello: gateways then tell it every step that waits or runs, so having followed them would buy
nothing and costs half of the cell's message work.
"""

from collections.abc import Awaitable, Callable
from typing import Literal

from saga.contract.messages import LeaderHello
from saga.contract.subjects import Subjects
from saga.kernel.effects import Demoted, Promoted
from saga.runtime.app import App
from saga.runtime.bus import Bus, Incoming, Subscription
from saga.runtime.driver import Driver
from saga.runtime.errors import BusUnavailable
from saga.runtime.leader import Leader
from saga.runtime.log import get_logger

log = get_logger()
Prepare = Callable[[], Awaitable[None]]


class Candidate:
    """One candidate for the lead of a service. Composed by `service.py`."""

    def __init__(
        self,
        app: App,
        bus: Bus,
        driver: Driver,
        service: Literal["admission", "placement"],
        holder_id: str,
        subjects: Subjects,
        *,
        follows: list[str],
        leads_on: list[str],
    ) -> None:
        """`follows`: subjects for life; `leads_on`: those of a leader only."""
        self._app = app
        self._bus = bus
        self._driver = driver
        self._service = service
        self._subjects = subjects
        self._follows = follows
        self._leads_on = leads_on
        self._held: list[Subscription] = []
        self._before_lead: Prepare | None = None
        self._after_lead: Callable[[], None] | None = None
        self.leader = Leader(
            bus,
            service,
            holder_id,
            on_promoted=self._promoted,
            on_demoted=self._demoted,
            cell=subjects.cell,
        )

    def around_lead(self, before: Prepare, after: Callable[[], None]) -> None:
        """`before`: what must be read before the first word as leader; `after`: what to drop when it is over."""
        self._before_lead, self._after_lead = before, after

    async def start(self) -> None:
        """Follow, and take part in the race for the lead."""
        await self._bus.subscribe(self._subjects.leader_hello(), self._hear_hello)
        await self._driver.start(self._follows)
        self._app.spawn(self._driver.watch(), name="ticks")
        self._app.spawn(self.leader.run(), name="leader")

    async def stop(self) -> None:
        """Hand the lead over, if it is ours, and fall silent."""
        await self.leader.release()
        self._driver.stop()

    async def _promoted(self, fence: int) -> None:
        try:
            self._held = await self._driver.listen(self._leads_on)
        except BusUnavailable as error:  # it comes back with the subscriptions in place
            log.warning("candidate.barrier_missed", leader_of=self._service, error=str(error))
        if self._before_lead is not None:
            await self._before_lead()
        await self._driver.tell(Promoted(fence))

    async def _demoted(self) -> None:
        if self._after_lead is not None:
            self._after_lead()
        await self._driver.tell(Demoted())
        for subscription in self._held:
            await subscription.drain()
        self._held = []

    def _hear_hello(self, incoming: Incoming) -> None:
        message = incoming.message
        if isinstance(message, LeaderHello) and message.service == self._service:
            self.leader.observe(message.fence)
