"""Simulated clients: they follow conversations end to start, through the gateway's core to the engines and back.

The shell of `GatewayState` that HTTP is in the live service: makes `StepReady`, sends the request once it is granted,
says what became of it. Which conversations there are, and when, is `arrivals`' business; figures are `ledger`'s.
"""

from collections.abc import Callable

import msgspec

from saga.contract.ids import NO_WORKER, PoolId, RootId, SessionId, StepId, TenantId, rid
from saga.contract.messages import FinishReason, Grant, StepChain, StepReady
from saga.contract.subjects import Subjects
from saga.engine.events import Arrive, Finished, FixedOutput, Progress, Rejected
from saga.engine.profile import Profile
from saga.gateway.events import Completed, EngineDied, GaveUp, Progressed, Reject, Run, SendChain, Sending, Submitted
from saga.kernel.effects import Publish
from saga.sim.conversation import HASH_BYTES, Conversation, Pages, SimAgent, SimStep, Workload
from saga.sim.ledger import Ledger
from saga.sim.prefetching import Prefetcher
from saga.sim.world import CELL, GATEWAY, World

ANSWER_LIMIT_TOKENS = 4_096  # what clients allow an answer; how long it will be is nobody's to know
NO_SESSION = SessionId("")
LEAST_RETRY_S = 1.0


class Talk:
    """A conversation that is going on."""

    __slots__ = ("agents_left", "conversation", "number", "root", "turn", "turn_since_s", "waiting")

    def __init__(self, number: int, conversation: Conversation, now_s: float) -> None:
        self.number = number
        self.conversation = conversation
        self.root = RootId(f"{conversation.tenant}/r{number}")
        self.agents_left = len(conversation.agents)
        self.turn = 0
        self.turn_since_s = now_s
        self.waiting: dict[int, list[Speaker]] = {}  # sub-agents, by the main step whose answer starts them


class Speaker:
    """One agent of it."""

    __slots__ = ("agent", "at", "ended_s", "is_main", "last_pages", "pages", "session", "talk")

    def __init__(self, talk: Talk, agent: SimAgent, pages: Pages, *, is_main: bool) -> None:
        self.talk = talk
        self.agent = agent
        self.is_main = is_main
        self.pages = pages
        self.session = SessionId(f"{talk.root}/{agent.name}")
        self.at = 0  # its next step
        self.last_pages = 0  # of its last prompt
        self.ended_s = -1.0


class Live:
    """A step on its way."""

    __slots__ = (
        "first_s",
        "hashes",
        "known_pages",
        "ready",
        "rid",
        "said_tokens",
        "sent_s",
        "since_s",
        "speaker",
        "step",
        "worker_id",
    )

    def __init__(self, speaker: Speaker, step: SimStep, hashes: bytes, known_pages: int, now_s: float) -> None:
        self.speaker = speaker
        self.step = step
        self.hashes = hashes
        self.known_pages = known_pages
        self.since_s = now_s
        self.sent_s = self.first_s = 0.0
        self.rid = ""  # of the attempt that was sent last
        self.said_tokens = 0  # of the answer, by engines that died under it
        self.worker_id = NO_WORKER
        self.ready: StepReady


class Clients:
    """All of them, at one gateway. `on_end(number)`: a conversation is over."""

    def __init__(
        self,
        world: World,
        workload: Workload,
        profile: Profile,
        ledger: Ledger,
        *,
        on_end: Callable[[int], None],
    ) -> None:
        self._world = world
        self._agenda = world.agenda
        self._workload = workload
        self._profile = profile
        self._ledger = ledger
        self._cost = profile.cost_model()
        self._on_end = on_end
        self._subjects = Subjects(CELL)
        self.on_step: Callable[[Live, Finished], None] | None = None  # an observer: a step is answered
        self._live: dict[StepId, Live] = {}
        self._given = 0
        self.prefetcher = Prefetcher(world)
        world.on_run, world.on_reject, world.on_chain = self._run, self._reject, self._chain
        for engine in world.engines.values():
            engine.on_word = self._hear

    # --- conversations -----------------------------------------------------------------------------------------

    def begin(self, number: int) -> None:
        """Someone starts conversation `number` now."""
        talk = Talk(number, self._workload.draw(number), self._agenda.now_s)
        for index, agent in enumerate(talk.conversation.agents):
            speaker = Speaker(talk, agent, self._workload.pages(number, index), is_main=index == 0)
            if index == 0:
                self._submit(speaker)
            elif agent.after_step is None:
                self._agenda.after(agent.start_s, self._submit, speaker)
            else:
                talk.waiting.setdefault(agent.after_step, []).append(speaker)

    def _answered(self, speaker: Speaker) -> None:
        """What follows a step."""
        talk = speaker.talk
        speaker.ended_s = now_s = self._agenda.now_s
        index = speaker.at
        speaker.at += 1
        if speaker.is_main:
            for child in talk.waiting.pop(index, ()):
                self._agenda.after(child.agent.start_s, self._submit, child)
        steps = speaker.agent.steps
        over = speaker.at == len(steps)
        if speaker.is_main and (over or steps[speaker.at].opens_turn):
            self._ledger.task(talk.number, talk.turn, talk.turn_since_s, now_s, talk.conversation.agent_class)
            talk.turn += 1
        if not over:
            self._agenda.after(steps[speaker.at].think_s, self._submit, speaker)
            return
        self.prefetcher.forget(speaker.session)
        talk.agents_left -= 1
        if speaker.is_main:
            talk.agents_left -= sum(map(len, talk.waiting.values()))  # their cause never came
            talk.waiting.clear()
        if talk.agents_left <= 0:
            self._on_end(talk.number)

    def _broken(self, live: Live) -> None:
        """A step failed for good, and its conversation with it."""
        talk = live.speaker.talk
        self._ledger.gap.ended(talk.conversation.tenant, 0.0)
        if talk.agents_left > 0:
            talk.agents_left = 0
            self._ledger.failed(talk.conversation.turns - talk.turn)
            self._on_end(talk.number)

    # --- steps -------------------------------------------------------------------------------------------------

    def _submit(self, speaker: Speaker) -> None:
        now_s = self._agenda.now_s
        talk = speaker.talk
        if talk.agents_left <= 0:
            return
        step = speaker.agent.steps[speaker.at]
        if step.opens_turn and speaker.is_main:
            talk.turn_since_s = now_s
        hashes, known_pages = speaker.pages.advance(speaker.at, step)
        live = Live(speaker, step, hashes, known_pages, now_s)
        base_pages = min(known_pages, speaker.last_pages)
        prompt_pages = step.prompt_tokens // self._profile.page_tokens
        base_pages = min(base_pages, prompt_pages)
        speaker.last_pages = prompt_pages
        step_id = self._next_id()
        live.ready = StepReady(
            step_id=step_id,
            attempt=0,
            gateway_id=GATEWAY,
            tenant=TenantId(talk.conversation.tenant),
            root=talk.root,
            session=speaker.session,
            parent=NO_SESSION if speaker.is_main else SessionId(f"{talk.root}/main"),
            pool=PoolId(self._profile.model),
            agent_class=talk.conversation.agent_class,
            prompt_tokens=step.prompt_tokens,
            max_output_tokens=self._answer_limit(step),
            page_tokens=self._profile.page_tokens,
            base_pages=base_pages,
            base_tip=hashes[(base_pages - 1) * HASH_BYTES : base_pages * HASH_BYTES] if base_pages else b"",
            new_hashes=hashes[base_pages * HASH_BYTES : prompt_pages * HASH_BYTES],
            final=False,  # an agent learns that from the answer: no system is told
            gap_s=now_s - speaker.ended_s if speaker.ended_s >= 0 else -1.0,
        )
        self._live[step_id] = live
        self.prefetcher.said(speaker.session, hashes, step.prompt_tokens)
        self._ledger.gap.submitted(talk.conversation.tenant)
        self._world.gateway.tell(Submitted(live.ready))

    def _answer_limit(self, step: SimStep) -> int:
        limit = max(ANSWER_LIMIT_TOKENS, step.output_tokens)
        return min(limit, self._profile.context_tokens - step.prompt_tokens)

    def _next_id(self) -> StepId:
        self._given += 1
        return StepId(f"{self._given:032x}")

    def _run(self, run: Run) -> None:
        self._agenda.after(self._world.delays.engine_s, self._send, run.grant)

    def _send(self, grant: Grant) -> None:
        live = self._live[grant.step_id]
        gateway = self._world.gateway
        gateway.tell(Sending(grant.step_id, grant))
        if not gateway.core.holds(grant.step_id, grant):
            return
        live.sent_s = self._agenda.now_s
        live.worker_id = grant.worker_id
        step = live.step
        live.rid = rid(grant.step_id, grant.attempt)
        said_tokens = live.said_tokens  # an answer goes on where the last engine stopped
        arrival = Arrive(
            live.rid,
            step.prompt_tokens + said_tokens,
            live.ready.max_output_tokens - said_tokens,
            FixedOutput(step.output_tokens - said_tokens, live.hashes, "tool_calls" if step.tool else "stop"),
            grant.priority,
            grant.session_tag,
        )
        self._world.engines[grant.worker_id].arrive(arrival)

    def _hear(self, word: Progress | Finished | Rejected) -> None:
        """An engine speaks of a request."""
        step_id = StepId(word.rid[:-3])
        live = self._live.get(step_id)
        if live is None or word.rid != live.rid:
            if type(word) is Finished:
                self.prefetcher.heard(word)
            return
        gateway = self._world.gateway
        if type(word) is Progress:
            if not live.said_tokens:
                live.first_s = self._agenda.now_s
            gateway.tell(Progressed(step_id, live.said_tokens + word.output_tokens))
        elif type(word) is Rejected:
            del self._live[step_id]
            gateway.tell(GaveUp(step_id, failed=True))
            self._broken(live)
        elif type(word) is Finished:
            if word.reason == "abort":
                live.rid = ""
                live.said_tokens = min(live.said_tokens + word.output_tokens, live.step.output_tokens - 1)
                gateway.tell(EngineDied(step_id, live.said_tokens))
                return
            self._finished(live, word)

    def _finished(self, live: Live, word: Finished) -> None:
        now_s = self._agenda.now_s
        step_id = live.ready.step_id
        del self._live[step_id]
        step = live.step
        cached_tokens = min(word.cached_tokens, step.prompt_tokens)
        reason: FinishReason = "tool_calls" if step.tool else "stop"
        done = Completed(
            step_id=step_id,
            prompt_tokens=step.prompt_tokens,
            output_tokens=step.output_tokens,
            cached_tokens=cached_tokens,
            finish_reason=reason,
            tools=(step.tool,) if step.tool else (),
            control_s=live.sent_s - live.since_s,
            first_token_s=max(0.0, live.first_s - live.sent_s),  # 0: said by an engine that died since
            engine_s=now_s - live.sent_s,
            modelled_s=self._cost.step_s(step.prompt_tokens, cached_tokens, step.output_tokens),
        )
        self._world.gateway.tell(done)
        page_tokens = self._profile.page_tokens
        known_tokens = min(live.known_pages, (step.prompt_tokens - 1) // page_tokens) * page_tokens
        cost_s = self._cost.step_s(word.prompt_tokens, word.cached_tokens, word.output_tokens)
        self._ledger.gap.ended(live.speaker.talk.conversation.tenant, cost_s)
        self._ledger.step(
            live.speaker.talk.number, live.first_s - live.since_s, step.prompt_tokens, cached_tokens, known_tokens
        )
        if self.on_step is not None:
            self.on_step(live, word)
        self._answered(live.speaker)

    def _reject(self, reject: Reject) -> None:
        """Refused: as a client that obeys Retry-After, unless it will never do."""
        live = self._live.pop(reject.step_id)
        if reject.reason in ("too_large", "unknown_model", "engine_failed"):
            self._broken(live)
            return
        self._ledger.refusals += 1
        self._agenda.after(max(LEAST_RETRY_S, reject.retry_after_s), self._again, live)

    def _again(self, live: Live) -> None:
        step_id = self._next_id()
        live.ready = msgspec.structs.replace(live.ready, step_id=step_id, attempt=0, waited_s=0.0)
        self._live[step_id] = live
        self._world.gateway.tell(Submitted(live.ready))

    def _chain(self, ask: SendChain) -> None:
        live = self._live.get(ask.step_id)
        if live is not None:
            pages = live.step.prompt_tokens // self._profile.page_tokens
            chain = StepChain(step_id=ask.step_id, session=ask.session, hashes=live.hashes[: pages * HASH_BYTES])
            self._world.publish(Publish(self._subjects.gateway_word(), chain))
