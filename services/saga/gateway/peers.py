"""A conversation that nobody named goes on at another gateway: what that one asks, and what the others answer. Pure.

Gateways hash messages alike (`conversations.py`), so that a place in a conversation has one name at all of them. Who is
asked and knows the place tells whose it is, and forgets it: a sibling that began alike must not be taken for it. The
asker puts it among its own, and then finds it as it finds those.
"""

import zlib
from typing import Any, Final

import msgspec

from saga.contract.ids import GatewayId, TenantId
from saga.contract.messages import ConversationAsk, ConversationTold
from saga.contract.unreadable import UNREADABLE
from saga.gateway.conversations import LOOK_BACK, Conversation, Conversations, Prints, piece_of

MAX_PLACES: Final = 64  # of one conversation that are asked for, the latest
_PIECE_BYTES: Final = 12  # of the answer's beginning: what every way to cut it has
_json = msgspec.json.Decoder()


def ask_of(gateway_id: GatewayId, tenant: TenantId, prints: Prints) -> ConversationAsk | None:
    """The question; None when there is nothing to go by."""
    places = [place for place in range(len(prints.chain) - 1, 0, -1) if prints.roles[place] == "assistant"]
    if not places:
        return None
    places = places[:MAX_PLACES]
    return ConversationAsk(
        gateway_id=gateway_id,
        tenant=tenant,
        ends=tuple([prints.chain[place - 1] for place in places]),
        answers=tuple([_name(piece_of(_said(prints.messages[place]))) for place in places]),
        marks=tuple(prints.marks[-LOOK_BACK:]),
        head=prints.head,
    )


def told(ask: ConversationAsk, conversations: Conversations) -> ConversationTold | None:
    """Whose it is, if we know; one that waited for this is the asker's from here on."""
    for end, answer in zip(ask.ends, ask.answers, strict=False):
        waiting = [one for one in conversations.waiting_at(ask.tenant, end) if _unnamed(one)]
        sure = [one for one in waiting if answer and _name(one.said) == answer]
        maybe = [one for one in waiting if not one.said or not answer]
        found = sure[0] if sure else maybe[0] if len(waiting) == len(maybe) == 1 else None
        if found is not None:
            conversations.leave(ask.tenant, found)
            return ConversationTold(root=found.root, session=found.session, parent=found.parent, end=end)
    found = conversations.marked(ask.tenant, ask.head, ask.marks, _unnamed)
    return None if found is None else ConversationTold(root=found.root, session=found.session, parent=found.parent)


def take_in(tenant: TenantId, prints: Prints, told: ConversationTold, conversations: Conversations) -> None:
    """From here on it is known here."""
    conversation = Conversation(prints.head, told.root, told.session, told.parent, None)
    if told.end in prints.chain:
        place = prints.chain.index(told.end) + 1
        conversation.said = piece_of(_said(prints.messages[place])) if place < len(prints.messages) else b""
    conversations.take_in(tenant, conversation, told.end, prints.marks)


def _unnamed(one: Conversation) -> bool:
    return one.declared is None


def _name(piece: bytes) -> int:
    return zlib.crc32(piece[:_PIECE_BYTES]) if len(piece) >= _PIECE_BYTES else 0


def _said(message: bytes) -> str:
    """How an answer begins, in any API: its text, else the id of its first call."""
    try:
        given: Any = _json.decode(message)
    except UNREADABLE:
        return ""
    if not isinstance(given, dict):
        return ""
    content = given.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    text = next((text for text in texts if isinstance(text, str) and text), "")
    if text:
        return text
    calls = given.get("tool_calls")
    named = [*(calls if isinstance(calls, list) else ()), {"id": given.get("call_id")}, *parts]
    ids = [call.get("id") for call in named if isinstance(call, dict)]
    return next((name for name in ids if isinstance(name, str) and name), "")
