"""Every subject, as a function. A subject literal anywhere else is a bug.

All lie under `saga.<cell>.`. What many follow is broadcast (a leader and its standbys hear the same); what concerns
one gateway or one worker carries its id, so that a thousand workers do not each hear every step.
"""

import re
from dataclasses import dataclass
from typing import Final

from saga.contract.ids import GatewayId, WorkerId

CELL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")  # it is one token of a subject, and part of a bucket's name


@dataclass(frozen=True, slots=True)
class Subjects:
    """The subjects of one cell."""

    cell: str = "main"

    def _at(self, rest: str) -> str:
        return f"saga.{self.cell}.{rest}"

    def step_ready(self) -> str:
        """StepReady, a request: admission's leader answers."""
        return self._at("admission.ready")

    def step_admitted(self) -> str:
        """StepAdmitted, admission to placement."""
        return self._at("placement.admitted")

    def gateway(self, gateway_id: GatewayId) -> str:
        """Grant, NeedChain, StepRefused: to one gateway. Admission and standbys follow all of them."""
        return self._at(f"gateway.{gateway_id}")

    def every_gateway(self) -> str:
        """What any gateway is told."""
        return self._at("gateway.*")

    def lease(self, worker_id: WorkerId) -> str:
        """LeaseTaken, LeaseReturned, LeaseReleased, StepStarted, StepProgress on one worker."""
        return self._at(f"lease.{worker_id}")

    def every_lease(self) -> str:
        """The same for all workers."""
        return self._at("lease.*")

    def leases_renewed(self, worker_id: WorkerId) -> str:
        """LeasesRenewed, to one worker alone: there are gateways times workers of them a second."""
        return self._at(f"renewed.{worker_id}")

    def step_finished(self, worker_id: WorkerId) -> str:
        """StepFinished, durable."""
        return self._at(f"step.finished.{worker_id}")

    def step_cancelled(self, worker_id: WorkerId) -> str:
        """StepCancelled, durable; `-` stands for no worker."""
        return self._at(f"step.cancelled.{worker_id or '-'}")

    def every_step_end(self) -> str:
        """StepFinished and StepCancelled of all workers: the durable stream."""
        return self._at("step.>")

    def step_ends_at(self, worker_id: WorkerId) -> str:
        """StepFinished and StepCancelled of one worker."""
        return self._at(f"step.*.{worker_id}")

    def gateway_word(self) -> str:
        """GatewayBeat, StepChain, StepClaim: gateways to leaders and standbys."""
        return self._at("leaders.word")

    def placement_word(self) -> str:
        """ResendSteps, placement to admission."""
        return self._at("admission.placement")

    def tenants_ask(self) -> str:
        """TenantsAsk, a request: admission's leader answers."""
        return self._at("admission.tenants")

    def admission_ask(self) -> str:
        """WhyAsk, a request: admission's leader answers."""
        return self._at("admission.ask")

    def placement_ask(self) -> str:
        """WhyAsk, WorkersAsk, requests: placement's leader answers."""
        return self._at("placement.ask")

    def worker_standing(self) -> str:
        """WorkerStands: placement's leader to its standbys and to admission."""
        return self._at("worker.standing")

    def leader_hello(self) -> str:
        """LeaderHello, to gateways."""
        return self._at("leaders.hello")

    def sessions_released(self, worker_id: WorkerId) -> str:
        """SessionsReleased, to one worker."""
        return self._at(f"worker.release.{worker_id}")

    def every_sessions_released(self) -> str:
        """The same for all workers."""
        return self._at("worker.release.*")

    def worker_ask(self, worker_id: WorkerId) -> str:
        """KvAsk, a request to one worker."""
        return self._at(f"worker.ask.{worker_id}")

    def forecast(self, worker_id: WorkerId) -> str:
        """Forecast for a session at home on this worker."""
        return self._at(f"forecast.{worker_id}")

    def every_forecast(self) -> str:
        """All forecasts."""
        return self._at("forecast.*")

    def conversations(self) -> str:
        """ConversationAsk, a request: to all gateways."""
        return self._at("gateways.conversations")

    def workflow_declared(self) -> str:
        """WorkflowDeclared, a request: the graph process that speaks for the workflow answers, gateways listen too."""
        return self._at("graph.declared")

    def workflow_ended(self) -> str:
        """WorkflowEnded, to admission and to every graph process."""
        return self._at("workflow.ended")

    def graph_ask(self) -> str:
        """GraphAsk, GraphReset: to every graph process."""
        return self._at("graph.ask")

    def graph_answer(self, asker: str) -> str:
        """GraphAnswer, to one asker."""
        return self._at(f"graph.answer.{asker}")

    def worker_presence(self) -> str:
        """WorkerHello, Heartbeat, WorkerLeaving of all workers."""
        return self._at("worker.presence")

    def residency(self, worker_id: WorkerId) -> str:
        """ResidencyDelta of one worker."""
        return self._at(f"residency.delta.{worker_id}")

    def every_residency(self) -> str:
        """ResidencyDelta of all workers."""
        return self._at("residency.delta.*")

    def resync(self, worker_id: WorkerId) -> str:
        """ResyncRequest to one worker."""
        return self._at(f"residency.resync.{worker_id}")

    def resync_inbox(self, holder: str) -> str:
        """ResyncReply to one asker."""
        return self._at(f"residency.snapshot.{holder}")


def stream_name(cell: str) -> str:
    """The JetStream stream that keeps step ends."""
    return f"STEPS-{cell}"


def kv_bucket(cell: str, what: str) -> str:
    """A JetStream KV bucket of this cell."""
    return f"saga-{cell}-{what}"
