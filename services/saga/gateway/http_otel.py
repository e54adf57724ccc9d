"""Traces of requests as OpenTelemetry spans, by its conventions for generative AI. Imported only where they are wanted.

`chat` is a step; `execute_tool` is the gap between an answer that calls tools and the session's next step;
`invoke_workflow` holds those of a workflow whose client sends no W3C context. With one, the client's span is the
parent instead. Spans have ids, counts and names of tools: never text of prompts or answers. They are handed over by a
thread of OpenTelemetry's, from a queue of bounded length; when that is full they are dropped.

Of OpenTelemetry's SDK are the sampler, the queue and what sends. A request only notes what its span will say: spans are
made, and encoded by `otlp.py`, a batch at a time where they are handed over, which costs a fraction of making each one
in the middle of something else.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from random import getrandbits
from typing import Final, cast

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from saga.contract.ids import RootId, SessionId, TenantId
from saga.contract.messages import StepReady
from saga.gateway import otlp
from saga.gateway.http_live import Live
from saga.gateway.http_spans import COMPLETED, MAX_VALUE, SAMPLED, SCOPE, Attributes, Noted, StepNote, resource
from saga.gateway.http_traces import header_lines

IDLE_NS: Final = 600 * 10**9  # a workflow without a step for so long has ended, as far as its span goes
MOST: Final = 10_000  # workflows, and sessions in a gap, that are remembered; the oldest go first
MOST_TOOLS: Final = 16  # named in a span
HAND_OVER_S: Final = 2.0  # for one batch
_W3C: Final = TraceContextTextMapPropagator()
_DROPPED: Final = TraceFlags(TraceFlags.DEFAULT)


def otlp_processor(endpoint: str) -> SpanProcessor:
    """Hands spans to a collector over HTTP. `endpoint`: its base URL; empty: OpenTelemetry's environment says."""
    url = f"{endpoint.rstrip('/')}/v1/traces" if endpoint else None
    return BatchSpanProcessor(HandOver(endpoint=url, timeout=HAND_OVER_S))


class HandOver(OTLPSpanExporter):
    """OpenTelemetry's own, but for the encoding."""

    def export(self, noted: Sequence["Noted"]) -> SpanExportResult:  # type: ignore[override]
        """One batch."""
        client = getattr(self, "_client", None)  # what sends, with retries, headers, compression: not its public face
        if client is None:
            return super().export([one.made() for one in noted])
        sent = client.export(otlp.request(resource().attributes, SCOPE.name, noted))
        return SpanExportResult.SUCCESS if sent.success else SpanExportResult.FAILURE


class _Workflow:
    """Its span, open."""

    __slots__ = ("context", "last_ns", "live", "root", "since_ns", "tenant")

    def __init__(self, context: SpanContext, step: StepReady, since_ns: int) -> None:
        self.context = context
        self.tenant, self.root, self.since_ns = step.tenant, step.root, since_ns
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
        resource()  # takes a while, once
        self._workflows: OrderedDict[RootId, _Workflow] = OrderedDict()
        self._gaps: OrderedDict[SessionId, _Gap] = OrderedDict()

    def begin(self, live: Live, step: StepReady, headers: Mapping[str, str]) -> "OtelStep":
        """A request has become a step."""
        now_ns = time.time_ns()
        since_ns = now_ns - int(step.waited_s * 1e9)
        self._let_idle_go(now_ns)
        parent, workflow = _client_context(headers), None
        if parent is None:  # all spans of a workflow are kept or none
            workflow = self._workflow(step, since_ns)
            parent = workflow.context
            trace, sampled = parent, parent.trace_flags.sampled
        else:
            trace, sampled = parent, self._sampled(parent, parent.trace_id, step)
        gap = self._gaps.pop(step.session, None)
        if gap is not None:
            self._tools(gap, step, since_ns)
        return OtelStep(self, trace, parent, workflow, StepNote(live, step), since_ns, sampled=sampled)

    def close(self) -> None:
        """Hands over what is left; blocks for as long as that takes."""
        for workflow in self._workflows.values():
            self._over(workflow, workflow.last_ns or time.time_ns())
        self._workflows.clear()
        self._processor.shutdown()

    def hand_over(self, noted: Noted) -> None:
        """It has ended."""
        self._processor.on_end(cast("ReadableSpan", noted))

    def _over(self, workflow: _Workflow, until_ns: int) -> None:
        if not workflow.context.trace_flags.sampled:
            return
        tenant, root = workflow.tenant, workflow.root[:MAX_VALUE]
        context = workflow.context

        def attributes() -> Attributes:
            return {"gen_ai.operation.name": "invoke_workflow", "saga.tenant": tenant, "saga.root": root}

        times_ns = workflow.since_ns, until_ns
        self.hand_over(
            Noted("invoke_workflow", SpanKind.INTERNAL, context, context.span_id, None, attributes, times_ns)
        )

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
            self._over(workflow, now_ns)

    def _workflow(self, step: StepReady, since_ns: int) -> _Workflow:
        workflow = self._workflows.get(step.root)
        if workflow is None:
            trace_id = trace_id_of(step.tenant, step.root)
            flags = SAMPLED if self._sampled(None, trace_id, step) else _DROPPED
            context = SpanContext(trace_id, _new_id(), is_remote=False, trace_flags=flags)
            workflow = self._workflows[step.root] = _Workflow(context, step, since_ns)
            if len(self._workflows) > MOST:
                _, oldest = self._workflows.popitem(last=False)
                self._over(oldest, oldest.last_ns or since_ns)
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
            self._over(oldest, oldest.last_ns)

    def _tools(self, gap: _Gap, step: StepReady, until_ns: int) -> None:
        """What its client did meanwhile, as far as we know: it ran the tools, all in one span."""
        parent, names, session = gap.parent, ", ".join(gap.tools), step.session[:MAX_VALUE]
        if not parent.trace_flags.sampled:
            return

        def attributes() -> Attributes:
            told = {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": names[:MAX_VALUE]}
            return {**told, "gen_ai.conversation.id": session}

        times_ns, name = (gap.since_ns, max(gap.since_ns, until_ns)), f"execute_tool {names}"[:MAX_VALUE]
        self.hand_over(Noted(name, SpanKind.INTERNAL, parent, _new_id(), parent, attributes, times_ns))

    def _sampled(self, parent: SpanContext | None, trace_id: int, step: StepReady) -> bool:
        """Whether a trace is kept that begins here, or comes from a client."""
        above, name = Context(), "invoke_workflow"
        if parent is not None:
            above, name = set_span_in_context(NonRecordingSpan(parent), above), f"chat {step.pool}"
        known: Attributes = {"saga.tenant": step.tenant, "saga.root": step.root[:MAX_VALUE]}
        result = self._sampler.should_sample(above, trace_id, name, SpanKind.CLIENT, known, ())
        return result.decision is Decision.RECORD_AND_SAMPLE


class OtelStep:
    """The span of one request."""

    __slots__ = ("_note", "_sampled", "_since_ns", "_span_id", "_trace", "_traces", "context", "parent", "workflow")

    def __init__(
        self,
        traces: OtelTraces,
        trace: SpanContext,
        parent: SpanContext,
        workflow: _Workflow | None,
        note: StepNote,
        since_ns: int,
        *,
        sampled: bool,
    ) -> None:
        self._traces, self._trace, self._note, self._since_ns, self._sampled = traces, trace, note, since_ns, sampled
        self._span_id = _new_id()
        self.parent = parent
        self.workflow = workflow  # whose span is the parent; None: the client's is
        carrier = {"traceparent": f"00-{trace.trace_id:032x}-{self._span_id:016x}-{'01' if sampled else '00'}"}
        if trace.trace_state:
            carrier["tracestate"] = trace.trace_state.to_header()
        self.context = header_lines(carrier)

    def end(self, live: Live) -> None:
        """The request is over."""
        if self._sampled:
            note = self._note
            note.over(live)
            times_ns = self._since_ns, time.time_ns()
            noted = Noted(
                note.name,
                SpanKind.CLIENT,
                self._trace,
                self._span_id,
                self.parent,
                note.attributes,
                times_ns,
                well=live.outcome == COMPLETED,
            )
            self._traces.hand_over(noted)
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
