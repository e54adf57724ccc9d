"""/metrics of the engine: SGLang's names where they make sense, and saga_engine_* for what only a simulation has."""

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from saga.engine.events import Finished
from saga.engine.service import EngineService
from saga.runtime import metrics

CONTENT_TYPE: Final = metrics.CONTENT_TYPE


class EngineMetrics(Collector):
    """Reads gauges and counters off the engine when scraped; histograms are fed as requests end."""

    def __init__(self, engine: EngineService, model: str) -> None:
        self._engine = engine
        self._model = model
        self._registry = CollectorRegistry()
        self._first_token = self._histogram("time_to_first_token_seconds", "Arrival to first token, engine time")
        self._latency = self._histogram("e2e_request_latency_seconds", "Arrival to end, engine time")
        self._queue = self._histogram("queue_time_seconds", "Arrival to start, engine time")
        self._registry.register(self)

    def observe(self, end: Finished) -> None:
        """A request has ended."""
        self._latency.observe(end.finished_s - end.arrived_s)
        if end.started_s >= 0.0:
            self._queue.observe(end.started_s - end.arrived_s)
        if end.first_token_s >= 0.0:
            self._first_token.observe(end.first_token_s - end.arrived_s)

    def render(self) -> bytes:
        """All of it as Prometheus text, with the process's own metrics."""
        return generate_latest(self._registry) + metrics.render()

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        core, lag = self._engine.core, self._engine.lag
        pool, stats, page = core.pool, core.stats, core.profile.page_tokens
        capacity = pool.capacity_pages * page
        yield self._gauge("num_running_reqs", "Requests in the batch", core.running)
        yield self._gauge("num_queue_reqs", "Requests waiting", core.waiting)
        yield self._gauge("num_used_tokens", "KV tokens held by running requests", pool.used_tokens)
        yield self._gauge("token_usage", "Share of KV held by running requests", pool.used_tokens / capacity)
        yield self._gauge("kv_available_tokens", "KV tokens free", pool.free_pages * page)
        yield self._gauge("kv_evictable_tokens", "Cached KV tokens nobody holds", pool.tree.evictable_pages * page)
        yield self._gauge("kv_used_tokens", "KV tokens held by running requests", pool.used_tokens)
        yield self._gauge("max_total_num_tokens", "KV tokens that fit", capacity)
        hit_rate = stats.cached_tokens / stats.prompt_tokens if stats.prompt_tokens else 0.0
        yield self._gauge("cache_hit_rate", "Cached share of prompt tokens so far", hit_rate)
        yield self._counter("prompt_tokens", "Prompt tokens of started requests", stats.prompt_tokens)
        yield self._counter("generation_tokens", "Tokens generated", stats.generated_tokens)
        yield self._counter("cached_tokens", "Prompt tokens found in the cache", stats.cached_tokens)
        yield self._counter("num_requests", "Requests taken in", stats.requests)
        yield self._counter("num_aborted_requests", "Requests aborted", stats.aborted)
        yield self._counter("evicted_tokens", "KV tokens evicted", pool.evicted_pages * page)
        yield self._counter("num_retractions", "Requests put back for want of KV", stats.retractions)
        yield GaugeMetricFamily("saga_engine_lag_seconds", "P99 lateness of wake-ups, real time", value=lag.p99_s)
        yield GaugeMetricFamily(
            "saga_engine_lag_fraction", "The same as a share of the median step", value=lag.p99_fraction
        )
        yield GaugeMetricFamily("saga_engine_speed", "Engine-seconds per real second", value=self._engine.speed)
        yield CounterMetricFamily("saga_engine_iterations", "Scheduler iterations", value=stats.iterations)
        yield CounterMetricFamily("saga_engine_prefilled_tokens", "Tokens prefilled", value=stats.prefilled_tokens)

    def _histogram(self, name: str, text: str) -> Histogram:
        wanted = Histogram(
            f"sglang:{name}", text, ["model_name"], buckets=metrics.SECONDS_BUCKETS, registry=self._registry
        )
        return wanted.labels(self._model)

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"sglang:{name}", text, labels=["model_name"])
        family.add_metric([self._model], value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"sglang:{name}", text, labels=["model_name"])
        family.add_metric([self._model], value)
        return family
