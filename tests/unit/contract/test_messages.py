"""Messages only grow: every message has golden bytes, and what a newer or broken sender says is handled."""

import json
from pathlib import Path

import msgspec
import pytest

from saga.contract.errors import MessageError
from saga.contract.ids import StepId
from saga.contract.messages import (
    MESSAGE_TYPES,
    AllCleared,
    CostModel,
    LeaderHello,
    Message,
    PagesRemoved,
    PagesStored,
    RunningLease,
    StepAdmitted,
    StepReady,
    Tag,
    WaitingStep,
    WorkerHello,
    decode,
    encode,
)
from saga.contract.misses import Loss
from saga.contract.tenant_messages import TenantUse
from saga.contract.tenants import TenantTerms
from saga.contract.why_messages import Cached, Moment, StepTold, Weighed, WorkerTold, WorkflowTold
from saga.contract.workflow_messages import (
    ClassFacts,
    DeclaredEdge,
    DeclaredNode,
    NextStep,
    Shape,
    ShapeEdge,
    ShapeNode,
    WorkflowFacts,
)

GOLDEN = Path(__file__).with_name("golden.json")
SHAPE = Shape(
    name="class/t/c",
    kind="class",
    tenant="t",
    nodes=(ShapeNode("bash", "tool", "bash", 2.0, 0.5, (0.1, 0.2, 0.5, 1.0, 3.0, 10.0, 30.0, 300.0)),),
    edges=(ShapeEdge("bash", "bash", probability=0.5),),
    samples=3,
)
MOMENT = Moment(what="waits", at_s=0.5, attempt=1, worker="w0", facts={"limit": "kv", "ahead": 2, "share": 0.5})
VALUES = {
    "steps": (
        StepTold(
            step_id="a" * 32,
            root="t/w",
            session="t/s",
            tenant="t",
            pool="m",
            prompt_tokens=9,
            heard_s=1.5,
            over=True,
            moments=(MOMENT,),
            weighed=(Weighed(worker="w0", chosen=True, terms={"price_s": 0.5}), Weighed(worker="w1", barred="away")),
            cached=Cached(
                prompt_tokens=9, expected_tokens=8, cached_tokens=4, missed_tokens={"moved": 2}, loss=Loss("w1", 2)
            ),
        ),
    ),
    "workflow": WorkflowTold(
        state="active", submitted_s=9.5, sessions=2, live_steps=1, needs_tokens=9, bound="w0", moments=(MOMENT,)
    ),
    "workers": (WorkerTold(worker="w0", pool="m", engine_url="http://w0", standing="draining", leases=2),),
    "step_id": "0123456789abcdef0123456789abcdef",
    "step_ids": ("0123456789abcdef0123456789abcdef",),
    "changes": (PagesStored(b"\x01" * 8), PagesRemoved(b"\x02" * 8), AllCleared()),
    "cost": CostModel(prompt_s_per_token=1e-4, output_s_per_token=2e-3, context_s_per_token=1e-8),
    "tag": Tag(1.5, 2.5, StepId("0123456789abcdef0123456789abcdef")),
    "waiting_steps": (WaitingStep(step_id=StepId("a" * 32), attempt=1, waited_s=0.5),),
    "gap_quantiles_s": (0.1, 0.2, 0.5, 1.0, 3.0, 10.0, 30.0, 300.0),
    "nodes": (DeclaredNode(id="plan"), DeclaredNode(id="act", tool="bash", agent="sub", new_tokens=9.0, gap_s=1.5)),
    "edges": (DeclaredEdge(source="plan", target="act"), DeclaredEdge(source="act", target="plan", probability=0.5)),
    "classes": (ClassFacts(name="class/t/c", samples=3, tools=("bash",), tools_seen=1, gap_p50_s=0.5, gap_p90_s=2.0),),
    "shapes": (SHAPE,),
    "workflows": (
        WorkflowFacts(
            root="t/w", tenant="t", follows="yes", next=(NextStep(node="plan"),), shape=SHAPE, declared=SHAPE
        ),
    ),
    "tenants": (
        TenantUse(tenant="t", terms=TenantTerms(weight=2.0, running_steps=8), weight=2.0, running_steps=8, kv_tokens=9),
    ),
    "partitions": (0, 63),
    "ends": (2**62, -7),
    "answers": (0, 2**32 - 1),
    "marks": (7, 0),
    "running_leases": (
        RunningLease(step_id=StepId("b" * 32), attempt=0, lease_id="0" * 20, worker_id="w0", output_tokens=7),
    ),
}


def sample(kind: type[msgspec.Struct]) -> msgspec.Struct:
    """A message with a value in every field, the same each time."""
    return kind(**{field.name: value_of(kind, field) for field in msgspec.structs.fields(kind)})


def value_of(kind: type, field: msgspec.structs.FieldInfo) -> object:
    if kind.__name__ == "GatewayBeat" and field.name in ("waiting", "running"):
        return VALUES["waiting_steps" if field.name == "waiting" else "running_leases"]
    if kind.__name__ in ("Refused", "StepRefused") and field.name == "reason":
        return "stopping"  # the first word there was: newer ones sort before it
    if field.name in VALUES:
        return VALUES[field.name]
    info = msgspec.inspect.type_info(field.type)
    match info:
        case msgspec.inspect.IntType():
            return len(field.name)
        case msgspec.inspect.FloatType():
            return len(field.name) / 2
        case msgspec.inspect.BoolType():
            return True
        case msgspec.inspect.StrType():
            return field.name
        case msgspec.inspect.BytesType():
            return b"\x00\x01\x02\x03\x04\x05\x06\x07"
        case msgspec.inspect.LiteralType(values=values):
            return values[0]
        case msgspec.inspect.VarTupleType():
            return (f"{field.name}-1", f"{field.name}-2")
        case msgspec.inspect.StructType(cls=cls):
            return sample(cls)
    raise AssertionError(f"{kind.__name__}.{field.name}: say here what its golden value is")


@pytest.mark.parametrize("kind", MESSAGE_TYPES, ids=lambda kind: kind.__name__)
def test_a_message_has_the_bytes_it_always_had(kind):
    golden = json.loads(GOLDEN.read_text())

    assert kind.__name__ in golden, f"new message: add {encode(sample(kind)).hex()} to {GOLDEN.name}"
    assert encode(sample(kind)).hex() == golden[kind.__name__]
    assert decode(bytes.fromhex(golden[kind.__name__])) == sample(kind)


def test_no_golden_bytes_of_a_message_that_is_gone():
    assert set(json.loads(GOLDEN.read_text())) == {kind.__name__ for kind in MESSAGE_TYPES}


def test_every_message_says_what_it_is():
    for kind in MESSAGE_TYPES:
        assert issubclass(kind, Message)
        assert kind.__doc__
        assert msgspec.structs.fields(kind), f"{kind.__name__} says nothing"


def test_a_newer_senders_field_is_ignored():
    raw = msgspec.msgpack.decode(encode(LeaderHello(service="admission", fence=3)))
    raw["shoe_size"] = 43

    assert decode(msgspec.msgpack.encode(raw)) == LeaderHello(service="admission", fence=3)


def test_an_older_senders_missing_field_has_its_default():
    raw = msgspec.msgpack.decode(encode(sample(StepReady)))
    del raw["waited_s"]

    assert decode(msgspec.msgpack.encode(raw)).waited_s == 0.0


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"hello",
        msgspec.msgpack.encode({"type": "NoSuchMessage"}),
        msgspec.msgpack.encode({"type": "LeaderHello", "service": "admission"}),
        msgspec.msgpack.encode({"type": "LeaderHello", "service": "admission", "fence": "three"}),
        encode(sample(StepAdmitted))[:-3],
    ],
)
def test_what_is_no_message_of_ours_is_refused_with_one_error_type(payload):
    with pytest.raises(MessageError):
        decode(payload)


def test_cost_counts_only_what_is_not_cached():
    cost = CostModel(prompt_s_per_token=1e-3, output_s_per_token=1e-2, context_s_per_token=1e-6)

    assert cost.step_s(1_000, 900, 10) == pytest.approx(100 * 1e-3 + 10 * (1e-2 + 1_000 * 1e-6))


def test_a_hello_fits_in_a_kibibyte():
    assert len(encode(sample(WorkerHello))) < 1_024
