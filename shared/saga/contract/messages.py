"""Every message between services, as frozen msgspec Structs in MessagePack.

    client > gateway --StepReady--> admission --StepAdmitted--> placement --Grant--> gateway > engine
                     <--Accepted|Refused--                                   |
    gateway: LeaseTaken, StepStarted, StepProgress, StepFinished  ----------> admission, placement, worker, graph
    graph: Forecast  >  admission, worker        worker: Heartbeat, ResidencyDelta  >  placement, admission, gateway
    worker: PrefetchAsked  >  gateway            gateway: KvAsk  >  worker: KvTold
    gateway: WorkflowDeclared  >  graph          command line, gateway: GraphAsk  >  graph: GraphAnswer
    command line: TenantsAsk  >  admission: TenantsAnswer    WhyAsk  >  admission, placement: WhyTold
    command line: WorkersAsk  >  placement: WorkersTold      placement: WorkerStands  >  admission, standbys
    gateway: WorkflowEnded  >  admission, graph

Messages only grow: a new field has a default, a tag is never used again. Durations are seconds on the sender's
monotonic clock; `at` is wall time, for display and traces only. Prompts and generated tokens never travel here.
"""

from typing import TypeAlias

import msgspec

from saga.contract.conversation_messages import ConversationAsk, ConversationTold
from saga.contract.errors import MessageError
from saga.contract.leader_messages import (
    GAP_SHARES,
    UNKNOWN_GAPS_S,
    UNKNOWN_RETURNS,
    Forecast,
    LeaderHello,
    ResendSteps,
    SessionsReleased,
)
from saga.contract.lease_messages import (
    GatewayBeat,
    LeaseReleased,
    LeaseReturned,
    LeasesRenewed,
    LeaseTaken,
    RunningLease,
    StepCancelled,
    StepClaim,
    StepFinished,
    StepProgress,
    StepStarted,
    WaitingStep,
)
from saga.contract.step_messages import (
    Accepted,
    Grant,
    NeedChain,
    Refused,
    StepAdmitted,
    StepChain,
    StepReady,
    StepRefused,
)
from saga.contract.tenant_messages import TenantsAnswer, TenantsAsk
from saga.contract.unreadable import UNREADABLE
from saga.contract.vocabulary import (
    MAX_CHAIN_PAGES,
    MAX_MESSAGE_BYTES,
    CostModel,
    FinishReason,
    LetGoReason,
    Message,
    RefusalReason,
    ReleaseReason,
    ReturnReason,
    Tag,
    WaitCause,
)
from saga.contract.why_messages import WhyAsk, WhyTold, WorkersAsk, WorkerStands, WorkersTold
from saga.contract.worker_messages import (
    AllCleared,
    Heartbeat,
    KvAsk,
    KvTold,
    PagesRemoved,
    PagesStored,
    PrefetchAsked,
    ResidencyChange,
    ResidencyDelta,
    ResyncReply,
    ResyncRequest,
    WorkerHello,
    WorkerLeaving,
)
from saga.contract.workflow_messages import GraphAnswer, GraphAsk, GraphReset, WorkflowDeclared, WorkflowEnded

__all__ = [
    "GAP_SHARES",
    "MAX_CHAIN_PAGES",
    "MAX_MESSAGE_BYTES",
    "MESSAGE_TYPES",
    "UNKNOWN_GAPS_S",
    "UNKNOWN_RETURNS",
    "Accepted",
    "AllCleared",
    "AnyMessage",
    "ConversationAsk",
    "ConversationTold",
    "CostModel",
    "FinishReason",
    "Forecast",
    "GatewayBeat",
    "Grant",
    "GraphAnswer",
    "GraphAsk",
    "GraphReset",
    "Heartbeat",
    "KvAsk",
    "KvTold",
    "LeaderHello",
    "LeaseReleased",
    "LeaseReturned",
    "LeaseTaken",
    "LeasesRenewed",
    "LetGoReason",
    "Message",
    "NeedChain",
    "PagesRemoved",
    "PagesStored",
    "PrefetchAsked",
    "RefusalReason",
    "Refused",
    "ReleaseReason",
    "ResendSteps",
    "ResidencyChange",
    "ResidencyDelta",
    "ResyncReply",
    "ResyncRequest",
    "ReturnReason",
    "RunningLease",
    "SessionsReleased",
    "StepAdmitted",
    "StepCancelled",
    "StepChain",
    "StepClaim",
    "StepFinished",
    "StepProgress",
    "StepReady",
    "StepRefused",
    "StepStarted",
    "Tag",
    "TenantsAnswer",
    "TenantsAsk",
    "WaitCause",
    "WaitingStep",
    "WhyAsk",
    "WhyTold",
    "WorkerHello",
    "WorkerLeaving",
    "WorkerStands",
    "WorkersAsk",
    "WorkersTold",
    "WorkflowDeclared",
    "WorkflowEnded",
    "decode",
    "encode",
]

AnyMessage: TypeAlias = (
    StepReady
    | Accepted
    | Refused
    | StepRefused
    | StepAdmitted
    | Grant
    | NeedChain
    | StepChain
    | LeaseTaken
    | LeaseReturned
    | LeaseReleased
    | StepStarted
    | StepProgress
    | StepFinished
    | StepCancelled
    | GatewayBeat
    | LeasesRenewed
    | StepClaim
    | LeaderHello
    | ResendSteps
    | SessionsReleased
    | Forecast
    | WorkerHello
    | Heartbeat
    | WorkerLeaving
    | ResidencyDelta
    | ResyncRequest
    | ResyncReply
    | PrefetchAsked
    | KvAsk
    | KvTold
    | WorkflowDeclared
    | WorkflowEnded
    | GraphAsk
    | GraphReset
    | GraphAnswer
    | TenantsAsk
    | TenantsAnswer
    | WhyAsk
    | WhyTold
    | WorkersAsk
    | WorkersTold
    | WorkerStands
    | ConversationAsk
    | ConversationTold
)

MESSAGE_TYPES: tuple[type[Message], ...] = AnyMessage.__args__

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyMessage] = msgspec.msgpack.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    """The message on the wire. The bus asserts MAX_MESSAGE_BYTES."""
    return _encoder.encode(message)


def decode(payload: bytes) -> AnyMessage:
    """The message behind these bytes. Raises MessageError for anything else."""
    try:
        return _decoder.decode(payload)
    except UNREADABLE as error:
        raise MessageError(str(error)) from error
