"""A library that repeats itself is heard once in a while."""

import logging

import pytest
import structlog

from deeplens_streams import logs
from deeplens_streams.config import load_settings
from deeplens_streams.logs import OnceInAWhile


def line(name: str, text: str, *args: object, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, text, args, None)


def test_a_flood_is_one_line() -> None:
    heard = OnceInAWhile()
    lines = [line("aiokafka.conn", "no connection to %s", number) for number in range(1000)]
    assert sum(heard.filter(each) for each in lines) == 1


def test_what_differs_is_heard() -> None:
    heard = OnceInAWhile()
    assert heard.filter(line("aiokafka.conn", "one"))
    assert heard.filter(line("aiokafka.conn", "two"))
    assert heard.filter(line("faust.app", "one"))


def test_our_own_lines_and_grave_ones_are_always_heard() -> None:
    heard = OnceInAWhile()
    for _ in range(3):
        assert heard.filter(line("deeplens_streams.stage", "one"))
        assert heard.filter(line("faust.app", "one", level=logging.CRITICAL))


def test_after_a_while_it_says_how_often_it_was_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    heard, clock = OnceInAWhile(), [1000.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: clock[0])
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
