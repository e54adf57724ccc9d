"""Traces of requests as OpenTelemetry spans, by its conventions for generative AI. Imported only where they are wanted.

`chat` is a step; `execute_tool` is the gap between an answer that calls tools and the session's next step;
`invoke_workflow` holds those of a workflow whose client sends no W3C context. With one, the client's span is the
parent instead. Spans have ids, counts and names of tools: never text of prompts or answers. They are handed over by a
thread of OpenTelemetry's, from a queue of bounded length; when that is full they are dropped.

Of OpenTelemetry's SDK are the sampler, the queue and what sends; a span is made once, when it ends, and encoded by
`otlp.py`: its tracer and its encoder together cost a gateway four times as much.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from random import getrandbits
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from saga.contract.ids import RootId, SessionId, TenantId
from saga.contract.messages import StepReady
from saga.gateway import otlp
from saga.gateway.http_live import Live
from saga.gateway.http_traces import header_lines

IDLE_NS: Final = 600 * 10**9  # a workflow without a step for so long has ended, as far as its span goes
MOST: Final = 10_000  # workflows, and sessions in a gap, that are remembered; the oldest go first
MOST_TOOLS: Final = 16  # named in a span
MAX_VALUE: Final = 256  # characters of an attribute
HAND_OVER_S: Final = 2.0  # for one batch
SCOPE: Final = InstrumentationScope("saga.gateway")
_W3C: Final = TraceContextTextMapPropagator()
_OPERATIONS: Final = {"completions": "text_completion"}  # by API; all others are chats
_SAMPLED, _DROPPED = TraceFlags(TraceFlags.SAMPLED), TraceFlags(TraceFlags.DEFAULT)
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
Attributes = dict[str, otlp.Value]


def otlp_processor(endpoint: str) -> SpanProcessor:
    """Hands spans to a collector over HTTP. `endpoint`: its base URL; empty: OpenTelemetry's environment says."""
    url = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
    return BatchSpanProcessor(HandOver(endpoint=url, timeout=HAND_OVER_S))


class HandOver(OTLPSpanExporter):
    """OpenTelemetry's own, but for the encoding."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """One batch."""
        client = getattr(self, "_client", None)  # what sends, with retries, headers, compression: not its public face
        if client is None:
            return super().export(spans)
        sent = client.export(otlp.request(spans[0].resource.attributes, SCOPE.name, spans))
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


class Span:
    """One that has not ended."""

    __slots__ = ("_attributes", "_kind", "_name", "_parent", "_since_ns", "context")

    def __init__(
        self,
        name: str,
        kind: SpanKind,
        context: SpanContext,
        parent: SpanContext | None,
        attributes: Attributes,
        since_ns: int,
    ) -> None:
        self._name, self._kind, self.context, self._parent = name, kind, context, parent
        self._attributes, self._since_ns = attributes, since_ns

    def made(self, resource: Resource, until_ns: int, more: Attributes, status: Status) -> ReadableSpan:
        """As it is handed over."""
        return ReadableSpan(
            self._name,
            self.context,
            self._parent,
            resource,
            self._attributes | more,
            kind=self._kind,
            status=status,
            start_time=self._since_ns,
            end_time=until_ns,
            instrumentation_scope=SCOPE,
        )


class _Workflow:
    """Its span, open."""

    __slots__ = ("last_ns", "live", "span")

    def __init__(self, span: Span) -> None:
        self.span = span
        self.live = 0  # steps
        self.last_ns = 0  # its last step's end


class _Gap:
    """A session that calls tools."""

    __slots__ = ("parent", "since_ns", "tools")

    def __init__(self, parent: SpanContext, since_ns: int, tools: tuple[str, ...]) -> None:
        self.parent = parent
        self.since_ns = since_ns
        self.tools = tools


class OtelTraces:
    """Spans of all requests of one gateway."""

    def __init__(self, processor: SpanProcessor, sampler: Sampler | None = None) -> None:
        """`processor`: gets each span when it ends. `sampler`: None: as OpenTelemetry's environment says."""
        self._processor = processor
        self._sampler = sampler or TracerProvider(shutdown_on_exit=False).sampler
        self._resource = Resource.create({"service.name": "saga-gateway"})
        self._workflows: OrderedDict[RootId, _Workflow] = OrderedDict()
        self._gaps: OrderedDict[SessionId, _Gap] = OrderedDict()

    def begin(self, live: Live, step: StepReady, headers: Mapping[str, str]) -> "OtelStep":
        """A request has become a step."""
        now_ns = time.time_ns()
        since_ns = now_ns - int(step.waited_s * 1e9)
        self._let_idle_go(now_ns)
        api = live.dialect.api
        operation = _OPERATIONS.get(api, "chat")
        name = f"{operation} {step.pool}"
        attributes: Attributes = {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "sglang",
            "gen_ai.request.model": step.pool[:MAX_VALUE],
            "gen_ai.request.max_tokens": step.max_output_tokens,
            "gen_ai.conversation.id": step.session[:MAX_VALUE],
            "saga.api": api,
            "saga.tenant": step.tenant,
            "saga.root": step.root[:MAX_VALUE],
            "saga.step": step.step_id,
        }
        parent, workflow = _client_context(headers), None
        if parent is not None:
            flags, state = self._sampled(parent, parent.trace_id, name, SpanKind.CLIENT, attributes)
        else:  # all spans of a workflow are kept or none
            workflow = self._workflow(step, since_ns)
            parent = workflow.span.context
            flags, state = parent.trace_flags, parent.trace_state
        gap = self._gaps.pop(step.session, None)
        if gap is not None:
            self._tools(gap, step, since_ns)
        context = SpanContext(parent.trace_id, _new_id(), is_remote=False, trace_flags=flags, trace_state=state)
        span = Span(name, SpanKind.CLIENT, context, parent, attributes, since_ns)
        return OtelStep(self, span, parent, workflow)

    def close(self) -> None:
        """Hands over what is left; blocks for as long as that takes."""
        for workflow in self._workflows.values():
            self.hand_over(workflow.span, workflow.last_ns or time.time_ns())
        self._workflows.clear()
        self._processor.shutdown()

    def hand_over(self, span: Span, until_ns: int, more: Attributes | None = None, status: Status = _UNSET) -> None:
        """It has ended."""
        if span.context.trace_flags.sampled:
            self._processor.on_end(span.made(self._resource, until_ns, more or {}, status))

    def ended(self, step: "OtelStep", live: Live) -> None:
        """A step is over: its session may be in a gap now, its workflow may be over."""
        now_ns = time.time_ns()
        whose, done = live.whose, live.exchange.done if live.exchange is not None else None
        over = whose is None or whose.final
        if whose is not None and done is not None and done.tools and whose.lasting and not (over or whose.ends):
            self._gaps[whose.session] = _Gap(step.parent, now_ns, done.tools[:MOST_TOOLS])
            if len(self._gaps) > MOST:
                self._gaps.popitem(last=False)
        workflow = step.workflow
        if workflow is None or whose is None:
            return
        workflow.live -= 1
        workflow.last_ns = now_ns
        if over and not workflow.live and self._workflows.get(whose.root) is workflow:
            del self._workflows[whose.root]
            self.hand_over(workflow.span, now_ns)

    def _workflow(self, step: StepReady, since_ns: int) -> _Workflow:
        workflow = self._workflows.get(step.root)
        if workflow is None:
            trace_id, name = trace_id_of(step.tenant, step.root), "invoke_workflow"
            attributes: Attributes = {
                "gen_ai.operation.name": name,
                "saga.tenant": step.tenant,
                "saga.root": step.root[:MAX_VALUE],
            }
            flags, state = self._sampled(None, trace_id, name, SpanKind.INTERNAL, attributes)
            context = SpanContext(trace_id, _new_id(), is_remote=False, trace_flags=flags, trace_state=state)
            span = Span(name, SpanKind.INTERNAL, context, None, attributes, since_ns)
            workflow = self._workflows[step.root] = _Workflow(span)
            if len(self._workflows) > MOST:
                _, oldest = self._workflows.popitem(last=False)
                self.hand_over(oldest.span, oldest.last_ns or since_ns)
        self._workflows.move_to_end(step.root)
        workflow.live += 1
        return workflow

    def _let_idle_go(self, now_ns: int) -> None:
        """The least recently used first; one whose step runs for long keeps those behind it a while longer."""
        while self._workflows:
            root, oldest = next(iter(self._workflows.items()))
            if oldest.live or now_ns - oldest.last_ns < IDLE_NS:
                return
            del self._workflows[root]
            self.hand_over(oldest.span, oldest.last_ns)

    def _tools(self, gap: _Gap, step: StepReady, until_ns: int) -> None:
        """What its client did meanwhile, as far as we know: it ran the tools, all in one span."""
        names = ", ".join(gap.tools)
        context = SpanContext(
            gap.parent.trace_id,
            _new_id(),
            is_remote=False,
            trace_flags=gap.parent.trace_flags,
            trace_state=gap.parent.trace_state,
        )
        attributes: Attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": names[:MAX_VALUE],
            "gen_ai.conversation.id": step.session[:MAX_VALUE],
        }
        span = Span(
            f"execute_tool {names}"[:MAX_VALUE], SpanKind.INTERNAL, context, gap.parent, attributes, gap.since_ns
        )
        self.hand_over(span, max(gap.since_ns, until_ns))

    def _sampled(
        self, parent: SpanContext | None, trace_id: int, name: str, kind: SpanKind, attributes: Attributes
    ) -> tuple[TraceFlags, TraceState | None]:
        """Whether a trace is kept that begins here, or comes from a client."""
        above = Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())
        result = self._sampler.should_sample(above, trace_id, name, kind, attributes, ())
        kept = result.decision is Decision.RECORD_AND_SAMPLE
        return _SAMPLED if kept else _DROPPED, result.trace_state


class OtelStep:
    """The span of one request."""

    __slots__ = ("_span", "_traces", "context", "parent", "workflow")

    def __init__(self, traces: OtelTraces, span: Span, parent: SpanContext, workflow: _Workflow | None) -> None:
        self._traces = traces
        self._span = span
        self.parent = parent
        self.workflow = workflow  # whose span is the parent; None: the client's is
        context = span.context
        carrier = {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"}
        if context.trace_state:
            carrier["tracestate"] = context.trace_state.to_header()
        self.context = header_lines(carrier)

    def end(self, live: Live) -> None:
        """The request is over."""
        exchange = live.exchange
        more: Attributes = {"saga.outcome": live.outcome}
        if exchange is not None:
            more["saga.attempts"] = exchange.attempts
            if exchange.grant is not None:
                more["saga.worker"] = exchange.grant.worker_id
                more["saga.waited"] = exchange.grant.waited
                more["saga.control_ms"] = round(1e3 * exchange.control_s, 3)
            if exchange.done is not None:
                done = exchange.done
                more["gen_ai.usage.input_tokens"] = done.prompt_tokens
                more["gen_ai.usage.output_tokens"] = done.output_tokens
                more["gen_ai.usage.cache_read.input_tokens"] = done.cached_tokens
                more["gen_ai.response.finish_reasons"] = (done.finish_reason,)
                more["gen_ai.response.time_to_first_chunk"] = round(exchange.control_s + done.first_token_s, 6)
        well = live.outcome == "completed"
        if not well:
            more["error.type"] = live.outcome
        self._traces.hand_over(self._span, time.time_ns(), more, _UNSET if well else _ERROR)
        self._traces.ended(self, live)


def _client_context(headers: Mapping[str, str]) -> SpanContext | None:
    """The span that a client says is the parent; None: it says none that can be read."""
    if "traceparent" not in headers:
        return None
    carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
    context = get_current_span(_W3C.extract(carrier, Context())).get_span_context()
    return context if context.is_valid else None


def _new_id() -> int:
    """Of a span."""
    return getrandbits(64) or 1


def trace_id_of(tenant: TenantId, root: RootId) -> int:
    """Of a workflow without a trace of its client's."""
    return int.from_bytes(hashlib.blake2b(f"{tenant}\0{root}".encode(), digest_size=16).digest()) or 1
