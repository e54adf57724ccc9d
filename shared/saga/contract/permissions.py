"""What each service may say and hear on the bus, as subjects. NATS enforces it where it is configured to.

One user for each role: a process that was taken over can do what its service does, and no more. Pure: `saga nats-users`
writes it as a server's configuration. What NATS cannot see is who a message on an allowed subject comes from: workers
may write to gateways, because they ask them for prefetches, so that a worker's password is also one to forge Grants
with.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from saga.contract.drains import DRAINS_BUCKET
from saga.contract.ids import GatewayId, WorkerId
from saga.contract.subjects import Subjects, kv_bucket, stream_name
from saga.contract.tenants import KEYS_BUCKET, TERMS_BUCKET

_GATEWAY, _WORKER, _ANY = GatewayId("*"), WorkerId("*"), "*"
_LEADERS, _TABLE, _MODELS, _MEMBERS = "leaders", "workflows", "graph", "graph-members"


class Allowed(msgspec.Struct, frozen=True):
    """Subjects that one role may publish to and subscribe to, NATS wildcards included."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]


class _Role(msgspec.Struct, frozen=True):
    """`writes`, `reads`: buckets of JetStream KV. `replays`: the stream of step ends."""

    publish: Callable[[Subjects], tuple[str, ...]]
    subscribe: Callable[[Subjects], tuple[str, ...]]
    writes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    replays: bool = False


_ROLES: Final[Mapping[str, _Role]] = {
    "gateway": _Role(
        lambda s: (
            s.step_ready(),
            s.gateway_word(),
            s.lease(_WORKER),
            s.leases_renewed(_WORKER),
            s.every_step_end(),
            s.worker_ask(_WORKER),
            s.workflow_declared(),
            s.workflow_ended(),
            s.graph_ask(),
            s.conversations(),
        ),
        lambda s: (
            s.gateway(_GATEWAY),
            s.conversations(),
            s.leader_hello(),
            s.worker_presence(),
            s.workflow_declared(),
            s.graph_answer(_ANY),
        ),
        reads=(_LEADERS, KEYS_BUCKET),
    ),
    "admission": _Role(
        lambda s: (s.step_admitted(), s.gateway(_GATEWAY), s.sessions_released(_WORKER), s.leader_hello()),
        lambda s: (
            s.step_ready(),
            s.every_gateway(),
            s.every_lease(),
            s.every_step_end(),
            s.every_forecast(),
            s.gateway_word(),
            s.placement_word(),
            s.tenants_ask(),
            s.admission_ask(),
            s.workflow_ended(),
            s.worker_presence(),
            s.worker_standing(),
            s.leader_hello(),
        ),
        writes=(_LEADERS, _TABLE),
        reads=(TERMS_BUCKET,),
    ),
    "placement": _Role(
        lambda s: (
            s.gateway(_GATEWAY),
            s.sessions_released(_WORKER),
            s.placement_word(),
            s.resync(_WORKER),
            s.worker_standing(),
            s.leader_hello(),
        ),
        lambda s: (
            s.step_admitted(),
            s.placement_ask(),
            s.worker_standing(),
            s.every_lease(),
            s.every_step_end(),
            s.gateway_word(),
            s.every_sessions_released(),
            s.worker_presence(),
            s.every_residency(),
            s.resync_inbox(_ANY),
            s.leader_hello(),
        ),
        writes=(_LEADERS,),
    ),
    "graph": _Role(
        lambda s: (s.forecast(_WORKER), s.graph_answer(_ANY)),
        lambda s: (s.every_step_end(), s.step_ready(), s.workflow_declared(), s.workflow_ended(), s.graph_ask()),
        writes=(_MODELS, _MEMBERS),
        replays=True,
    ),
    "worker": _Role(
        lambda s: (
            s.worker_presence(),
            s.residency(_WORKER),
            s.resync_inbox(_ANY),
            s.lease(_WORKER),
            s.gateway(_GATEWAY),
            s.gateway_word(),
        ),
        lambda s: (
            s.lease(_WORKER),
            s.leases_renewed(_WORKER),
            s.step_ends_at(_WORKER),
            s.sessions_released(_WORKER),
            s.forecast(_WORKER),
            s.resync(_WORKER),
            s.worker_ask(_WORKER),
            s.worker_presence(),
        ),
        reads=(DRAINS_BUCKET,),
    ),
    "console": _Role(
        lambda s: (s.graph_ask(), s.tenants_ask(), s.admission_ask(), s.placement_ask()),
        lambda s: (
            s.worker_presence(),
            s.worker_standing(),
            s.step_ready(),
            s.step_admitted(),
            s.every_gateway(),
            s.every_step_end(),
            s.every_forecast(),
            s.every_sessions_released(),
            s.gateway_word(),
            s.leader_hello(),
            s.workflow_ended(),
        ),
        replays=True,
    ),
    "operator": _Role(
        lambda s: (s.graph_ask(), s.tenants_ask(), s.admission_ask(), s.placement_ask(), s.worker_ask(_WORKER)),
        lambda s: (s.graph_answer(_ANY), s.worker_presence(), s.every_step_end()),
        writes=(TERMS_BUCKET, KEYS_BUCKET, DRAINS_BUCKET),
        replays=True,
    ),
}

ROLES: Final = tuple(_ROLES)


def allowed(role: str, cell: str) -> Allowed:
    """What this role may do in this cell. Raises KeyError for a role that is none of ROLES."""
    found = _ROLES[role]
    subjects = Subjects(cell)
    steps = stream_name(cell)
    publish = [*found.publish(subjects), *_stream(steps), f"$JS.API.STREAM.UPDATE.{steps}"]
    subscribe = [*found.subscribe(subjects), f"{inbox_of(role)}.>"]
    if found.replays:
        publish += _consumers(steps)
    for what in (*found.writes, *found.reads):
        bucket = kv_bucket(cell, what)
        publish += [*_stream(f"KV_{bucket}"), *_consumers(f"KV_{bucket}"), f"$JS.API.DIRECT.GET.KV_{bucket}.>"]
        publish += [f"$JS.API.STREAM.MSG.GET.KV_{bucket}"]
        subscribe.append(f"saga.{cell}.kv.{bucket}.>")  # where what was written is published again
    publish += [f"$KV.{kv_bucket(cell, what)}.>" for what in found.writes]
    return Allowed(tuple(dict.fromkeys(publish)), tuple(dict.fromkeys(subscribe)))


def inbox_of(role: str) -> str:
    """Where answers to this role go: nobody else may listen there."""
    return f"_INBOX_{role}"


def _stream(name: str) -> list[str]:
    """Whoever comes first after a server was lost makes what it lacks."""
    return [f"$JS.API.STREAM.{act}.{name}" for act in ("CREATE", "INFO")]


def _consumers(name: str) -> list[str]:
    acts = [f"$JS.API.CONSUMER.{act}.{name}" for act in ("CREATE", "DURABLE.CREATE", "INFO", "DELETE", "MSG.NEXT")]
    return [*acts, *(f"{act}.>" for act in acts)]
