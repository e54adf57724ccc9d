"""Traces of requests: what the gateway asks of whoever keeps them, and the W3C context that an engine is told.

Nothing of OpenTelemetry is imported here: `http_otel.py` does that, once traces are wanted.
"""

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol

from saga.contract.messages import StepReady
from saga.gateway.config import PREFIX, GatewaySettings
from saga.runtime.errors import StartError

if TYPE_CHECKING:  # it knows its trace
    from saga.gateway.http_live import Live

# OpenTelemetry's own: either turns traces on, too.
OTEL_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PARENT: Final = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_STATE: Final = re.compile(r"[\x20-\x7e]{1,512}")


class StepTrace(Protocol):
    """Of one request."""

    @property
    def context(self) -> bytes:
        """Header lines for the engine: the request's span is the parent of what the engine records."""
        ...

    def end(self, live: "Live") -> None:
        """The request is over."""
        ...


class Traces(Protocol):
    """Of all requests."""

    def begin(self, live: "Live", step: StepReady, headers: Mapping[str, str]) -> StepTrace:
        """A request has become a step. `headers`: the client's."""
        ...

    def close(self) -> None:
        """Hands over what is left. Blocks for some seconds at most."""
        ...


def handed_on(headers: Mapping[str, str]) -> bytes:
    """The client's own context as header lines, where the gateway keeps no traces; empty: it sent no such."""
    parent = headers.get("traceparent", "").strip().lower()
    if not _PARENT.fullmatch(parent):
        return b""
    state = headers.get("tracestate", "").strip()
    return header_lines({"traceparent": parent} | ({"tracestate": state} if _STATE.fullmatch(state) else {}))


def header_lines(headers: Mapping[str, str]) -> bytes:
    """As they go over the wire. Values must be printable ASCII."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("ascii")


def open_traces(settings: GatewaySettings) -> Traces | None:
    """Who keeps traces; None: nobody asked for them. Raises StartError when their library is not installed."""
    asked = f"{PREFIX}OTLP_ENDPOINT" if settings.otlp_endpoint else next(filter(os.environ.get, OTEL_ENDPOINTS), "")
    if not asked:
        return None
    try:
        from saga.gateway.http_otel import OtelTraces, otlp_processor  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise StartError(f"{asked} asks for traces, which need: pip install 'saga-mesh[otel]' ({error})") from error
    return OtelTraces(otlp_processor(settings.otlp_endpoint))
