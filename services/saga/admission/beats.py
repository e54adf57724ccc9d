"""What gateways say once a second of their steps: what is alive, and what admission does not know. For `state.py`."""

from saga.admission.stepbook import StepBook
from saga.contract.ids import StepId
from saga.contract.messages import GatewayBeat, ResendSteps
from saga.contract.subjects import Subjects
from saga.kernel.effects import Effect, Publish

UNNAMED_S = 5.0  # a step that no beat names for so long is aborted
ASK_AGAIN_S = 0.5  # of a waiting step that a beat names and nobody sent: it may still be on its way


def heard(beat: GatewayBeat, book: StepBook, subjects: Subjects, now_s: float) -> list[Effect]:
    """Note who is named; admit again what waits at a later attempt; ask for what is not known."""
    unknown: list[StepId] = []
    again: list[StepId] = []
    for waiting in beat.waiting:
        step = book.steps.get(waiting.step_id)
        if step is None:
            if waiting.waited_s > ASK_AGAIN_S and not book.has_ended(waiting.step_id):
                unknown.append(waiting.step_id)
            continue
        step.named_s = now_s
        if waiting.attempt > step.step.attempt:  # its LeaseReturned was lost
            book.back_to_admitted(waiting.step_id, waiting.attempt)
            again.append(waiting.step_id)
    for running in beat.running:
        step = book.steps.get(running.step_id)
        if step is not None:
            step.named_s = now_s
            step.output_tokens = max(step.output_tokens, running.output_tokens)
        elif not book.has_ended(running.step_id):
            unknown.append(running.step_id)
    effects = book.admit_again(tuple(again))
    if unknown:
        ask = ResendSteps(service="admission", fence=book.fence, step_ids=tuple(unknown))
        effects.append(Publish(subjects.gateway(beat.gateway_id), ask))
    return effects
