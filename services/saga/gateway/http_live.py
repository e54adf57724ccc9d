"""A request while it lives, and the one line that the log has of it."""

import os

from saga.contract.ids import StepId, TenantId
from saga.contract.messages import StepReady
from saga.gateway import http_metrics as metrics
from saga.gateway.dialects.dialect import Dialect
from saga.gateway.http_body import HeldBody
from saga.gateway.http_exchange import Exchange
from saga.gateway.http_traces import StepTrace
from saga.gateway.hygiene import CLEAN
from saga.gateway.identity import Identity
from saga.runtime.log import get_logger

log = get_logger()


class Live:
    """What is known of it."""

    __slots__ = (
        "body",
        "dialect",
        "error",
        "exchange",
        "key",
        "noise",
        "outcome",
        "step",
        "step_id",
        "tenant",
        "trace",
        "whose",
    )

    def __init__(self, dialect: Dialect, body: HeldBody) -> None:
        self.dialect = dialect
        self.body = body  # counted against the budget of waiting bodies
        self.tenant = TenantId("")
        self.key = ""  # idempotency key, once claimed
        self.step_id = StepId(os.urandom(16).hex())
        self.step: StepReady | None = None
        self.whose: Identity | None = None
        self.exchange: Exchange | None = None
        self.outcome = "failed"
        self.error = ""
        self.noise = CLEAN
        self.trace: StepTrace | None = None


def log_line(live: Live) -> None:
    """The canonical line of a request."""
    metrics.REQUESTS.labels(live.outcome).inc()
    step, exchange = live.step, live.exchange
    if step is None or exchange is None:
        log.info("request", api=live.dialect.api, outcome=live.outcome, tenant=live.tenant, error=live.error)
        return
    metrics.CHUNKS.inc(exchange.chunks)
    metrics.EVENTS.inc(exchange.events)
    grant, done = exchange.grant, exchange.done
    log.info(
        "request",
        api=live.dialect.api,
        outcome=live.outcome,
        error=live.error,
        tenant=step.tenant,
        root=step.root,
        session=step.session,
        identity=live.whose.source if live.whose else "",
        confidence=live.whose.confidence if live.whose else 0.0,
        step=step.step_id,
        model=step.pool,
        worker=grant.worker_id if grant else "",
        waited=grant.waited if grant else "",
        control_ms=round(1000 * exchange.control_s, 3),
        first_token_ms=round(1000 * exchange.first_token_s, 3),
        attempts=exchange.attempts,
        prompt_tokens=step.prompt_tokens,
        output_tokens=done.output_tokens if done else 0,
        cached_tokens=done.cached_tokens if done else 0,
        finish=done.finish_reason if done else "",
        noise=",".join(live.noise.noises),
        noise_tokens=live.noise.tokens,
    )
