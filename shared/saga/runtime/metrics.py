"""Metrics of this process, on one registry: a thin layer over prometheus_client.

Asking twice for a name gives the same metric, so that several buses or cores in one test process can share it.
Names begin with `saga_` and end with their unit. Label values must come from small closed sets.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import ThreadingWSGIServer
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# 0.5 ms to 60 s: from one hop on the bus to a long prefill.
SECONDS_BUCKETS = (
    0.0005,
    0.001,
    0.002,
    0.004,
    0.008,
    0.015,
    0.03,
    0.06,
    0.125,
    0.25,
    0.5,
    1.0,
    2.0,
    4.0,
    8.0,
    15.0,
    30.0,
    60.0,
)

REGISTRY = CollectorRegistry()
prometheus_client.ProcessCollector(registry=REGISTRY)

MetricT = TypeVar("MetricT", bound=MetricWrapperBase)
_metrics: dict[str, MetricWrapperBase] = {}


def counter(name: str, text: str, labels: Sequence[str] = ()) -> Counter:
    """A count that only grows."""
    return _known(name, Counter) or _remember(name, Counter(name, text, labels, registry=REGISTRY))


def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
    """A level."""
    return _known(name, Gauge) or _remember(name, Gauge(name, text, labels, registry=REGISTRY))


def histogram(
    name: str, text: str, labels: Sequence[str] = (), buckets: Sequence[float] = SECONDS_BUCKETS
) -> Histogram:
    """A distribution over fixed buckets, in seconds unless given others."""
    return _known(name, Histogram) or _remember(name, Histogram(name, text, labels, buckets=buckets, registry=REGISTRY))


def levels(name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
    """A gauge for each entry of what `read` says when it is scraped; `read` bounds how many. The last reader counts."""
    _read_by(name, text, label, read, GaugeMetricFamily)


def counts(name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]) -> None:
    """As `levels`, of counts that a core keeps and that only grow; `name` ends with `_total`."""
    _read_by(name, text, label, read, CounterMetricFamily)


Family = type[GaugeMetricFamily] | type[CounterMetricFamily]


def _read_by(name: str, text: str, label: str, read: Callable[[], Mapping[str, float]], family: Family) -> None:
    known = _readers.get(name)
    if known is None:
        known = _readers[name] = _Levels(name, text, label, family)
        REGISTRY.register(known)
    known.read = read


class _Levels(Collector):
    """As prometheus_client wants it."""

    def __init__(self, name: str, text: str, label: str, family: Family) -> None:
        self._name, self._text, self._label, self._family = name, text, label, family
        self.read: Callable[[], Mapping[str, float]] = dict

    def collect(self) -> Iterable[Metric]:
        family = self._family(self._name, self._text, labels=[self._label])
        for entry, value in self.read().items():
            family.add_metric([entry], value)
        return [family]


_readers: dict[str, _Levels] = {}


def render() -> bytes:
    """Everything in the registry as Prometheus text (CONTENT_TYPE)."""
    return generate_latest(REGISTRY)


class MetricsServer:
    """Serves `render()` over HTTP from a thread of its own, for services that have no HTTP; and /healthz, which is 200
    while `alive()`."""

    def __init__(self, port: int, host: str = "127.0.0.1", alive: Callable[[], bool] | None = None) -> None:
        """Listens at once; port 0 takes any free one. OSError if the port is taken."""
        page: WSGIApplication = prometheus_client.make_wsgi_app(REGISTRY)

        def answer(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
            if environ["PATH_INFO"] != "/healthz":
                return page(environ, start)
            well = alive is None or alive()
            start("200 OK" if well else "503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"ok\n" if well else b"stuck\n"]

        self._server = make_server(host, port, answer, ThreadingWSGIServer, _Silent)
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True)
        self._thread.start()
        self.port = int(self._server.server_port)

    def close(self) -> None:
        """Stops listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Silent(WSGIRequestHandler):
    def log_message(self, *_args: object) -> None:
        """Nobody wants a line for each scrape."""


def serve_metrics(port: int, host: str = "127.0.0.1", alive: Callable[[], bool] | None = None) -> MetricsServer:
    """Starts a MetricsServer; close() it at the end."""
    return MetricsServer(port, host, alive)


def _known(name: str, kind: type[MetricT]) -> MetricT | None:
    metric = _metrics.get(name)
    if metric is None:
        return None
    if not isinstance(metric, kind):
        raise TypeError(f"metric {name} is a {type(metric).__name__}, not a {kind.__name__}")
    return metric


def _remember(name: str, metric: MetricT) -> MetricT:
    _metrics[name] = metric
    return metric
