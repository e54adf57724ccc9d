"""Why tokens of a prompt were not cached: the rule that receipts of gateways and `saga why` share. Pure.

A cause is said only when somebody knows it: who sent the prompt what the session sent before, placement where its KV
was at the Grant, the worker agent why it let go of it. Else it is `unknown`.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from saga.contract.ids import WorkerId
from saga.contract.step_messages import Grant
from saga.contract.vocabulary import LetGoReason
from saga.contract.worker_messages import KvTold

MissCause = Literal["cold", "prefix_changed", "evicted", "moved", "superseded", "expired", "engine_died", "unknown"]
_CAUSES: Final[Mapping[LetGoReason, MissCause]] = {
    "": "evicted",
    "paused": "evicted",  # for the KV of workflows that are active
    "unbound": "evicted",
    "crowded": "evicted",
    "dormant": "expired",
    "expired": "expired",
    "closed": "expired",
    "moved": "moved",
    "superseded": "superseded",
    "engine_died": "engine_died",
}


class Sent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of a prompt by what its session has sent before."""

    prompt_tokens: int  # as counted by its gateway
    page_tokens: int
    last_tokens: int  # of the session's last prompt, full pages; negative: none is known here
    shared_tokens: int  # of those: this prompt begins with them too
    begins: bool  # nothing in it says that anything went before
    tagged: bool  # the engine reads session tags with this API
    gap_s: float  # since the session's last step ended here; negative: unknown
    ran_at: WorkerId  # that step; empty: unknown


class Used(msgspec.Struct, frozen=True, gc=False):
    """What the engine counted. None: it does not say."""

    prompt_tokens: int | None
    cached_tokens: int | None


class Loss(msgspec.Struct, frozen=True, gc=False):
    """Tokens that the session had sent and the engine had not cached: whose word tells why."""

    worker_id: WorkerId  # empty: nobody's
    tokens: int
    gone: bool = True  # they are not at that worker; false: nobody knows


def shortfall(sent: Sent, first: Grant, last: Grant, used: Used) -> tuple[dict[MissCause, int], Loss | None]:
    """(tokens missed by cause as far as it is known here, what a worker has to explain).

    `first`: the step's first grant; `last`: the one it ran under to its end.
    """
    if used.cached_tokens is None or used.prompt_tokens is None:
        return {"unknown": max(0, sent.shared_tokens)} if sent.shared_tokens > 0 else {}, None
    most = max(0, used.prompt_tokens - 1) // sent.page_tokens * sent.page_tokens  # that can be cached at all
    cached = used.cached_tokens
    if most - cached < sent.page_tokens:
        return {}, None
    if sent.last_tokens < 0:
        return {"cold" if sent.begins and first.new_session else "unknown": most - cached}, None
    if used.prompt_tokens != sent.prompt_tokens:  # the engine renders prompts otherwise: nothing can be compared
        return {"unknown": most - cached}, None
    shared = min(sent.shared_tokens, most)
    lost = max(0, shared - cached)
    there = max(shared, cached)
    superseded = max(0, min(first.superseded_tokens, most) - there)
    there += superseded
    changed = max(0, min(sent.last_tokens - sent.shared_tokens, most - there))
    moved, loss = _moved(lost, shared, cached, sent, first, last)
    found: dict[MissCause, int] = {"prefix_changed": changed, "superseded": superseded, "moved": moved}
    return {cause: tokens for cause, tokens in found.items() if tokens >= sent.page_tokens}, loss


def _moved(lost: int, shared: int, cached: int, sent: Sent, first: Grant, last: Grant) -> tuple[int, Loss | None]:
    """(tokens that are missed because the step did not run where they were, what is left to explain)."""
    ran_at = first.ran_at or sent.ran_at
    if not lost:
        return 0, None
    if last.worker_id != first.worker_id:  # its engine died under the step
        moved, gone = max(0, min(first.cached_tokens, shared) - cached), ran_at == first.worker_id
    elif ran_at in ("", last.worker_id):
        moved, gone = 0, True
    elif first.left_tokens >= 0:
        moved, gone = max(0, min(first.left_tokens, shared) - cached), True
    else:
        moved, gone = lost if first.left_gone else 0, False
    left = lost - moved
    return moved, Loss(ran_at, left, gone) if left else None


def explained(loss: Loss, told: KvTold | None, sent: Sent, since_s: float) -> MissCause:
    """Why tokens are not there any more. `told`: by their worker; None: it did not answer. `since_s`: the request was
    read so long ago."""
    if told is None or loss.worker_id != told.worker_id:
        return "unknown"
    if told.let_go and (sent.tagged or told.let_go == "engine_died"):
        return _CAUSES[told.let_go]
    if not loss.gone or sent.gap_s < 0 or told.known_s < sent.gap_s + since_s:
        return "unknown"  # it may be there, or the session's last step ended before the agent's memory begins
    return "evicted"


def added(missed: dict[MissCause, int], cause: MissCause, tokens: int) -> dict[MissCause, int]:
    """With these tokens too."""
    return {**missed, cause: missed.get(cause, 0) + tokens}
