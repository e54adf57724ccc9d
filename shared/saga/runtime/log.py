"""Log events with keys: structlog to stderr, JSON lines unless a terminal looks on.

`configure` is called once per process by `saga.runtime.app`; everyone else only asks for `get_logger()`.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import orjson
import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(service: str, *, style: Literal["", "json", "pretty"] = "", level: str = "info") -> None:
    """Sends all log events of this process to stderr, each with `service`. Empty style: by what stderr is."""
    pretty = style == "pretty" or (style == "" and sys.stderr.isatty())

    def name_service(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event.setdefault("service", service)
        return event

    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        name_service,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    factory: Any
    if pretty:
        processors.append(structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty()))
        factory = structlog.PrintLoggerFactory(sys.stderr)
    else:
        processors += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_to_json)]
        factory = structlog.BytesLoggerFactory(sys.stderr.buffer)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )


def get_logger(**keys: object) -> structlog.typing.FilteringBoundLogger:
    """A logger with these keys bound. Cheap; safe to call at import, before `configure`."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger(**keys)
    return logger


def _to_json(event: object, **_options: object) -> bytes:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS)
