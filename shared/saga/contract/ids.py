"""Names of things, as types: a session id is no step id even though both are strings.

Ids that come from clients (`RootId`, `SessionId`) are already namespaced by tenant and bounded in length when they
get here: the gateway sees to it (`scoped`).
"""

import hashlib
from typing import NewType

TenantId = NewType("TenantId", str)
RootId = NewType("RootId", str)  # one agent task with all its sub-agents
SessionId = NewType("SessionId", str)  # one growing conversation inside a root workflow
StepId = NewType("StepId", str)  # one LLM call: 32 hex digits
LeaseId = NewType("LeaseId", str)  # reservation to run one step on one worker: 20 hex digits
WorkerId = NewType("WorkerId", str)
GatewayId = NewType("GatewayId", str)
PoolId = NewType("PoolId", str)  # the workers of one model: the model's name
SessionTag = NewType("SessionTag", str)  # SGLang's session_id, a soft pin on a session's KV

NO_WORKER = WorkerId("")
STEP_ID_CHARS = 32
MAX_ID_CHARS = 128  # of an id that a client may choose


def rid(step_id: StepId, attempt: int) -> str:
    """Request id at the engine. Its length is fixed because SGLang's abort matches by prefix."""
    return f"{step_id}-{attempt:02d}"


def scoped(tenant: TenantId, client_id: str) -> str:
    """A client's id made unique among tenants; what is too long is replaced by its digest, so no two ids collide."""
    name = f"{tenant}/{client_id}"
    if len(name) <= MAX_ID_CHARS:
        return name
    return f"{tenant[:32]}/sha256:{hashlib.sha256(name.encode()).hexdigest()}"


def session_tag(session: SessionId, began: StepId = StepId("")) -> SessionTag:
    """The tag of a session's KV; a fresh one after supersession, so that the dead part can be closed alone.

    It is called by the step that it `began` with: whoever leads, no two are called alike, and one step begins one tag.
    """
    return SessionTag(f"saga-{hashlib.sha256(session.encode()).hexdigest()[:24]}-{began[-12:] or 0}")
