"""The shell of a worker agent in virtual time: it looks at its engine, follows its KV events, and keeps a journal.

As `worker/service.py`: an engine that refuses twice in a row is gone, one that does not answer is unhealthy; events
missed are asked for again, and lost when the engine no longer has them.
"""

from fault_engine import FACTS, Engine
from fault_network import Network
from fault_process import Process

from saga.kernel.effects import Forget, Persist
from saga.worker.events import (
    AbortRequest,
    Attached,
    BusAway,
    CheckEngine,
    CloseTag,
    EngineGone,
    KvEvents,
    KvEventsLost,
    LoadMissed,
    LoadSeen,
    Restored,
    TagClosed,
    TagCloseFailed,
)
from saga.worker.journal import Journal

POLL_S = 0.5
REFUSED_AGAIN_S = 0.05
ASK_TIMEOUT_S = 1.0


class Agent:
    """One incarnation of a worker's agent. `journal`: the file, which outlives it."""

    def __init__(self, process: Process, engine: Engine, network: Network, journal: dict[str, bytes]) -> None:
        self.process, self.engine = process, engine
        self._network = network
        self._incarnation = 0  # of the engine it is attached to; 0: none
        self._epoch = 0
        self._cursor = 0  # in the engine's log of changes
        self._refused = False
        self._journal = journal
        process.acts |= {
            AbortRequest: lambda effect: self._ask(lambda: engine.abort(effect.rid)),
            CloseTag: self._close_tag,
            CheckEngine: lambda _: self._look(),
            Persist: lambda row: journal.update({row.key: row.value}),
            Forget: lambda row: journal.pop(row.key, None),
        }
        engine.on_change = lambda: network.wire(engine.name, process.name, lambda: process.life.do(self._follow))
        written = Journal(b"".join(b"+" + row + b"\n" for row in journal.values()))
        process.tell(Restored(tuple(written.records())))
        self._poll(None)

    def bus_away(self) -> None:
        """The connection to the bus broke."""
        self.process.tell(BusAway())

    def _poll(self, _: None) -> None:
        if self.process.life.alive:
            self.process.life.do(self._look)
            self._network.agenda.after(POLL_S, self._poll, None)

    def _look(self) -> None:
        engine, process = self.engine, self.process
        if engine.life.stopped or self._network.divided(process.name, engine.name):
            if self._incarnation:
                process.tell(LoadMissed())
        elif not engine.life.alive:
            if self._refused and self._incarnation:
                self._gone()
            self._refused = True
        elif self._incarnation != engine.incarnation:
            if self._incarnation:
                self._gone()
            self._attach()
        else:
            self._refused = False
            process.tell(LoadSeen(len(engine.running), len(engine.waiting), engine.used_tokens))
            self._follow()

    def _gone(self) -> None:
        self._incarnation = 0
        self.process.tell(EngineGone())

    def _attach(self) -> None:
        self._refused = False
        self._incarnation = self.engine.incarnation
        wall_ms = int(self.process.clocks.wall_s(self._network.agenda.now_s) * 1000)
        self._epoch = max(self._epoch + 1, wall_ms)
        self._cursor = self.engine.changes_gone
        self.process.tell(Attached(FACTS, self._epoch))
        self.process.tell(LoadSeen(len(self.engine.running), len(self.engine.waiting), self.engine.used_tokens))
        self._follow()

    def _follow(self) -> None:
        """All changes that the engine still has and this agent has not seen."""
        engine = self.engine
        if self._incarnation != engine.incarnation or not engine.life.alive:
            return
        if self._cursor < engine.changes_gone:
            self._cursor = engine.changes_gone
            self.process.tell(KvEventsLost())
        new = tuple(engine.changes)[self._cursor - engine.changes_gone :]
        if new:
            self._cursor += len(new)
            self.process.tell(KvEvents(new))

    def _reaches(self) -> bool:
        divided = self._network.divided(self.process.name, self.engine.name)
        return self.engine.life.alive and not self.engine.life.stopped and not divided

    def _ask(self, act: "object") -> None:
        """Over HTTP; what does not get through is not asked again here."""
        if self._reaches():
            engine_life = self.engine.life
            self._network.wire(self.process.name, self.engine.name, lambda: engine_life.do(act))  # type: ignore[arg-type]

    def _close_tag(self, effect: CloseTag) -> None:
        process, tag = self.process, effect.tag
        if self._reaches():
            self._ask(lambda: self.engine.close_tag(tag))
            self._network.agenda.after(0.002, process.tell, TagClosed(tag))
        else:
            self._network.agenda.after(ASK_TIMEOUT_S, process.tell, TagCloseFailed(tag))
