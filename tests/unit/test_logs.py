"""A library that repeats itself is heard once in a while."""

import logging
import sys
import time

import pytest
import structlog
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.web import RequestPayloadError

from deeplens_streams import logs
from deeplens_streams.config import load_settings
from deeplens_streams.logs import OnceInAWhile


def line(name: str, text: str, *args: object, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, args, None)


def test_a_flood_is_one_line() -> None:
    heard = OnceInAWhile()
    for name in ("aiokafka.conn", "native"):
        lines = [line(name, "no connection to %s", number) for number in range(1000)]
        assert sum(heard.filter(each) for each in lines) == 1


def test_what_differs_is_heard() -> None:
    heard = OnceInAWhile()
    assert heard.filter(line("aiokafka.conn", "one"))
    assert heard.filter(line("aiokafka.conn", "two"))
    assert heard.filter(line("faust.app", "one"))


def test_our_own_lines_and_grave_ones_are_always_heard() -> None:
    heard = OnceInAWhile()
    for _ in range(3):
        assert heard.filter(line("deeplens_streams.pipeline.stage", "one"))
        assert heard.filter(line("faust.app", "one", level=logging.CRITICAL))


def test_after_a_while_it_says_how_often_it_was_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, clock = OnceInAWhile(), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    assert heard.filter(line("mode", "away from %s", "here"))
    assert not heard.filter(line("mode", "away from %s", "here"))
    clock[0] += 301
    late = line("mode", "away from %s", "there")
    assert heard.filter(late)
    assert late.getMessage() == "away from there (1 more like it)"


def test_a_stranger_moves_no_cursor_and_forges_no_line() -> None:
    config = logs.logging_config(load_settings(log_format="text"))
    formatter = structlog.stdlib.ProcessorFormatter(
        processors=config["formatters"]["structured"]["processors"]
    )
    record = logging.makeLogRecord(
        {"msg": {"event": "failed", "path": "/\x1b[2J\nok\u202e"}, "_logger": None, "_name": "info"}
    )
    shown = formatter.format(record)
    assert "\\x1b[2J\\nok\\u202e" in shown.replace("\\\\", "\\")
    assert all(char.isprintable() for char in shown)


def shown(format: str, record: logging.LogRecord) -> str:
    """Return a library's line as a worker writes it."""
    config = logs.logging_config(load_settings(log_format=format))
    options = dict(config["formatters"]["structured"])
    formatter: logging.Formatter = options.pop("()")(**options)
    return formatter.format(record)


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_stack_trace_shows_no_variables(format: str) -> None:
    def fail(headers: dict[str, str]) -> None:
        raise ValueError(f"no such thing: \x1b[2J among {len(headers)}")

    try:
        fail({"X-API-Key": "dlk_" + "secret" * 8})
    except ValueError:
        record = line("deeplens_streams.web", "request failed")
        record.exc_info = sys.exc_info()
    said = shown(format, record)
    assert "in fail" in said
    assert "no such thing" in said
    assert "secretsecret" not in said
    assert "\x1b[2J" not in said


def test_clients_cannot_fill_the_log() -> None:
    def fault(error: Exception, text: str = "Error handling request from %s") -> logging.LogRecord:
        record = line("aiohttp.server", text, "10.0.0.1")
        record.exc_info = (type(error), error, None)
        return record

    heard = OnceInAWhile()
    first = fault(BadHttpMessage("X-API-Key: dlk_secret"))
    assert heard.filter(first)
    assert first.levelno == logging.WARNING
    assert shown("text", first).count("\n") == 0
    assert "Error handling request from 10.0.0.1: BadHttpMessage" in shown("text", first)
    assert "secret" not in shown("text", first)
    assert not heard.filter(fault(BadHttpMessage("another")))
    assert heard.filter(fault(RequestPayloadError("no gzip"), "Unhandled exception"))
    for _ in range(2):
        ours = fault(RuntimeError("a fault of this program"))
        assert heard.filter(ours)
        assert ours.levelno == logging.ERROR
        assert "a fault of this program" in shown("text", ours)
