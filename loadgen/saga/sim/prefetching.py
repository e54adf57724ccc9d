"""How a simulated gateway's shell loads KV ahead: it keeps each session's last prompt and sends it without output.

The engine takes such a request like any other, so its time and its share of the link are charged. Kept by `clients`.
"""

from saga.contract.ids import SessionId, WorkerId
from saga.engine.events import Arrive, Finished, FixedOutput
from saga.gateway.events import EndPrefetch, Prefetch, Prefetched
from saga.sim.world import World

PRIORITY = -1  # as live


class Prefetcher:
    """One gateway's."""

    __slots__ = ("_prompts", "_under_way", "_world", "asked")

    def __init__(self, world: World) -> None:
        self._world = world
        self._prompts: dict[SessionId, tuple[bytes, int]] = {}
        self._under_way: dict[str, tuple[SessionId, WorkerId]] = {}  # by rid
        self.asked = 0
        world.on_prefetch = self._perform

    def said(self, session: SessionId, hashes: bytes, prompt_tokens: int) -> None:
        """The session's newest prompt."""
        self._prompts[session] = (hashes, prompt_tokens)

    def forget(self, session: SessionId) -> None:
        """It is over."""
        self._prompts.pop(session, None)

    def heard(self, word: Finished) -> None:
        """An engine is done with a request that is no step's."""
        sent = self._under_way.pop(word.rid, None)
        if sent is not None:
            self._world.gateway.tell(Prefetched(sent[0], word.rid))

    def _perform(self, effect: Prefetch | EndPrefetch) -> None:
        agenda, delay_s = self._world.agenda, self._world.delays.engine_s
        if isinstance(effect, EndPrefetch):
            sent = self._under_way.get(effect.rid)
            if sent is not None:
                agenda.after(delay_s, self._world.engines[sent[1]].abort, effect.rid)
            return
        ask = effect.ask
        prompt = self._prompts.get(ask.session)
        if prompt is None or prompt[1] != ask.prompt_tokens:
            self._world.gateway.tell(Prefetched(ask.session, effect.rid))
            return
        self.asked += 1
        self._under_way[effect.rid] = ask.session, ask.worker_id
        arrival = Arrive(effect.rid, ask.prompt_tokens, 0, FixedOutput(0, prompt[0]), PRIORITY)
        agenda.after(delay_s, self._world.engines[ask.worker_id].arrive, arrival)
