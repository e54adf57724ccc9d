"""Which workflow and session a request belongs to, from our headers or the body's own fields. Pure."""

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from saga.contract.ids import MAX_ID_CHARS, RootId, SessionId, TenantId, scoped
from saga.gateway.api_errors import invalid_value

WORKFLOW: Final = "X-Saga-Workflow"
SESSION: Final = "X-Saga-Session"
PARENT: Final = "X-Saga-Parent"
FINAL: Final = "X-Saga-Final"
DEADLINE: Final = "X-Saga-Deadline-S"
NODE: Final = "X-Saga-Node"
_TRUE: Final = ("1", "true", "yes")
_FALSE: Final = ("", "0", "false", "no")


class Identity(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whose step this is."""

    root: RootId
    session: SessionId
    parent: SessionId
    final: bool
    deadline_s: float
    lasting: bool  # the client named the session: another step may follow
    node: str = ""  # of the workflow's declared graph


def identify(
    headers: Mapping[str, str], *, tenant: TenantId, session_id: str, prompt_cache_key: str, fresh: str
) -> Identity:
    """Headers win over the body's `session_id`, that over `prompt_cache_key`; with none, a workflow of one step.

    A workflow without a session is its own session and the other way round; a sub-agent that names only its parent
    belongs to the workflow called like its parent. `fresh` names what nobody named. Raises ApiError 400.
    """
    workflow = _id(headers, WORKFLOW)
    session = _id(headers, SESSION)
    parent = _id(headers, PARENT)
    if not session:
        if session_id:
            session = _checked("session_id", session_id)
        elif prompt_cache_key:
            session = _checked("prompt_cache_key", prompt_cache_key)
    lasting = bool(workflow or session or parent)
    workflow = workflow or parent or session or fresh
    session = session or (f"{workflow}/{fresh}" if parent else workflow)
    return Identity(
        root=RootId(scoped(tenant, workflow)),
        session=SessionId(scoped(tenant, session)),
        parent=SessionId(scoped(tenant, parent) if parent else ""),
        final=_final(headers) or not lasting,
        deadline_s=_deadline_s(headers),
        lasting=lasting,
        node=_id(headers, NODE),
    )


def _id(headers: Mapping[str, str], name: str) -> str:
    return _checked(name, headers.get(name, "").strip())


def _checked(name: str, value: str) -> str:
    if len(value) > MAX_ID_CHARS:
        raise invalid_value(name, f"'{name}' has {len(value)} characters: send at most {MAX_ID_CHARS}.")
    if not value.isprintable():
        raise invalid_value(name, f"'{name}' holds control characters: send printable ones.")
    return value


def _final(headers: Mapping[str, str]) -> bool:
    value = headers.get(FINAL, "").strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise invalid_value(FINAL, f"'{FINAL}' is {value[:20]!r}: send true or false.")


def _deadline_s(headers: Mapping[str, str]) -> float:
    text = headers.get(DEADLINE, "").strip()
    if not text:
        return 0.0
    wrong = invalid_value(DEADLINE, f"'{DEADLINE}' is {text[:20]!r}: send a positive number of seconds.")
    try:
        deadline_s = float(text)
    except ValueError:
        raise wrong from None
    if not math.isfinite(deadline_s) or deadline_s <= 0:
        raise wrong
    return deadline_s


class RunningKeys:
    """Idempotency keys of requests that live here: a second request with one is refused until the first has ended.

    Bounded by the requests in flight.
    """

    def __init__(self) -> None:
        self._live: set[tuple[TenantId, str]] = set()

    def claim(self, tenant: TenantId, key: str) -> bool:
        """Whether the key was free; it is taken then. Raises ApiError 400 for a key that is too long."""
        claim = (tenant, _checked("Idempotency-Key", key))
        if claim in self._live:
            return False
        self._live.add(claim)
        return True

    def release(self, tenant: TenantId, key: str) -> None:
        """The request has ended, however it did."""
        self._live.discard((tenant, key))
