"""The gateway's metrics."""

from typing import Final

from saga.runtime import metrics

REQUESTS: Final = metrics.counter("saga_gateway_requests_total", "Requests by how they ended", ["outcome"])
CONTROL: Final = metrics.histogram(
    "saga_gateway_control_seconds",
    "Last byte of a request read to first byte written to the engine, of steps that waited for nothing",
)
WAITING: Final = metrics.gauge("saga_gateway_waiting", "Steps that wait for a grant")
RUNNING: Final = metrics.gauge("saga_gateway_running", "Steps under a lease")
BODY_BYTES: Final = metrics.gauge("saga_gateway_waiting_body_bytes", "Bytes of bodies that wait")
CHAIN_BYTES: Final = metrics.gauge("saga_gateway_chain_bytes", "Bytes of page chains kept for sessions")
CHUNKS: Final = metrics.counter("saga_gateway_chunks_total", "Pieces of streams relayed")
EVENTS: Final = metrics.counter("saga_gateway_events_total", "Events of streams relayed")
RESUMED: Final = metrics.counter("saga_gateway_resumed_total", "Streams continued after their engine died")
PREFETCHES: Final = metrics.counter(
    "saga_gateway_prefetches_total", "Requests without output, sent to load KV ahead of a session's return", ["outcome"]
)
RETRIED: Final = metrics.counter("saga_gateway_retried_total", "Requests started again after their engine died")
