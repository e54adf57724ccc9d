"""Watches one run for the report: samples of KV, batches and service over time, and the story of one conversation.

It asks cores questions and hears messages, and changes nothing: a run's figures are the same with and without it.
Made by `runner` when a run's detail is wanted; what it saw is `detail`.
"""

from typing import Final

from saga.contract.ids import StepId
from saga.contract.messages import StepAdmitted
from saga.engine.events import Finished
from saga.engine.profile import Profile
from saga.sim.agenda import Agenda
from saga.sim.clients import Clients, Live
from saga.sim.conversation import Workload
from saga.sim.detail import Doing, Sample, Span
from saga.sim.world import World

FIRST_PERIOD_S: Final = 5.0
MOST_SAMPLES: Final = 400  # then every second one goes and the period doubles: runs are of any length
CANDIDATES: Final = 40  # conversations looked at for the one to show
READABLE_STEPS: Final = 30  # of the one to show


class Observer:
    """Eyes on one run. Read `samples`, `spans` and `shown` at its end."""

    def __init__(
        self, agenda: Agenda, world: World, clients: Clients, profile: Profile, workload: Workload, measured: range
    ) -> None:
        self.samples: list[Sample] = []
        self.spans: list[Span] = []
        self.tenants = tuple(workload.weights)
        self.shown = _to_show(workload, measured)
        self._agenda = agenda
        self._world = world
        self._cost = profile.cost_model()
        self._page_tokens = profile.page_tokens
        self._service_s = dict.fromkeys(self.tenants, 0.0)
        self._admitted_s: dict[StepId, float] = {}
        self._period_s = FIRST_PERIOD_S
        world.ears[StepAdmitted] = self._admitted
        clients.on_step = self._answered
        agenda.after(0.0, self._sample, None)

    # --- samples -----------------------------------------------------------------------------------------------

    def _sample(self, _: None) -> None:
        cores = [host.core for host in self._world.engines.values()]
        roster = self._world.admission.core.roster
        queues = self._world.placement.core.board.at_home
        active = sum(len(pool.active) for pool in roster.pools.values())
        held = tuple(core.pool.used_tokens for core in cores)
        sample = Sample(
            at_s=self._agenda.now_s,
            held_tokens=held,
            cached_tokens=tuple(
                max(0, (core.pool.tree.pages + core.pool.private_pages) * self._page_tokens - used)
                for core, used in zip(cores, held, strict=True)
            ),
            running=tuple(core.running for core in cores),
            waiting=tuple(core.waiting for core in cores),
            active=active,
            queued=sum(1 for w in roster.workflows.values() if w.steps and not w.active),
            service_s=tuple(self._service_s[tenant] for tenant in self.tenants),
            at_home=tuple(len(queues.get(worker_id, ())) for worker_id in self._world.engines),
        )
        self.samples.append(sample)
        if len(self.samples) > MOST_SAMPLES:
            self.samples = self.samples[::2]
            self._period_s *= 2
        self._agenda.after(self._period_s, self._sample, None)

    # --- one conversation --------------------------------------------------------------------------------------

    def _admitted(self, admitted: StepAdmitted) -> None:
        if admitted.step.root.endswith(f"/r{self.shown}"):
            self._admitted_s.setdefault(admitted.step.step_id, self._agenda.now_s)

    def _answered(self, live: Live, word: Finished) -> None:
        talk = live.speaker.talk
        tenant = talk.conversation.tenant
        if tenant in self._service_s:
            self._service_s[tenant] += self._cost.step_s(word.prompt_tokens, word.cached_tokens, word.output_tokens)
        admitted_s = self._admitted_s.pop(live.ready.step_id, live.since_s)
        if talk.number == self.shown:
            self._tell(live, word, admitted_s)

    def _tell(self, live: Live, word: Finished, admitted_s: float) -> None:
        speaker = live.speaker
        session = speaker.agent.name
        now_s = self._agenda.now_s
        if speaker.ended_s >= 0.0:
            human = live.step.opens_turn and speaker.is_main
            called = speaker.agent.steps[speaker.at - 1].tool
            self._add(session, "human" if human else "tool", speaker.ended_s, live.since_s, speaker.at, note=called)
        share = word.cached_tokens / word.prompt_tokens
        self._add(session, "queued", live.since_s, admitted_s, speaker.at)
        self._add(session, "waiting", admitted_s, word.started_s, speaker.at)
        self._add(session, "prefill", word.started_s, live.first_s, speaker.at, worker=live.worker_id, share=share)
        self._add(session, "decode", live.first_s, now_s, speaker.at, worker=live.worker_id)

    def _add(
        self,
        session: str,
        doing: Doing,
        start_s: float,
        end_s: float,
        step: int,
        *,
        worker: str = "",
        share: float = 0.0,
        note: str = "",
    ) -> None:
        if end_s > start_s:
            self.spans.append(Span(session, doing, start_s, end_s, worker, step, share, note))


def _to_show(workload: Workload, measured: range) -> int:
    """Of the first measured conversations the one whose length reads best; sub-agents, if any, make it richer."""

    def unreadable(number: int) -> tuple[bool, int]:
        agents = workload.draw(number).agents
        return len(agents) == 1, abs(sum(len(agent.steps) for agent in agents) - READABLE_STEPS)

    return min(measured[:CANDIDATES], key=unreadable)
