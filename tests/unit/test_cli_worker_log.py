"""Why a worker ended, in one line, out of its log."""

import json
from pathlib import Path

import pytest

from deeplens_streams.cli import worker_log


def line(level: str, event: str, **more: str) -> str:
    return json.dumps({"level": level, "event": event, **more})


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([line("info", "starting"), "Traceback …", "deeplens: No weights."], "No weights."),
        ([line("error", "it broke", reason="disk"), line("info", "stopped")], "it broke: disk"),
        ([line("warning", "slow"), line("error", "it broke\nTrace"), "x"], "it broke"),
        (["ImportError: torch", ""], "ImportError: torch"),
        (["[1]", line("info", "stopped")], "[1]"),
        ([], None),
    ],
)
def test_the_gravest_line_counts(tmp_path: Path, lines: list[str], said: str | None) -> None:
    log = tmp_path / "worker.log"
    log.write_text("\n".join(lines))

    assert worker_log.last_words(log) == said


def test_earlier_runs_do_not_count(tmp_path: Path) -> None:
    log = tmp_path / "worker.log"
    assert worker_log.size(log) == 0
    log.write_text("deeplens: yesterday's\n")
    before = worker_log.size(log)

    assert worker_log.last_words(log, before) is None
    assert worker_log.last_words(tmp_path / "nothing") is None


def test_a_large_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_log, "_MAX_BYTES", 10)
    log = tmp_path / "worker.log"
    worker_log.rotate(log)
    log.write_text("short")
    worker_log.rotate(log)
    assert log.exists()

    log.write_text("longer than that")
    worker_log.rotate(log)
    assert not log.exists()
    assert (tmp_path / "worker.log.1").read_text() == "longer than that"
