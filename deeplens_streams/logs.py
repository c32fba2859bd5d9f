"""Structured logs: JSON lines, or text on a terminal, for our own lines and the libraries'."""

import logging.config
import sys
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

import structlog

from deeplens_streams.config import Settings
from deeplens_streams.metrics import LOG_LINES_HELD_BACK

#: Loggers of libraries that say at INFO what only their authors need.
_QUIET = ("aiokafka", "kafka", "faust", "mode", "httpx", "aiohttp.access", "asyncio")


#: Of these, a line like one that was just written says nothing new: the Kafka client writes
#: a hundred a second while no broker answers, and decoders one or more a picture.
_REPEATING = ("aiokafka", "kafka", "faust", "mode", "native")
_SILENCE_S = 300.0
#: What aiohttp raises for requests that are no HTTP, and bodies that are not what they say.
_CLIENTS_FAULTS = frozenset({"aiohttp.http_exceptions", "aiohttp.web_protocol"})
_SEVERAL_LINES = frozenset({"event", "exception", "stack"})


class OnceInAWhile(logging.Filter):
    """Lets a library say the same thing once in five minutes, and how often it did not.

    So that a client cannot fill the log, aiohttp's lines of what clients do wrong are among them.
    """

    def __init__(self) -> None:
        super().__init__()
        #: By logger and text: when it was last let through, and what was held back since.
        self._said: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        library = record.name.partition(".")[0]
        is_clients = library == "aiohttp" and _tell_clients_fault(record)
        is_known = is_clients or library in _REPEATING
        if not is_known or record.levelno >= logging.CRITICAL:
            return True
        key, now = (record.name, str(record.msg)[:200]), time.monotonic()
        at, held_back = self._said.get(key, (-_SILENCE_S, 0))
        if now - at < _SILENCE_S:
            self._said[key] = (at, held_back + 1)
            LOG_LINES_HELD_BACK.labels(library).inc()
            return False
        self._said[key] = (now, 0)
        if held_back:
            record.msg = f"{record.getMessage()} ({held_back} more like it)"
            record.args = ()
        return True


def _tell_clients_fault(record: logging.LogRecord) -> bool:
    """Tell whether a line is of a client's fault, and make it a warning without a stack trace."""
    kind = (record.exc_info or (None,))[0]
    if kind is None or kind.__module__ not in _CLIENTS_FAULTS:
        return False
    record.msg, record.exc_info = f"{record.msg}: {kind.__name__}", None
    record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


def logging_config(settings: Settings) -> dict[str, Any]:
    """Return a `logging.config.dictConfig` for this process; level INFO, on stderr."""
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            # Its own would show each frame's variables: keys, and what clients sent.
            exception_formatter=structlog.dev.plain_traceback,
        )
    )
    final: list[Any] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info,
    ]
    if not as_json:
        final.append(_escape)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [*final, renderer],
                "foreign_pre_chain": [structlog.stdlib.ExtraAdder(), *_shared()],
            }
        },
        "filters": {"once_in_a_while": {"()": OnceInAWhile}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "structured",
                "filters": ["once_in_a_while"],
            }
        },
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {name: {"level": "WARNING"} for name in _QUIET},
    }


def _escape(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Keep what strangers wrote from moving a terminal's cursor or forging a line.

    JSON escapes it anyway. A library's message may have several lines.
    """
    for key, value in line.items():
        if isinstance(value, str) and not value.isprintable():
            kept = "\n\t" if key in _SEVERAL_LINES else ""
            line[key] = escaped(value, kept)
    return line


def escaped(text: str, kept: str = "") -> str:
    """Return a text with what cannot be printed, but for what is `kept`, as escape sequences."""
    return "".join(
        char if char.isprintable() or char in kept else char.encode("unicode_escape").decode()
        for char in text
    )


def _shared() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def configure_structlog() -> None:
    """Send structlog's lines through the standard library's handlers."""
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def configure_logging(settings: Settings) -> None:
    """Set logs up for a process that is not a Faust worker."""
    configure_structlog()
    logging.config.dictConfig(logging_config(settings))
