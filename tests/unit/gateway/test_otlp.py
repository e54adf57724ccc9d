"""Our encoding of spans says what OpenTelemetry's own says of them, whatever is in them."""

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState

from saga.gateway import otlp
from saga.gateway.http_spans import SCOPE, Noted, resource

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
    Noted,
    name=TEXTS,
    kind=st.sampled_from([SpanKind.INTERNAL, SpanKind.CLIENT]),
    trace=CONTEXTS,
    span_id=st.integers(1, 2**64 - 1),
    parent=st.none() | CONTEXTS,
    attributes=st.dictionaries(TEXTS, VALUES, max_size=6).map(lambda said: lambda: said),
    times_ns=st.tuples(st.integers(0, 2**63), st.integers(0, 2**63)),
    well=st.booleans(),
)


@given(st.lists(SPANS, min_size=1, max_size=4))
def test_any_spans_are_encoded_as_opentelemetry_encodes_them(spans: list[Noted]):
    ours = ExportTraceServiceRequest.FromString(otlp.request(resource().attributes, SCOPE.name, spans))

    assert ours == encode_spans([span.made() for span in spans])
