"""A data folder with ``deeplens up`` on it, and what people run beside that."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson

from deeplens_streams.host.ports import free_port
from tests.support.system import FINAL

OPERATOR = "operator-" + "z" * 40
DEEPLENS = [sys.executable, "-m", "deeplens_streams.cli.main"]


def until(condition: Callable[[], object], what: str, *, seconds: float = 240) -> None:
    """Poll until `condition` holds; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Said:
    """What a command left: its exit code, and both of its outputs."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.out.splitlines()]


@dataclass
class Home:
    """A data folder, and the processes on it.

    Attributes
    ----------
    keys : by tenant, its API key.
    """

    folder: Path
    extractor_url: str
    keys: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data = self.folder / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._printed = self.folder / "printed.txt"
        self._process: subprocess.Popen[bytes] | None = None

    def _environment(self) -> dict[str, str]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("DEEPLENS_")}
        return clean | {
            "DEEPLENS_ADMIN_KEY": OPERATOR,
            "DEEPLENS_API_KEY": OPERATOR,
            "DEEPLENS_URL": self.url,
            "DEEPLENS_DATA_DIR": str(self.data),
            "DEEPLENS_EXTRACTOR_URL": self.extractor_url,
            "DEEPLENS_WEIGHTS": "untrained",
        }

    # The system -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it and return when it is ready."""
        with self._printed.open("ab") as out:
            self._process = subprocess.Popen(
                [*DEEPLENS, "up", "--no-demo", "--with-parent", "--port", str(self.port)],
                env=self._environment(),
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        until(self._is_ready, "it is ready", seconds=300)

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"it ended: {self.words()[-3000:]}")
        try:
            return httpx.get(f"{self.url}/health/ready").status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def words(self) -> str:
        """Return what it and its worker have said so far."""
        logs = [self._printed, *sorted((self.data / "logs").glob("worker.log*"))]
        return "\n".join(each.read_text(errors="replace") for each in logs if each.exists())

    def run(self, *arguments: str) -> Said:
        """Run a command beside it, or without it."""
        done = subprocess.run(
            [*DEEPLENS, *arguments],
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    # What clients do --------------------------------------------------------------------------

    def ask(self, method: str, path: str, key: str, **more: Any) -> tuple[int, dict[str, Any]]:
        answer = httpx.request(
            method, f"{self.url}/api/v1/{path}", headers={"X-API-Key": key}, timeout=30, **more
        )
        return answer.status_code, answer.json()

    def make_tenant(self, tenant: str) -> None:
        status, answer = self.ask("POST", "admin/tenants", OPERATOR, json={"tenantId": tenant})
        assert status == 201, answer
        self.keys[tenant] = answer["apiKey"]

    def upload(self, tenant: str, picture: bytes) -> str:
        file = {"file": ("picture.jpg", io.BytesIO(picture), "image/jpeg")}
        status, answer = self.ask("POST", "images/upload", self.keys[tenant], files=file)
        assert status == 202, answer
        image_id: str = answer["imageId"]
        return image_id

    def delete(self, tenant: str, image_id: str) -> None:
        def is_gone() -> bool:
            status, answer = self.ask("DELETE", f"images/{image_id}", self.keys[tenant])
            assert status in (200, 202), answer
            return status == 200

        until(is_gone, f"nothing is left of {image_id}")

    def status(self, tenant: str, image_id: str) -> str:
        """Return an image's status, or the code of the error."""
        _, answer = self.ask("GET", f"images/{image_id}/status", self.keys[tenant])
        return str(answer.get("errorCode") if not answer["success"] else answer["status"])

    def until_final(self, images: dict[str, str], *, seconds: float = 240) -> dict[str, str]:
        """Return the final status of each image (ID to tenant)."""
        found: dict[str, str] = {}

        def all_final() -> bool:
            for image_id, tenant in images.items():
                if image_id not in found:
                    said = self.status(tenant, image_id)
                    if said not in FINAL:
                        return False
                    found[image_id] = said
            return True

        try:
            until(all_final, "all images are at their end", seconds=seconds)
        except AssertionError as error:
            left = {i: self.status(t, i) for i, t in images.items() if i not in found}
            raise AssertionError(f"{error}: {left}; {self.words()[-3000:]}") from error
        return found

    def finds(self, tenant: str, picture: bytes) -> list[str]:
        """Return the images that are just like a picture."""
        status, answer = self.ask(
            "POST",
            "images/search",
            self.keys[tenant],
            files={"queryImage": ("query.jpg", io.BytesIO(picture), "image/jpeg")},
            data={"threshold": "0.99", "limit": "5"},
        )
        assert status == 200, answer
        return [each["imageId"] for each in answer["results"]]

    def audit(self, *, repair: bool = False) -> tuple[int, list[dict[str, Any]]]:
        """Return the exit code of an audit, and its lines."""
        said = self.run("audit", "--json", *(["--repair"] if repair else []))
        assert said.code in (0, 1), said
        assert said.lines[-1]["type"] == "total", said
        return said.code, said.lines
