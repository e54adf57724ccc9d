"""What goes into the gateway's core beside messages from the bus, and what it asks of the shell beside the bus.

The core (`state.py`) follows steps; the shell (`service.py`, `http_*.py`) owns sockets and bodies.
"""

import msgspec

from saga.contract.ids import SessionId, StepId
from saga.contract.messages import FinishReason, Grant, PrefetchAsked, StepReady

# --- events, from the shell --------------------------------------------------------------------------------------


class Submitted(msgspec.Struct, frozen=True, gc=False):
    """A client's request was read and understood."""

    step: StepReady


class Sending(msgspec.Struct, frozen=True, gc=False):
    """The shell is about to write the request to the engine. Ask `GatewayState.holds` whether it still may."""

    step_id: StepId
    grant: Grant


class Progressed(msgspec.Struct, frozen=True, gc=False):
    """Tokens came back: the first, then every 2 s."""

    step_id: StepId
    output_tokens: int


class Completed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The engine's answer is complete."""

    step_id: StepId
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    finish_reason: FinishReason
    tools: tuple[str, ...] = ()
    control_s: float = 0.0  # last byte of the request read to first byte written to the engine
    first_token_s: float = 0.0
    engine_s: float = 0.0
    modelled_s: float = -1.0


class EngineDied(msgspec.Struct, frozen=True, gc=False):
    """Connection refused or broken, or an abort that nobody here asked for. The step wants another engine."""

    step_id: StepId
    output_tokens: int


class GaveUp(msgspec.Struct, frozen=True, gc=False):
    """The client went away, or the step failed for good (`failed`)."""

    step_id: StepId
    output_tokens: int = 0
    failed: bool = False


class Prefetched(msgspec.Struct, frozen=True, gc=False):
    """The request without output is over, or was never sent."""

    session: SessionId
    rid: str


GatewayEvent = Submitted | Sending | Progressed | Completed | EngineDied | GaveUp | Prefetched

# --- effects, to the shell ---------------------------------------------------------------------------------------


class Run(msgspec.Struct, frozen=True, gc=False):
    """The first grant of this attempt is here and taken: send the request to its engine."""

    step_id: StepId
    attempt: int
    grant: Grant


class Reject(msgspec.Struct, frozen=True, gc=False):
    """The step will not run: answer the client (429 or 503 with Retry-After; 404 for an unknown model)."""

    step_id: StepId
    reason: str
    detail: str
    retry_after_s: float


class SendChain(msgspec.Struct, frozen=True, gc=False):
    """Placement wants the whole page chain of this session: publish a StepChain."""

    step_id: StepId
    session: SessionId


class Prefetch(msgspec.Struct, frozen=True, gc=False):
    """Send the engine a request without output for the session's last prompt; answered with Prefetched."""

    ask: PrefetchAsked
    rid: str


class EndPrefetch(msgspec.Struct, frozen=True, gc=False):
    """The session is back: what is still waiting at the engine for it is to be aborted."""

    engine_url: str
    rid: str


GatewayEffect = Run | Reject | SendChain | Prefetch | EndPrefetch
