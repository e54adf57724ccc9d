"""Our encoding of spans says what OpenTelemetry's own says of them, whatever is in them."""

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from saga.gateway import otlp

SCOPE = InstrumentationScope("saga.gateway")
RESOURCE = Resource({"service.name": "saga-gateway", "number": 7})
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
VALUES = TEXTS | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.tuples(TEXTS, TEXTS) | st.booleans()
STATES = st.sampled_from([None, TraceState([("vendor", "1"), ("other", "x")])])
CONTEXTS = st.builds(
    SpanContext,
    trace_id=st.integers(1, 2**128 - 1),
    span_id=st.integers(1, 2**64 - 1),
    is_remote=st.booleans(),
    trace_flags=st.just(TraceFlags(1)),
    trace_state=STATES,
)
SPANS = st.builds(
    ReadableSpan,
    name=TEXTS,
    context=CONTEXTS,
    parent=st.none() | CONTEXTS,
    resource=st.just(RESOURCE),
    attributes=st.dictionaries(TEXTS, VALUES, max_size=6),
    kind=st.sampled_from([SpanKind.INTERNAL, SpanKind.CLIENT]),
    status=st.sampled_from([Status(StatusCode.UNSET), Status(StatusCode.ERROR)]),
    start_time=st.integers(0, 2**63),
    end_time=st.integers(0, 2**63),
    instrumentation_scope=st.just(SCOPE),
)


@given(st.lists(SPANS, min_size=1, max_size=4))
def test_any_spans_are_encoded_as_opentelemetry_encodes_them(spans: list[ReadableSpan]):
    ours = ExportTraceServiceRequest.FromString(otlp.request(RESOURCE.attributes, SCOPE.name, spans))

    assert ours == encode_spans(spans)
