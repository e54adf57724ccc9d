"""Which pages belong to a session, as the engine's events tell: for sessions whose pages their gateway cannot. Pure.

A gateway whose tokens are not the engine's hashes pages that the engine never stores. But the engine names the session
tag of each page that it stores, and the page before it: walking back from the last one gives the whole chain, pages
that other sessions stored included. So the page before is kept of each page that the engine holds. Placement gets the
chain as it would from the gateway (`StepChain`).
"""

from collections import OrderedDict
from typing import Final

from saga.contract.ids import SessionId, SessionTag, StepId
from saga.contract.messages import MAX_CHAIN_PAGES, LeaseTaken, PagesRemoved, PagesStored, StepChain
from saga.kernel.effects import Received
from saga.kv.residency import HASH_BYTES
from saga.worker.events import EngineGone, KvEvents, KvEventsLost, TagClosed, WorkerEvent

MAX_LINES: Final = 4_096  # tags followed, the longest unused out first
MAX_PAGES: Final = 1_000_000  # of one chain


class _Line:
    """One session tag."""

    __slots__ = ("session", "step_id", "tip", "told")

    def __init__(self, session: SessionId, step_id: StepId) -> None:
        self.session = session
        self.step_id = step_id
        self.tip = b""  # the last page it stored
        self.told = b""  # the tip that placement knows


class Attribution:
    """Of one engine."""

    def __init__(self) -> None:
        self._lines: OrderedDict[SessionTag, _Line] = OrderedDict()
        self._before: dict[bytes, bytes] = {}  # page that the engine holds -> page before it

    def see(self, event: WorkerEvent) -> None:
        """Whatever happens to the agent."""
        match event:
            case KvEvents():
                self._heard(event)
            case Received(LeaseTaken(pages_known=False) as taken) if taken.session_tag:
                self._follow(taken.session_tag, taken.session, taken.step_id)
            case TagClosed(tag):
                self._lines.pop(tag, None)
            case KvEventsLost():
                self._before.clear()
            case EngineGone():
                self._lines.clear()
                self._before.clear()
            case _:
                pass

    def _follow(self, tag: SessionTag, session: SessionId, step_id: StepId) -> None:
        """A step of this session runs under this tag, and nobody knows its pages."""
        line = self._lines.pop(tag, None) or _Line(session, step_id)
        line.step_id = step_id
        self._lines[tag] = line
        if len(self._lines) > MAX_LINES:
            self._lines.popitem(last=False)

    def _heard(self, events: KvEvents) -> None:
        """What the engine stored and let go, in this order: leaves go first, so that no chain loses its middle."""
        stored_by = {by.change: by for by in events.stored_by}
        for number, change in enumerate(events.changes):
            if isinstance(change, PagesStored):
                if (by := stored_by.get(number)) is not None:
                    self._stored(by.tag, by.parent, change.hashes)
            elif isinstance(change, PagesRemoved):
                for start in range(0, len(change.hashes), HASH_BYTES):
                    self._before.pop(change.hashes[start : start + HASH_BYTES], None)
            else:
                self._before.clear()

    def chains(self) -> list[StepChain]:
        """Of the sessions that have stored more since this was asked last."""
        told = []
        for line in self._lines.values():
            if line.tip != line.told:
                line.told = line.tip
                hashes, stride = self._chain(line.tip)
                told.append(StepChain(step_id=line.step_id, session=line.session, hashes=hashes, hash_stride=stride))
        return told

    def _stored(self, tag: SessionTag, parent: bytes, hashes: bytes) -> None:
        """These pages, in the order of their chain, for a request under this tag."""
        before = parent
        for start in range(0, len(hashes), HASH_BYTES):
            page = hashes[start : start + HASH_BYTES]
            self._before[page] = before
            before = page
        line = self._lines.get(tag)
        if line is not None:
            line.tip = before

    def _chain(self, tip: bytes) -> tuple[bytes, int]:
        """Page hashes from the first known page to the tip, and their stride."""
        pages: list[bytes] = []
        page = tip
        while page and len(pages) <= MAX_PAGES:
            pages.append(page)
            page = self._before.get(page, b"")
        pages.reverse()
        stride = max(1, -(-len(pages) // MAX_CHAIN_PAGES))
        return b"".join(pages[stride - 1 :: stride]), stride
