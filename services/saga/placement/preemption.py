"""Whether a step that waits for a slot takes that of one that runs: the choice behind a Protocol. For `dispatch.py`.

What waits is reordered at no cost, by tags and by the active set. What runs can be interrupted through the engine's own
priorities alone: SGLang takes back the running request of the lowest priority with the fewest tokens generated when one
waits whose priority is higher by more than 10. It starts again from what is still cached, so somebody always pays.
Needs engines with `--enable-priority-scheduling`; others let the step wait in their queue.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from saga.contract.ids import LeaseId
from saga.contract.messages import Tag
from saga.kernel.effects import Decision
from saga.placement.board import Board
from saga.placement.records import Lease, Step, Worker

PREEMPTS: Final = 20  # priority of a step that takes a slot; all others have 0. Above SGLang's threshold of 10
FIRST: Final = Tag(float("-inf"), 0.0)  # of one that nobody knows the tag of: it is not interrupted


class Running(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A step that runs on the worker. Seconds are modelled engine-seconds."""

    lease_id: LeaseId
    tag: Tag
    priority: int
    output_tokens: int  # generated, as last heard
    left_s: float  # of its work
    redo_s: float  # to prefill again what it has, if none of it stays cached


class Newcomer(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The step that waits for a slot."""

    tag: Tag
    engine_s: float  # all of its work


class Stakes(msgspec.Struct, frozen=True, gc=False):
    """What a preemption is expected to bring and to cost, in engine-seconds that all who run there share."""

    victim: LeaseId
    gain_s: float  # the wait that the newcomer is spared
    loss_s: float  # by which the victim ends later


class PreemptionPolicy(Protocol):
    """Chooses a victim."""

    def victim(self, newcomer: Newcomer, running: Sequence[Running]) -> Decision[Stakes | None]:
        """Whose slot it takes; None: it waits. At least one runs."""
        ...


class WhenItPays:
    """If the engine's victim comes later in the order of tags, and the newcomer is through, redoing included, before
    any of those that run would have made room: then all of them together wait for less."""

    def victim(self, newcomer: Newcomer, running: Sequence[Running]) -> Decision[Stakes | None]:
        """As PreemptionPolicy."""
        victim = min(running, key=lambda r: (r.priority, r.output_tokens, r.lease_id))
        if any(r.priority for r in running):
            return Decision(None, "another_preempts")
        if victim.tag <= newcomer.tag:
            return Decision(None, "its_turn")
        gain_s = min(r.left_s for r in running)
        loss_s = newcomer.engine_s + victim.redo_s
        stakes = Stakes(victim.lease_id, gain_s, loss_s)
        return Decision(stakes, "pays") if loss_s < gain_s else Decision(None, "would_lose")


class Preempting:
    """Asks the policy about a worker without a free slot, and counts. `policy`: None: nobody is preempted."""

    def __init__(self, board: Board, policy: PreemptionPolicy | None) -> None:
        self._board = board
        self._policy = policy
        self.made = 0
        self.gain_s = self.loss_s = 0.0  # expected of those, engine-seconds

    def stakes(self, worker: Worker, step: Step) -> Stakes | None:
        """Of the step taking a slot there; None: it waits."""
        if self._policy is None or not worker.leases:
            return None
        running = [self._running(worker, lease) for lease in worker.leases.values() if lease.taken]
        if len(running) < len(worker.leases):
            return None  # the engine has not got them all yet: nobody knows whom it would take back
        newcomer = Newcomer(tag=step.admitted.tag, engine_s=self._work_s(worker, step))
        found = self._policy.victim(newcomer, running).choice
        if found is not None:
            self.made += 1
            self.gain_s += found.gain_s
            self.loss_s += found.loss_s
        return found

    def _work_s(self, worker: Worker, step: Step) -> float:
        """All that the step is expected to take, from its home's cache."""
        ready = step.admitted.step
        session = self._board.sessions.get(ready.session)
        cached_tokens = min(session.context_tokens, ready.prompt_tokens) if session is not None else 0
        return worker.hello.cost.step_s(ready.prompt_tokens, cached_tokens, step.tokens - ready.prompt_tokens)

    def _running(self, worker: Worker, lease: Lease) -> Running:
        step = self._board.steps.get(lease.step_id)
        cost = worker.hello.cost
        output_tokens = lease.output_tokens
        prompt_tokens = step.admitted.step.prompt_tokens if step is not None else lease.tokens
        claimed_tokens = max(0, lease.tokens - prompt_tokens)
        left_tokens = max(0, claimed_tokens - output_tokens)
        left_s = cost.step_s(prompt_tokens, prompt_tokens, left_tokens) if output_tokens else lease.engine_s
        return Running(
            lease_id=lease.lease_id,
            tag=step.admitted.tag if step is not None else FIRST,
            priority=lease.priority,
            output_tokens=output_tokens,
            left_s=left_s,
            redo_s=cost.step_s(prompt_tokens + output_tokens, 0, 0),
        )
