"""Traces of requests as OpenTelemetry spans, by its conventions for generative AI. Imported only where they are wanted.

`chat` is a step; `execute_tool` is the gap between an answer that calls tools and the session's next step;
`invoke_workflow` holds those of a workflow whose client sends no W3C context. With one, the client's span is the
parent instead. Spans have ids, counts and names of tools: never text of prompts or answers. They are handed over by a
thread of OpenTelemetry's, from a queue of bounded length; when that is full they are dropped.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from saga.contract.ids import RootId, SessionId, TenantId
from saga.contract.messages import StepReady
from saga.gateway.http_live import Live
from saga.gateway.http_traces import header_lines

IDLE_NS: Final = 600 * 10**9  # a workflow without a step for so long has ended, as far as its span goes
MOST: Final = 10_000  # workflows, and sessions in a gap, that are remembered; the oldest go first
MOST_TOOLS: Final = 16  # named in a span
MAX_VALUE: Final = 256  # characters of an attribute
HAND_OVER_S: Final = 2.0  # for one batch
_W3C: Final = TraceContextTextMapPropagator()
_OPERATIONS: Final = {"completions": "text_completion"}  # by API; all others are chats


class TraceIds(RandomIdGenerator):
    """Random, but for traces of workflows: every gateway gives a workflow the same."""

    def __init__(self) -> None:
        self.next_trace = 0  # 0: a random one

    def generate_trace_id(self) -> int:
        """As IdGenerator."""
        return self.next_trace or super().generate_trace_id()


def otlp_provider(endpoint: str) -> TracerProvider:
    """Hands spans to a collector over HTTP. `endpoint`: its base URL; empty: OpenTelemetry's environment says."""
    url = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
    provider = new_provider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url, timeout=HAND_OVER_S)))
    return provider


def new_provider() -> TracerProvider:
    """Without anybody to hand spans to."""
    return TracerProvider(
        resource=Resource.create({"service.name": "saga-gateway"}),
        id_generator=TraceIds(),
        span_limits=SpanLimits(max_span_attribute_length=MAX_VALUE),
        shutdown_on_exit=False,
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

    def __init__(self, parent: Context, since_ns: int, tools: tuple[str, ...]) -> None:
        self.parent = parent
        self.since_ns = since_ns
        self.tools = tools


class OtelTraces:
    """Spans of all requests of one gateway."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._ids = provider.id_generator
        self._tracer: Tracer = provider.get_tracer("saga.gateway")
        self._workflows: OrderedDict[RootId, _Workflow] = OrderedDict()
        self._gaps: OrderedDict[SessionId, _Gap] = OrderedDict()

    def begin(self, live: Live, step: StepReady, headers: Mapping[str, str]) -> "OtelStep":
        """A request has become a step."""
        now_ns = time.time_ns()
        since_ns = now_ns - int(step.waited_s * 1e9)
        self._let_idle_go(now_ns)
        carrier = {name: headers[name] for name in ("traceparent", "tracestate") if name in headers}
        parent, workflow = _W3C.extract(carrier, Context()), None
        if not get_current_span(parent).get_span_context().is_valid:
            workflow = self._workflow(step, since_ns)
            parent = set_span_in_context(workflow.span, Context())
        gap = self._gaps.pop(step.session, None)
        if gap is not None:
            self._tools(gap, step, since_ns)
        api = live.dialect.api
        operation = _OPERATIONS.get(api, "chat")
        span = self._tracer.start_span(
            f"{operation} {step.pool}",
            parent,
            SpanKind.CLIENT,
            {
                "gen_ai.operation.name": operation,
                "gen_ai.provider.name": "sglang",
                "gen_ai.request.model": step.pool,
                "gen_ai.request.max_tokens": step.max_output_tokens,
                "gen_ai.conversation.id": step.session,
                "saga.api": api,
                "saga.tenant": step.tenant,
                "saga.root": step.root,
                "saga.step": step.step_id,
            },
            start_time=since_ns,
        )
        return OtelStep(self, span, parent, workflow)

    def close(self) -> None:
        """Hands over what is left; blocks for as long as that takes."""
        for workflow in self._workflows.values():
            workflow.span.end(workflow.last_ns or None)
        self._workflows.clear()
        self._provider.shutdown()

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
            workflow.span.end(now_ns)

    def _workflow(self, step: StepReady, since_ns: int) -> _Workflow:
        workflow = self._workflows.get(step.root)
        if workflow is None:
            assert isinstance(self._ids, TraceIds)
            self._ids.next_trace = trace_id_of(step.tenant, step.root)
            span = self._tracer.start_span(
                "invoke_workflow",
                Context(),
                SpanKind.INTERNAL,
                {"gen_ai.operation.name": "invoke_workflow", "saga.tenant": step.tenant, "saga.root": step.root},
                start_time=since_ns,
            )
            self._ids.next_trace = 0
            workflow = self._workflows[step.root] = _Workflow(span)
            if len(self._workflows) > MOST:
                _, oldest = self._workflows.popitem(last=False)
                oldest.span.end(oldest.last_ns or None)
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
            oldest.span.end(oldest.last_ns)

    def _tools(self, gap: _Gap, step: StepReady, until_ns: int) -> None:
        """What its client did meanwhile, as far as we know: it ran the tools, all in one span."""
        names = ", ".join(gap.tools)
        span = self._tracer.start_span(
            f"execute_tool {names}"[:MAX_VALUE],
            gap.parent,
            SpanKind.INTERNAL,
            {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": names,
                "gen_ai.conversation.id": step.session,
            },
            start_time=gap.since_ns,
        )
        span.end(max(gap.since_ns, until_ns))


class OtelStep:
    """The span of one request."""

    __slots__ = ("_span", "_traces", "context", "parent", "workflow")

    def __init__(self, traces: OtelTraces, span: Span, parent: Context, workflow: _Workflow | None) -> None:
        self._traces = traces
        self._span = span
        self.parent = parent
        self.workflow = workflow  # whose span is the parent; None: the client's is
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(span, Context()))
        self.context = header_lines(carrier)

    def end(self, live: Live) -> None:
        """The request is over."""
        span, exchange = self._span, live.exchange
        span.set_attribute("saga.outcome", live.outcome)
        if exchange is not None:
            span.set_attribute("saga.attempts", exchange.attempts)
            if exchange.grant is not None:
                span.set_attribute("saga.worker", exchange.grant.worker_id)
                span.set_attribute("saga.waited", exchange.grant.waited)
                span.set_attribute("saga.control_ms", round(1e3 * exchange.control_s, 3))
            if exchange.done is not None:
                done = exchange.done
                span.set_attribute("gen_ai.usage.input_tokens", done.prompt_tokens)
                span.set_attribute("gen_ai.usage.output_tokens", done.output_tokens)
                span.set_attribute("gen_ai.usage.cache_read.input_tokens", done.cached_tokens)
                span.set_attribute("gen_ai.response.finish_reasons", (done.finish_reason,))
                first_s = exchange.control_s + done.first_token_s
                span.set_attribute("gen_ai.response.time_to_first_chunk", round(first_s, 6))
        if live.outcome != "completed":
            span.set_attribute("error.type", live.outcome)
            span.set_status(Status(StatusCode.ERROR))
        span.end()
        self._traces.ended(self, live)


def trace_id_of(tenant: TenantId, root: RootId) -> int:
    """Of a workflow without a trace of its client's."""
    return int.from_bytes(hashlib.blake2b(f"{tenant}\0{root}".encode(), digest_size=16).digest()) or 1
