"""What a gateway's spans say: noted while requests are served, made once they are handed over. Used by `http_otel.py`.

Imported only where traces are wanted: it needs OpenTelemetry.
"""

from collections.abc import Callable
from functools import cache
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from saga.contract.messages import Grant, StepReady
from saga.gateway import otlp
from saga.gateway.events import Completed
from saga.gateway.http_live import Live

MAX_VALUE: Final = 256  # characters of an attribute
COMPLETED: Final = "completed"  # an outcome; all others are errors
SCOPE: Final = InstrumentationScope("saga.gateway")
SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_OPERATIONS: Final = {"completions": "text_completion"}  # by API; all others are chats
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
Attributes = dict[str, otlp.Value]


class Noted:
    """A span that is over and not made yet. To OpenTelemetry's queue it is one that was sampled; others are dropped."""

    __slots__ = ("attributes", "kind", "name", "parent", "since_ns", "span_id", "trace", "until_ns", "well")

    context = SpanContext(1, 1, is_remote=False, trace_flags=SAMPLED)

    def __init__(
        self,
        name: str,
        kind: SpanKind,
        trace: SpanContext,
        span_id: int,
        parent: SpanContext | None,
        attributes: Callable[[], Attributes],
        times_ns: tuple[int, int],
        *,
        well: bool = True,
    ) -> None:
        """`trace`: of which it is, as any span of it has it. `attributes`: asked for once it is made."""
        self.name, self.kind, self.trace, self.span_id, self.parent = name, kind, trace, span_id, parent
        self.attributes, self.well = attributes, well
        self.since_ns, self.until_ns = times_ns

    def made(self) -> ReadableSpan:
        """As OpenTelemetry's own encoding takes it; `otlp.py` takes the note itself."""
        trace = self.trace
        return ReadableSpan(
            self.name,
            SpanContext(trace.trace_id, self.span_id, False, SAMPLED, trace.trace_state),
            self.parent,
            resource(),
            self.attributes(),
            kind=self.kind,
            status=_UNSET if self.well else _ERROR,
            start_time=self.since_ns,
            end_time=self.until_ns,
            instrumentation_scope=SCOPE,
        )


@cache
def resource() -> Resource:
    """What all spans are of."""
    return Resource.create({"service.name": "saga-gateway"})


class StepNote:
    """What the span of a step will say. Holds none of the request: its prompt may be large, and a queue is long."""

    __slots__ = ("_api", "_known", "_max_tokens", "_more")

    def __init__(self, live: Live, step: StepReady) -> None:
        self._api = live.dialect.api
        self._max_tokens = step.max_output_tokens
        self._known = (step.pool, step.session, step.tenant, step.root, step.step_id)
        self._more: tuple[str, int, Grant | None, float, Completed | None] = ("", 0, None, 0.0, None)

    @property
    def name(self) -> str:
        """Of the span."""
        return f"{_OPERATIONS.get(self._api, 'chat')} {self._known[0]}"

    def over(self, live: Live) -> None:
        """How it went."""
        exchange = live.exchange
        if exchange is None:
            self._more = (live.outcome, 0, None, 0.0, None)
        else:
            self._more = (live.outcome, exchange.attempts, exchange.grant, exchange.control_s, exchange.done)

    def attributes(self) -> Attributes:
        """All of it."""
        model, session, tenant, root, step_id = self._known
        outcome, attempts, grant, control_s, done = self._more
        told: Attributes = {
            "gen_ai.operation.name": _OPERATIONS.get(self._api, "chat"),
            "gen_ai.provider.name": "sglang",
            "gen_ai.request.model": model[:MAX_VALUE],
            "gen_ai.request.max_tokens": self._max_tokens,
            "gen_ai.conversation.id": session[:MAX_VALUE],
            "saga.api": self._api,
            "saga.tenant": tenant,
            "saga.root": root[:MAX_VALUE],
            "saga.step": step_id,
            "saga.outcome": outcome,
        }
        if attempts:
            told["saga.attempts"] = attempts
        if grant is not None:
            told["saga.worker"] = grant.worker_id
            told["saga.waited"] = grant.waited
            told["saga.control_ms"] = round(1e3 * control_s, 3)
        if done is not None:
            told["gen_ai.usage.input_tokens"] = done.prompt_tokens
            told["gen_ai.usage.output_tokens"] = done.output_tokens
            told["gen_ai.usage.cache_read.input_tokens"] = done.cached_tokens
            told["gen_ai.response.finish_reasons"] = (done.finish_reason,)
            told["gen_ai.response.time_to_first_chunk"] = round(control_s + done.first_token_s, 6)
        if outcome != COMPLETED:
            told["error.type"] = outcome
        return told
