"""What the gateway says of a step: messages put together from what it knows. Called by `state.py` alone."""

from saga.contract.ids import NO_WORKER, GatewayId, LeaseId
from saga.contract.messages import (
    Grant,
    LeaseReturned,
    LeaseTaken,
    ReturnReason,
    StepCancelled,
    StepFinished,
    StepReady,
)
from saga.gateway.events import Completed


def taken(gateway_id: GatewayId, step: StepReady, grant: Grant) -> LeaseTaken:
    """This grant was the first."""
    return LeaseTaken(
        step_id=grant.step_id,
        attempt=grant.attempt,
        lease_id=grant.lease_id,
        worker_id=grant.worker_id,
        gateway_id=gateway_id,
        tenant=step.tenant,
        root=grant.root,
        session=grant.session,
        session_tag=grant.session_tag,
        lease_ttl_s=grant.lease_ttl_s,
        moved_from=grant.moved_from,
        prompt_tokens=step.prompt_tokens,
        pages_known=step.pages_known,
    )


def returned(gateway_id: GatewayId, grant: Grant, reason: ReturnReason, next_attempt: int) -> LeaseReturned:
    """This grant is not used, or no longer."""
    return LeaseReturned(
        step_id=grant.step_id,
        attempt=grant.attempt,
        lease_id=grant.lease_id,
        worker_id=grant.worker_id,
        gateway_id=gateway_id,
        reason=reason,
        next_attempt=next_attempt,
    )


def finished(gateway_id: GatewayId, step: StepReady, grant: Grant, done: Completed) -> StepFinished:
    """The answer is complete."""
    return StepFinished(
        step_id=step.step_id,
        attempt=step.attempt,
        lease_id=grant.lease_id,
        worker_id=grant.worker_id,
        gateway_id=gateway_id,
        tenant=step.tenant,
        root=step.root,
        session=step.session,
        parent=step.parent,
        pool=step.pool,
        agent_class=step.agent_class,
        prompt_tokens=done.prompt_tokens,
        output_tokens=done.output_tokens,
        cached_tokens=done.cached_tokens,
        finish_reason=done.finish_reason,
        tools=done.tools,
        final=step.final,
        gap_s=step.gap_s,
        waited_s=done.control_s,
        first_token_s=done.first_token_s,
        engine_s=done.engine_s,
        attempts=step.attempt + 1,
        at=step.at,
        node=step.node,
        modelled_s=done.modelled_s,
    )


def cancelled(
    gateway_id: GatewayId, step: StepReady, grant: Grant | None, output_tokens: int, *, failed: bool
) -> StepCancelled:
    """The step ends without an answer."""
    return StepCancelled(
        step_id=step.step_id,
        attempt=step.attempt,
        lease_id=grant.lease_id if grant else LeaseId(""),
        worker_id=grant.worker_id if grant else NO_WORKER,
        gateway_id=gateway_id,
        tenant=step.tenant,
        root=step.root,
        session=step.session,
        output_tokens=output_tokens,
        failed=failed,
        at=step.at,
    )
