"""An engine in virtual time, as a fault can see it: slots, a cache of pages that evicts, tokens that come in pieces.

No timing model: `saga.engine` has that. Each token is known by its position in the whole answer, so that whoever
relays one twice or skips one is caught. A request whose connection is closed ends, as in SGLang.
"""

from collections import OrderedDict, deque
from collections.abc import Callable

from fault_life import Act, Life
from fault_network import Network

from saga.contract.messages import AllCleared, CostModel, PagesRemoved, PagesStored, ResidencyChange
from saga.worker.events import EngineFacts

PAGE_TOKENS = 64
KV_PAGES = 180
SLOTS = 2
PIECE_S = 0.2
PIECE_TOKENS = 8
PREFILL_S_PER_TOKEN = 1e-4
LOG_CHANGES = 64  # that an agent which missed them may ask for
HASH_BYTES = 8
COST = CostModel(prompt_s_per_token=PREFILL_S_PER_TOKEN, output_s_per_token=PIECE_S / PIECE_TOKENS)
FACTS = EngineFacts(
    model="model",
    page_tokens=PAGE_TOKENS,
    kv_tokens=KV_PAGES * PAGE_TOKENS,
    context_tokens=8_000,
    max_running=SLOTS,
    session_tags=True,
    cost=COST,
)


class Connection:
    """Between one gateway and one engine, for one request. The engine's end."""

    __slots__ = ("closed", "on_broken", "on_end", "on_piece")

    def __init__(
        self, on_piece: Callable[[int, int], None], on_end: Callable[[int], None], on_broken: Callable[[], None]
    ) -> None:
        """`on_piece`: positions of the first token and after the last; `on_end`: tokens of the prompt found cached;
        `on_broken`: no more will come."""
        self.on_piece, self.on_end, self.on_broken = on_piece, on_end, on_broken
        self.closed = False


class Request:
    """One that waits or runs."""

    __slots__ = ("at", "cached_tokens", "chain", "connection", "gateway", "prompt_tokens", "rid", "tag", "total")

    def __init__(
        self,
        rid: str,
        gateway: str,
        connection: Connection,
        chain: bytes,
        prompt_tokens: int,
        tag: str,
        at: int,
        total: int,
    ) -> None:
        """`at`: tokens of the answer that the client has already; `total`: of the whole answer."""
        self.rid, self.gateway, self.connection = rid, gateway, connection
        self.chain, self.prompt_tokens, self.tag = chain, prompt_tokens, tag
        self.at, self.total = at, total
        self.cached_tokens = 0


class Engine:
    """One, over all its incarnations."""

    def __init__(self, name: str, network: Network) -> None:
        self.name = name
        self.life = Life()
        self.incarnation = 1
        self.on_change: Callable[[], None] = lambda: None  # its agent, if it listens
        self.seen: set[str] = set()  # rids of this incarnation
        self.twice: list[str] = []  # rids that came again
        self._network = network
        self._forget()

    def _forget(self) -> None:
        self.running: dict[str, Request] = {}
        self.waiting: deque[Request] = deque()
        self.open_tags: set[str] = set()
        self.pages: OrderedDict[bytes, None] = OrderedDict()
        self.changes: deque[ResidencyChange] = deque()
        self.changes_gone = 0  # how many of the log's first are not there any more
        self.seen.clear()

    @property
    def used_tokens(self) -> int:
        """By what runs."""
        return sum(request.prompt_tokens + request.at for request in self.running.values())

    # --- requests ----------------------------------------------------------------------------------------------

    def arrive(self, request: Request) -> None:
        """A request has come over the wire."""
        if request.rid in self.seen:
            self.twice.append(request.rid)
        self.seen.add(request.rid)
        if request.connection.closed:
            return
        self.waiting.append(request)
        self._fill()

    def abort(self, rid: str) -> None:
        """Its agent wants it ended: whoever asked for it hears that it broke off."""
        request = self._take_out(rid)
        if request is not None:
            self._say(request, request.connection.on_broken)

    def closed(self, rid: str) -> None:
        """Its connection was closed at the other end."""
        self._take_out(rid)

    def close_tag(self, tag: str) -> None:
        """Its session has no claim any more."""
        self.open_tags.discard(tag)

    def _take_out(self, rid: str) -> Request | None:
        request = self.running.pop(rid, None)
        if request is None:
            request = next((r for r in self.waiting if r.rid == rid), None)
            if request is not None:
                self.waiting.remove(request)
        self._fill()
        return request

    def _fill(self) -> None:
        while self.waiting and len(self.running) < SLOTS:
            request = self.waiting.popleft()
            self.running[request.rid] = request
            if request.tag:
                self.open_tags.add(request.tag)
            request.cached_tokens = min(self._cached(request.chain) * PAGE_TOKENS, request.prompt_tokens - 1)
            prefill_s = 0.01 + (request.prompt_tokens - request.cached_tokens) * PREFILL_S_PER_TOKEN
            self._later(prefill_s, lambda r=request: self._prefilled(r))

    def _later(self, delay_s: float, act: Act) -> None:
        life = self.life
        self._network.agenda.after(delay_s, life.do, act)

    def _prefilled(self, request: Request) -> None:
        if self.running.get(request.rid) is request:
            self._store(request.chain)
            self._piece(request)

    def _piece(self, request: Request) -> None:
        if self.running.get(request.rid) is not request:
            return
        begin, request.at = request.at, min(request.total, request.at + PIECE_TOKENS)
        end = request.at
        self._say(request, lambda: request.connection.on_piece(begin, end))
        if end == request.total:
            del self.running[request.rid]
            self._say(request, lambda: request.connection.on_end(request.cached_tokens))
            self._fill()
        else:
            self._later(PIECE_S, lambda: self._piece(request))

    def _say(self, request: Request, act: Act) -> None:
        self._network.wire(self.name, request.gateway, lambda: None if request.connection.closed else act())

    # --- cache -------------------------------------------------------------------------------------------------

    def _cached(self, chain: bytes) -> int:
        pages = 0
        for at in range(0, len(chain), HASH_BYTES):
            if chain[at : at + HASH_BYTES] not in self.pages:
                break
            pages += 1
        return pages

    def _store(self, chain: bytes) -> None:
        new = bytearray()
        for at in range(0, len(chain), HASH_BYTES):
            page = chain[at : at + HASH_BYTES]
            if page in self.pages:
                self.pages.move_to_end(page)
            else:
                self.pages[page] = None
                new += page
        gone = bytearray()
        while len(self.pages) > KV_PAGES:
            gone += self.pages.popitem(last=False)[0]
        if new:
            self._changed(PagesStored(bytes(new)))
        if gone:
            self._changed(PagesRemoved(bytes(gone)))

    def _changed(self, change: ResidencyChange) -> None:
        self.changes.append(change)
        if len(self.changes) > LOG_CHANGES:
            self.changes.popleft()
            self.changes_gone += 1
        self.on_change()

    def flush(self) -> None:
        """Everything is evicted."""
        self.pages.clear()
        self._changed(AllCleared())

    # --- life --------------------------------------------------------------------------------------------------

    def die(self, *, silent: bool, notice_s: float) -> None:
        """With all that it runs. `silent`: its machine is gone, so gateways notice after `notice_s` only."""
        self.life.end()
        victims = [*self.running.values(), *self.waiting]
        self._forget()
        for request in victims:
            if silent:
                broken = lambda r=request: self._say(r, r.connection.on_broken)  # noqa: E731
                self._network.agenda.after(notice_s, lambda act: act(), broken)
            else:
                self._say(request, request.connection.on_broken)

    def start(self) -> None:
        """A new process with an empty cache."""
        self.life = Life()
        self.incarnation += 1
