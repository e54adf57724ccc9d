"""One simulated engine in virtual time: `EngineCore` with its timer, its answers, and its KV events for the agent.

An engine that dies takes its KV with it; its requests hear so at once, as their connections break.
"""

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
    Flush,
    Progress,
    Rejected,
    Removed,
    SetRetention,
    Stored,
)
from saga.engine.pool import KvPool
from saga.engine.profile import Profile
from saga.engine.settings import EngineSettings
from saga.engine.shared_tier import SharedTier
from saga.kernel.effects import Tick, WakeAt
from saga.sim.agenda import Agenda
from saga.sim.party import NEVER_S, Party
from saga.worker.events import EngineFacts, KvEvents, TagClosed

TICK = Tick()
SHARED_TIER = "cluster"  # name of the one that there may be


class EngineHost:
    """An engine beside its agent. `on_word` hears Progress (the first token), Finished, Rejected; `delay_s` later."""

    __slots__ = (
        "_agenda", "_agent", "_delay_s", "_now_s", "_speed", "_wake_s", "core", "down", "facts", "link", "on_word",
    )  # fmt: skip

    def __init__(
        self,
        agenda: Agenda,
        profile: Profile,
        agent: Party,
        *,
        engine: EngineSettings,
        delay_s: float,
        pool: KvPool | None = None,
        speed: float = 1.0,
        shared: SharedTier | None = None,
    ) -> None:
        """`pool`: another engine's KV, to be used as if it were here; no engine can, so only the KV bound does."""
        self.link = shared.link() if shared is not None else None
        self.core = EngineCore(profile, engine, progress=False, pool=pool, shared=self.link)
        self.on_word: Callable[[Progress | Finished | Rejected], None] | None = None
        self.facts = EngineFacts(
            model=profile.model,
            page_tokens=profile.page_tokens,
            kv_tokens=profile.kv_tokens,
            context_tokens=profile.context_tokens,
            max_running=profile.max_running,
            session_tags=engine.session_radix_cache,
            speed=speed,
            shrink=profile.shrink,
            cost=profile.cost_model(),
            host_kv_tokens=engine.host_kv_tokens,
            load_s_per_token=profile.load_s_per_token if engine.host_kv_tokens else 0.0,
            shared_tier=SHARED_TIER if shared is not None else "",
            shared_load_s_per_token=profile.kv_bytes_per_token / shared.bytes_per_s if shared is not None else 0.0,
        )
        self.down = False
        self._agenda = agenda
        self._agent = agent
        self._delay_s = delay_s
        self._speed = speed  # engine-seconds per second of the agenda
        self._now_s = 0.0  # engine time
        self._wake_s = NEVER_S

    def arrive(self, arrival: Arrive) -> None:
        """A request has come over the wire. A dead engine's host refuses the connection."""
        if self.down:
            self._refuse(arrival)
        else:
            self._handle(arrival)

    def close_tag(self, tag: SessionTag) -> None:
        """The agent asks to close a session tag; it hears back."""
        self._handle(CloseSession(tag))
        self._agenda.after(self._delay_s, self._agent.tell, TagClosed(tag))

    def set_retention(self, worth: tuple[SessionTag, float]) -> None:
        """The agent says what a session tag is worth."""
        self._handle(SetRetention(*worth))

    def die(self, *, keep_kv: bool) -> None:
        """The process ends, with all that it runs. `keep_kv`: of a pool that is not this engine's alone."""
        self._handle(Abort(""))
        for tag in self.core.open_sessions:
            self._handle(CloseSession(tag))
        if not keep_kv:
            self._handle(Flush())
        if self.link is not None:
            self.link.lose(self._now_s)
        self.down = True

    def start_anew(self) -> None:
        """A new process, with nothing cached."""
        self.down = False

    def abort(self, rid: str) -> None:
        """The agent ends a request."""
        self._handle(Abort(rid))

    def _refuse(self, arrival: Arrive) -> None:
        now_s = self._agenda.now_s * self._speed
        if self.on_word is not None:
            told = Finished(arrival.rid, "abort", arrival.prompt_tokens, 0, 0, 0, now_s, now_s, now_s, now_s)
            self._agenda.after(self._delay_s, self.on_word, told)

    def _due(self, at_s: float) -> None:
        if at_s == self._wake_s:
            self._wake_s = NEVER_S
            self._now_s = max(self._now_s, at_s)
            self._handle(TICK)

    def _handle(self, event: Event) -> None:
        changes: list[ResidencyChange] = []
        booked_s, self._wake_s = self._wake_s, NEVER_S
        self._now_s = max(self._now_s, self._agenda.now_s * self._speed)
        for effect in self.core.handle(event, self._now_s):
            kind = type(effect)
            if kind is WakeAt:
                self._wake_s = at_s = effect.at_s  # type: ignore[union-attr]
                if at_s != booked_s:
                    self._agenda.at(at_s / self._speed, self._due, at_s)
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
