"""One simulated engine in virtual time: `EngineCore` with its timer, its answers, and its KV events for the agent."""

from collections.abc import Callable

from saga.contract.ids import SessionTag
from saga.contract.messages import AllCleared, PagesRemoved, PagesStored, ResidencyChange
from saga.engine.core import EngineCore
from saga.engine.events import (
    Abort,
    Arrive,
    Cleared,
    CloseSession,
    Event,
    Finished,
    Progress,
    Rejected,
    Removed,
    Stored,
)
from saga.engine.profile import Profile
from saga.kernel.effects import Tick, WakeAt
from saga.sim.agenda import Agenda
from saga.sim.party import NEVER_S, Party
from saga.worker.events import EngineFacts, KvEvents, TagClosed

TICK = Tick()


class EngineHost:
    """An engine beside its agent. `on_word` hears Progress (the first token), Finished, Rejected; `delay_s` later."""

    __slots__ = ("_agenda", "_agent", "_delay_s", "_wake_s", "core", "facts", "on_word")

    def __init__(self, agenda: Agenda, profile: Profile, agent: Party, *, session_tags: bool, delay_s: float) -> None:
        self.core = EngineCore(profile, session_radix_cache=session_tags, progress=False)
        self.on_word: Callable[[Progress | Finished | Rejected], None] | None = None
        self.facts = EngineFacts(
            model=profile.model,
            page_tokens=profile.page_tokens,
            kv_tokens=profile.kv_tokens,
            context_tokens=profile.context_tokens,
            max_running=profile.max_running,
            session_tags=session_tags,
            cost=profile.cost_model(),
        )
        self._agenda = agenda
        self._agent = agent
        self._delay_s = delay_s
        self._wake_s = NEVER_S

    def share_kv(self, other: "EngineHost") -> None:
        """Use the other's KV as if it were here, from before the first request: only in the KV bound."""
        core, pool = self.core, other.core.pool
        core._pool = core._batch._pool = pool  # noqa: SLF001 - no engine can do this, so its core offers no door to it
        core._effects = pool.effects  # noqa: SLF001 - the same

    def arrive(self, arrival: Arrive) -> None:
        """A request has come over the wire."""
        self._handle(arrival)

    def close_tag(self, tag: SessionTag) -> None:
        """The agent asks to close a session tag; it hears back."""
        self._handle(CloseSession(tag))
        self._agenda.after(self._delay_s, self._agent.tell, TagClosed(tag))

    def abort(self, rid: str) -> None:
        """The agent ends a request."""
        self._handle(Abort(rid))

    def _due(self, at_s: float) -> None:
        if at_s == self._wake_s:
            self._handle(TICK)

    def _handle(self, event: Event) -> None:
        changes: list[ResidencyChange] = []
        self._wake_s = NEVER_S
        for effect in self.core.handle(event, self._agenda.now_s):
            kind = type(effect)
            if kind is WakeAt:
                self._wake_s = at_s = effect.at_s  # type: ignore[union-attr]
                self._agenda.at(at_s, self._due, at_s)
            elif kind is Stored:
                changes.append(PagesStored(effect.hashes))  # type: ignore[union-attr]
            elif kind is Removed:
                changes.append(PagesRemoved(effect.hashes))  # type: ignore[union-attr]
            elif kind is Cleared:
                changes.append(AllCleared())
            elif self.on_word is not None:
                self._agenda.after(self._delay_s, self.on_word, effect)
        if changes:
            self._agent.tell(KvEvents(tuple(changes)))
