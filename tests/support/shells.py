"""Commands against a server in this process."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog.testing

from deeplens_streams.cli.main import main
from tests.support.web_server import Web, running

NOBODY = "img_00000000-0000-4000-8000-000000000000"


class Ended(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """Runs ``deeplens`` in this process, on a thread, against one system."""

    def __init__(self, url: str, capture: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self._capture = capture

    async def __call__(self, *arguments: object) -> Ended:
        self._capture.readouterr()
        code = await asyncio.to_thread(_exit_code, [str(each) for each in arguments])
        out, err = self._capture.readouterr()
        assert "Traceback" not in err
        return Ended(code, out, err)


def _exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    # The system's own log lines are not the command's.
    with structlog.testing.capture_logs():
        async with running(tmp_path / "data") as found:
            yield found


@pytest.fixture
def shell(
    web: Web, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    url = str(web.client.make_url("/"))
    monkeypatch.setenv("DEEPLENS_URL", url)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Shell(url, capsys)
