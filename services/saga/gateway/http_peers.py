"""Asks the other gateways for a conversation that may have begun at one of them, and answers theirs."""

import asyncio
from typing import Final

from saga.contract.ids import TenantId
from saga.contract.messages import ConversationAsk, ConversationTold
from saga.gateway import peers
from saga.gateway.conversations import Conversations, Prints
from saga.gateway.http_desk import Desk
from saga.runtime import metrics
from saga.runtime.bus import Incoming
from saga.runtime.errors import BusUnavailable, MessageError

WITHIN_S: Final = 0.05  # nobody answers who does not know, so a conversation that is new to all waits so long, once
HELLO_EVERY_S: Final = 10.0
ALONE_AFTER_S: Final = 35.0  # without a word of another gateway: then nobody is asked
ASKED: Final = metrics.counter(
    "saga_gateway_conversations_asked_total", "Conversations that other gateways were asked for", ["found"]
)
_NOBODYS: Final = TenantId("")


class Peers:
    """The other gateways of the cell."""

    def __init__(self, desk: Desk, conversations: Conversations) -> None:
        self._desk = desk
        self._conversations = conversations
        self._subject = desk.subjects.conversations()
        self._others_until_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Answers from here on, and says so."""
        await self._desk.listen(self._subject, self._asked)
        self._hello()

    def close(self) -> None:
        """Says no more."""
        if self._timer is not None:
            self._timer.cancel()

    async def ask(self, tenant: TenantId, prints: Prints) -> None:
        """Returns when the conversation is known here as far as anybody knows it."""
        ask = peers.ask_of(self._desk.gateway_id, tenant, prints)
        if ask is None or self._desk.now_s() > self._others_until_s:
            return
        try:
            answer = await self._desk.ask(self._subject, ask, WITHIN_S)
        except (BusUnavailable, MessageError):
            answer = None
        ASKED.labels("yes" if isinstance(answer, ConversationTold) else "no").inc()
        if isinstance(answer, ConversationTold):
            peers.take_in(tenant, prints, answer, self._conversations)

    def _hello(self) -> None:
        """A question about nothing."""
        hello = ConversationAsk(gateway_id=self._desk.gateway_id, tenant=_NOBODYS, ends=(), answers=())
        self._desk.say(self._subject, hello)
        self.close()
        self._timer = asyncio.get_running_loop().call_later(HELLO_EVERY_S, self._hello)

    async def _asked(self, incoming: Incoming) -> None:
        ask = incoming.message
        if not isinstance(ask, ConversationAsk) or ask.gateway_id == self._desk.gateway_id:
            return
        alone, now_s = self._desk.now_s() > self._others_until_s, self._desk.now_s()
        self._others_until_s = now_s + ALONE_AFTER_S
        if alone:
            self._hello()  # who comes later hears at once that it is not alone
        answer = peers.told(ask, self._conversations) if ask.tenant else None
        if answer is not None:
            await incoming.respond(answer)
