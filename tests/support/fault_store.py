"""JetStream KV in virtual time: who leads, by a lease that its holder renews, and the tables that outlive processes.

The candidate is `runtime/leader.py` in virtual time: a standby that has not seen the lease change for `LEASE_S` on its
own clock takes it; a leader that cannot reach the store goes on; a higher fence seen ends a term.
"""

from collections.abc import Callable

import msgspec
from fault_network import Network
from fault_process import Process

from saga.contract.messages import LeaderHello, Message
from saga.kernel.effects import Demoted, Forget, Persist, Promoted

LEASE_S = 1.2
LOOK_S = 0.3
FLUSH_S = 0.5


class _Lease(msgspec.Struct):
    holder: Process
    revision: int


class Store:
    """Survives every process."""

    def __init__(self, network: Network) -> None:
        self.leases: dict[str, _Lease] = {}
        self.tables: dict[str, dict[str, bytes]] = {"workflows": {}, "graph": {}}
        self.revision = 0
        self._network = network

    def reachable(self, process: Process) -> bool:
        """Whether the process can read and write it."""
        return not process.away and not self._network.divided(process.name, "store")

    def take(self, service: str, holder: Process) -> int:
        """The lease is this one's now. Its fence."""
        self.revision += 1
        self.leases[service] = _Lease(holder, self.revision)
        return self.revision

    def renew(self, service: str) -> None:
        """Its holder lives."""
        self.revision += 1
        self.leases[service].revision = self.revision


class Table:
    """Rows of one process on their way to the store: twice a second, lost if it dies before."""

    def __init__(self, process: Process, store: Store, table: str, network: Network) -> None:
        self._process = process
        self._store = store
        self._rows = store.tables[table]
        self._dirty: dict[str, bytes | None] = {}
        self._agenda = network.agenda
        process.acts[Persist] = lambda row: self._dirty.update({row.key: row.value})
        process.acts[Forget] = lambda row: self._dirty.update({row.key: None})
        self._later(None)

    def drop(self) -> None:
        """Another leads: what is still here is its business."""
        self._dirty.clear()

    def rows(self) -> tuple[bytes, ...]:
        """All there are; none when the store cannot be reached."""
        return tuple(self._rows.values()) if self._store.reachable(self._process) else ()

    def _later(self, _: None) -> None:
        if self._process.life.alive:
            self._process.life.do(self._flush)
            self._agenda.after(FLUSH_S, self._later, None)

    def _flush(self) -> None:
        if not self._store.reachable(self._process):
            return
        for key, value in self._dirty.items():
            if value is None:
                self._rows.pop(key, None)
            else:
                self._rows[key] = value
        self._dirty.clear()


class Candidate:
    """One process that leads its service or stands by."""

    def __init__(
        self,
        process: Process,
        service: str,
        store: Store,
        network: Network,
        leads_on: list[str],
        *,
        before: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """`before`, `after`: around a term."""
        self.process, self.service = process, service
        self.in_term = False
        self.fence = 0
        self._replaced = False
        self._store, self._network = store, network
        self._leads_on = leads_on
        self._before, self._after = before, after
        self._seen = -1
        self._seen_s = process.now_s()
        self._turn(None)

    def heard(self, message: Message) -> bool:
        """Looks at a message before the core does, which hears it all the same."""
        if isinstance(message, LeaderHello) and message.service == self.service and message.fence > self.fence:
            self._replaced = self.in_term
        return False

    def _turn(self, _: None) -> None:
        if self.process.life.alive:
            self.process.life.do(self._look)
            self._network.agenda.after(LOOK_S, self._turn, None)

    def _look(self) -> None:
        store, process = self._store, self.process
        lease = store.leases.get(self.service)
        now_s = process.now_s()
        if self.in_term:
            taken = store.reachable(process) and (lease is None or lease.holder is not process)
            if self._replaced or taken:
                self._end_term()
            elif store.reachable(process):
                store.renew(self.service)
        elif not store.reachable(process):
            self._seen_s = now_s  # no time runs against a leader whom we could not see
        elif lease is not None and lease.revision != self._seen:
            self._seen, self._seen_s = lease.revision, now_s
        elif lease is None or now_s - self._seen_s >= LEASE_S:
            self._begin_term()

    def _begin_term(self) -> None:
        self.in_term, self._replaced = True, False
        self.fence = self._store.take(self.service, self.process)
        self._network.subscribe(self.process, self._leads_on)
        self._before()
        self.process.tell(Promoted(self.fence))

    def _end_term(self) -> None:
        self.in_term, self._replaced = False, False
        self._seen, self._seen_s = -1, self.process.now_s()
        self._after()
        self.process.tell(Demoted())
        self._network.unsubscribe(self.process, self._leads_on)
