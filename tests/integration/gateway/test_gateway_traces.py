"""Traces: which spans there are of a workflow, whose children they are, and what is in them and what is not."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from saga.contract.ids import RootId, TenantId
from saga.gateway import http_otel
from saga.gateway.config import GatewaySettings
from saga.gateway.http_otel import OtelTraces, otlp_processor, trace_id_of
from saga.gateway.http_traces import OTEL_ENDPOINTS, open_traces
from saga.runtime.errors import StartError

SECRET = "The vault opens with 17-4-32."
ASKED = {"model": "tiny", "messages": [{"role": "user", "content": SECRET}], "max_tokens": 12, "stream": True}
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01"


class Kept:
    """Traces, and the spans that have ended."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.traces = OtelTraces(SimpleSpanProcessor(self._exporter))

    def spans(self, operation: str) -> list:
        return [span for span in self.all if span.attributes["gen_ai.operation.name"] == operation]

    @property
    def all(self) -> list:
        return [noted.made() for noted in self._exporter.get_finished_spans()]


@pytest.fixture
def kept() -> Kept:
    return Kept()


def parent_of(span) -> str:
    return f"{span.parent.span_id:016x}" if span.parent is not None else ""


async def step(mesh, **headers: str) -> str:
    """One step of workflow `wf`, to its end; what its client got."""
    response = await mesh.ask(ASKED, "chat", **({"X_Saga_Workflow": "wf", "X_Saga_Session": "s"} | headers))
    assert response.status == 200
    return (await response.read()).decode()


async def test_steps_and_the_tools_between_them_are_children_of_their_workflow(start, kept):
    mesh = await start(traces=kept.traces)
    mesh.engines[0].tool = "search"
    await step(mesh)
    mesh.engines[0].tool = None
    await step(mesh, X_Saga_Final="true")
    await mesh.until(lambda: kept.spans("invoke_workflow"))

    (workflow,), (first, second), (tool,) = (kept.spans(name) for name in ("invoke_workflow", "chat", "execute_tool"))
    assert workflow.parent is None
    assert {span.parent.span_id for span in (first, second, tool)} == {workflow.context.span_id}
    assert {span.context.trace_id for span in kept.all} == {trace_id_of(TenantId("default"), RootId("default/wf"))}
    assert tool.name == "execute_tool search"
    assert tool.attributes["gen_ai.tool.name"] == "search"
    assert first.start_time < tool.start_time <= tool.end_time <= second.start_time + 1_000_000
    assert workflow.start_time <= first.start_time
    assert workflow.end_time >= second.start_time


async def test_a_chat_says_what_it_cost_and_where_it_ran(start, kept):
    mesh = await start(traces=kept.traces)
    await step(mesh)
    await mesh.until(lambda: kept.spans("chat"))

    (chat,) = kept.spans("chat")
    finished = await mesh.leaders.finished()
    told = {
        "gen_ai.request.model": "tiny",
        "gen_ai.request.max_tokens": 12,
        "gen_ai.conversation.id": "default/s",
        "gen_ai.usage.input_tokens": finished.prompt_tokens,
        "gen_ai.usage.output_tokens": 12,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.response.finish_reasons": ("length",),
        "saga.step": finished.step_id,
        "saga.tenant": "default",
        "saga.worker": "w0",
        "saga.outcome": "completed",
    }
    assert chat.name == "chat tiny"
    assert told.items() <= dict(chat.attributes).items()
    assert chat.attributes["gen_ai.response.time_to_first_chunk"] > 0
    assert chat.status.is_ok or chat.status.is_unset


async def test_no_text_of_prompts_or_answers_is_in_spans(start, kept):
    mesh = await start(traces=kept.traces)
    mesh.engines[0].tool = "search"
    said = [mesh.text_of((await step(mesh)).encode()) for _ in range(2)]
    kept.traces.close()

    told = " ".join(span.to_json() for span in kept.all)
    assert len(kept.all) == 4
    assert all(len(text) == 12 for text in said)
    assert not [text for text in (SECRET, "vault", "17-4-32", *said) if text in told]


async def test_a_clients_trace_goes_on_through_the_gateway_to_the_engine(start, kept):
    mesh = await start(traces=kept.traces)
    await step(mesh, traceparent=PARENT, tracestate="vendor=1")
    await mesh.until(lambda: kept.spans("chat"))

    (chat,) = kept.all
    assert (f"{chat.context.trace_id:032x}", parent_of(chat)) == (TRACE, CALLER)
    heard = mesh.engines[0].headers[0]
    assert heard["traceparent"] == f"00-{TRACE}-{chat.context.span_id:016x}-01"
    assert heard["tracestate"] == "vendor=1"


async def test_a_client_that_samples_its_trace_out_is_heard(start, kept):
    mesh = await start(traces=kept.traces)
    await step(mesh, traceparent=f"00-{TRACE}-{CALLER}-00")
    await mesh.leaders.finished()
    kept.traces.close()

    assert kept.all == []
    assert mesh.engines[0].headers[0]["traceparent"].startswith(f"00-{TRACE}-")
    assert mesh.engines[0].headers[0]["traceparent"].endswith("-00")


async def test_what_fails_is_an_error_without_the_engines_words(start, kept):
    mesh = await start(traces=kept.traces)
    mesh.engines[0].refuse = (400, b'{"error": {"message": "' + SECRET.encode() + b'"}}')
    response = await mesh.ask(ASKED, "chat")
    assert response.status == 400
    kept.traces.close()

    (chat,) = kept.spans("chat")
    assert not chat.status.is_ok
    assert chat.attributes["error.type"] == "refused"
    assert SECRET not in " ".join(span.to_json() for span in kept.all)


async def test_idle_workflows_end_when_their_last_step_did(start, kept, monkeypatch):
    mesh = await start(traces=kept.traces)
    await step(mesh)
    await mesh.until(lambda: kept.spans("chat"))
    monkeypatch.setattr(http_otel, "IDLE_NS", 0)
    await step(mesh, X_Saga_Workflow="another", X_Saga_Session="t")

    (workflow,), first = kept.spans("invoke_workflow"), kept.spans("chat")[0]
    assert workflow.attributes["saga.root"] == "default/wf"
    assert first.end_time <= workflow.end_time < kept.spans("chat")[-1].end_time


async def test_what_is_remembered_is_bounded(start, kept, monkeypatch):
    mesh = await start(traces=kept.traces)
    monkeypatch.setattr(http_otel, "MOST", 3)
    mesh.engines[0].tool = "search"
    for number in range(8):
        await step(mesh, X_Saga_Workflow=f"wf{number}", X_Saga_Session=f"s{number}")
    await mesh.until(lambda: len(kept.spans("chat")) == 8)

    assert len(kept.traces._workflows) == len(kept.traces._gaps) == 3
    assert len(kept.spans("invoke_workflow")) == 5


async def test_without_traces_a_clients_context_is_handed_on_as_it_is(mesh):
    await step(mesh, traceparent=PARENT, tracestate="vendor=1")

    assert mesh.engines[0].headers[0]["traceparent"] == PARENT
    assert mesh.engines[0].headers[0]["tracestate"] == "vendor=1"


@pytest.mark.parametrize("junk", ["", "00-1-2-3", PARENT + "-x", "00-" + "g" * 32 + "-" + CALLER + "-01"])
async def test_junk_is_no_context(mesh, junk):
    await step(mesh, traceparent=junk, tracestate="vendor=1")

    assert not {"traceparent", "tracestate"} & {name.lower() for name in mesh.engines[0].headers[0]}


# --- on and off ------------------------------------------------------------------------------------------------


def test_nothing_of_opentelemetry_is_imported_while_it_is_off():
    code = (
        "import sys, saga.gateway.service as s; from saga.gateway.config import GatewaySettings as G\n"
        "assert s.open_traces(G()) is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env={}, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("name", [None, *OTEL_ENDPOINTS])
def test_who_asks_for_traces_without_their_library_is_told_what_to_install(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "saga.gateway.http_otel", None)  # as if one of its imports failed
    settings = GatewaySettings(otlp_endpoint="http://collector:4318" if name is None else "")
    if name is not None:
        monkeypatch.setenv(name, "http://collector:4318")
    with pytest.raises(StartError, match=rf"^{name or 'SAGA_GATEWAY_OTLP_ENDPOINT'} .*pip install 'saga-mesh\[otel\]'"):
        open_traces(settings)


@pytest.mark.parametrize("url", ["collector:4318", "ftp://x", "http://", "http://x y"])
def test_an_endpoint_that_is_no_url_is_refused(url):
    with pytest.raises(ValueError, match="SAGA_GATEWAY_OTLP_ENDPOINT"):
        GatewaySettings(otlp_endpoint=url)


class Collector(BaseHTTPRequestHandler):
    """Takes what is handed over."""

    taken: list[tuple[str, bytes]]

    def do_POST(self):
        self.taken.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args):
        pass


async def test_spans_reach_a_collector_over_otlp(start, monkeypatch):
    monkeypatch.setattr(Collector, "taken", [], raising=False)
    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        traces = OtelTraces(otlp_processor(f"http://127.0.0.1:{collector.server_port}/"))
        mesh = await start(traces=traces)
        await step(mesh)
        await mesh.leaders.finished()
        traces.close()
    finally:
        collector.shutdown()
        collector.server_close()

    assert {path for path, _body in Collector.taken} == {"/v1/traces"}
    requests = [ExportTraceServiceRequest.FromString(body) for _path, body in Collector.taken]
    spans = [s for r in requests for rs in r.resource_spans for scope in rs.scope_spans for s in scope.spans]
    assert sorted(span.name for span in spans) == ["chat tiny", "invoke_workflow"]


async def test_a_collector_that_is_away_costs_requests_nothing(start):
    traces = OtelTraces(otlp_processor("http://127.0.0.1:1"))
    mesh = await start(traces=traces)
    for _ in range(5):
        assert "[DONE]" in await step(mesh)
    traces.close()
