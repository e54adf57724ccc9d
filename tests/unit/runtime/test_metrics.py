"""One registry per process."""

import urllib.error
import urllib.request

import pytest

from saga.runtime import metrics


def test_asking_twice_gives_the_same_metric():
    first = metrics.counter("saga_test_things_total", "Things", ["kind"])
    again = metrics.counter("saga_test_things_total", "Things", ["kind"])
    first.labels("a").inc()
    again.labels("a").inc()

    assert b'saga_test_things_total{kind="a"} 2.0' in metrics.render()
    with pytest.raises(TypeError, match="is a Counter, not a Gauge"):
        metrics.gauge("saga_test_things_total", "Things")


def test_a_service_without_http_can_serve_its_metrics():
    metrics.gauge("saga_test_level", "A level").set(7)
    metrics.histogram("saga_test_wait_seconds", "A wait").observe(0.003)
    server = metrics.serve_metrics(0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
            text = answer.read()
    finally:
        server.close()

    assert b"saga_test_level 7.0" in text
    assert b'saga_test_wait_seconds_bucket{le="0.004"} 1.0' in text


def test_health_is_what_the_process_says_of_itself():
    well = True
    server = metrics.serve_metrics(0, alive=lambda: well)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz") as answer:
            assert answer.status == 200
        well = False
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/healthz")
    finally:
        server.close()
