"""One request inside the engine: its counters and the KV it holds. Kept by EngineCore and the Batch, by nobody else."""

from saga.engine.events import Arrive, Output
from saga.engine.radix_node import Node


class Ticks:
    """Tokens that everybody in a batch has decoded since it began to be counted."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class EngineRequest:
    """A request from its arrival to its end.

    Its KV pages are those of the tree down to `node` (shared, locked) and `private_pages` of its own behind them.
    """

    __slots__ = (
        "arrived_s",
        "cached_tokens",
        "first_token_s",
        "held_tokens",
        "join",
        "max_new_tokens",
        "node",
        "number",
        "output",
        "planned_tokens",
        "prefilled_tokens",
        "priority",
        "private_pages",
        "prompt_tokens",
        "reason",
        "reported_tokens",
        "retractions",
        "rid",
        "said_tokens",
        "session_generation",
        "session_id",
        "since_tick",
        "started_s",
        "ticks",
        "tree_pages",
    )

    rid: str
    prompt_tokens: int
    max_new_tokens: int
    priority: int
    session_id: str
    session_generation: int
    output: Output
    said_tokens: int
    """Output tokens when it last began or stopped to decode."""
    ticks: "Ticks | None"
    """While it decodes: the count of decoded tokens that it goes with, since `since_tick`."""
    since_tick: int
    join: int
    """Orders those that decode by when they began to."""
    planned_tokens: int
    """Up to here the output is known to go on."""
    reason: str
    """Why it ends at `planned_tokens`; "" if it may go on."""
    reported_tokens: int
    prefilled_tokens: int
    """Tokens with KV while the prompt is being prefilled (cached ones included)."""
    held_tokens: int
    """Tokens that the pages it holds have room for."""
    node: Node | None
    number: int
    """Its place in the queue, taken while pages are read for it; 0: none."""
    tree_pages: int
    private_pages: int
    cached_tokens: int
    retractions: int
    arrived_s: float
    started_s: float
    first_token_s: float

    def __init__(self, arrival: Arrive, session_generation: int, now_s: float) -> None:
        self.rid = arrival.rid
        self.prompt_tokens = arrival.prompt_tokens
        self.max_new_tokens = arrival.max_new_tokens
        self.priority = arrival.priority
        self.session_id = arrival.session_id
        self.session_generation = session_generation
        self.output = arrival.output
        self.said_tokens = 0
        self.ticks = None
        self.since_tick = self.join = 0
        self.planned_tokens = 0
        self.reason = ""
        self.reported_tokens = 0
        self.prefilled_tokens = 0
        self.held_tokens = 0
        self.node = None
        self.number = 0
        self.tree_pages = 0
        self.private_pages = 0
        self.cached_tokens = 0
        self.retractions = 0
        self.arrived_s = now_s
        self.started_s = -1.0
        self.first_token_s = -1.0

    @property
    def output_tokens(self) -> int:
        """Output tokens produced so far; the last of them has no KV yet."""
        if self.ticks is None:
            return self.said_tokens
        return self.said_tokens + self.ticks.count - self.since_tick

    @property
    def fill_tokens(self) -> int:
        """Tokens whose KV must exist before it can decode: the prompt, and after a retraction what it said already."""
        return self.prompt_tokens + self.output_tokens

    @property
    def left_tokens(self) -> int:
        """Output tokens it may still produce, as far as the engine can know."""
        return self.max_new_tokens - self.output_tokens
