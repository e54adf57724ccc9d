"""Gateways among themselves: whose conversation is this? Hashes only, no text."""

from saga.contract.ids import GatewayId, TenantId
from saga.contract.vocabulary import Message


class ConversationAsk(Message, frozen=True, kw_only=True, gc=False):
    """To all gateways, a request: a conversation that nobody named goes on here. Who has seen a request that ended at
    one of these places answers."""

    gateway_id: GatewayId  # that asks
    tenant: TenantId
    ends: tuple[int, ...]  # hashes of all messages before an answer, the longest first
    answers: tuple[int, ...]  # hash of how the answer after each begins; 0: nothing to go by
    marks: tuple[int, ...] = ()  # hashes of its latest messages, each by itself
    head: int = 0  # hash of its instructions' beginning


class ConversationTold(Message, frozen=True, kw_only=True, gc=False):
    """Answer to ConversationAsk. With an end, the teller has forgotten it: it goes on at the asker."""

    root: str  # names without their tenant
    session: str
    parent: str  # empty: none
    end: int = 0  # of those asked for; 0: by its marks
