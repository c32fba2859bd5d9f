"""Workers and the extraction service as processes, and a client to talk to them."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import aiohttp
import psutil

from deeplens_streams.host.ports import free_port
from tests.support.signals import heeding_ctrl_c

FINAL = {"completed", "partial", "failed", "deleted"}


async def until(
    condition: Callable[[], Awaitable[bool]],
    what: str,
    *,
    seconds: float = 60,
    poll_s: float = 0.05,
) -> None:
    """Poll until `condition` holds; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(poll_s)


class Process:
    """A process of ours with its log in a file."""

    def __init__(self, folder: Path, port: int, args: list[str], env: dict[str, str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.url = f"http://127.0.0.1:{port}"
        self.log_path = folder / "process.log"
        self._args, self._env = args, env
        #: Where another release of the code lies, if it is to run that.
        self.code: Path | None = None
        self.python = sys.executable
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("DEEPLENS_")}
        # What is installed is found after these.
        other = {"PYTHONPATH": str(self.code)} if self.code else {}
        with self.log_path.open("ab") as log, heeding_ctrl_c():
            self.process = subprocess.Popen(
                [self.python, "-m", *self._args],
                env={**clean, **self._env, **other, "PYTHONUNBUFFERED": "1"},
                cwd=self.code,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL, no goodbye."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def rss(self) -> int:
        assert self.process is not None
        return int(psutil.Process(self.process.pid).memory_info().rss)

    async def until_answers(self, path: str, seconds: float = 60) -> None:
        """Wait for 200 from `path`."""
        async with aiohttp.ClientSession() as http:

            async def ready() -> bool:
                if self.process is None or self.process.poll() is not None:
                    raise AssertionError(f"the process ended: {self.log()[-2000:]}")
                try:
                    async with http.get(self.url + path) as response:
                        return response.status == 200
                except aiohttp.ClientError:
                    return False

            await until(
                ready, f"{path} answers; the log ends {self.log()[-1500:]}", seconds=seconds
            )


class Extractor(Process):
    def __init__(self, folder: Path, port: int) -> None:
        env = {"DEEPLENS_EXTRACTOR_PORT": str(port), "DEEPLENS_WEIGHTS": "untrained"}
        super().__init__(folder, port, ["deeplens_streams.cli.main", "extractor"], env)

    async def until_ready(self) -> None:
        await self.until_answers("/health", 120)


class Worker(Process):
    @property
    def state(self) -> Path:
        """Its state folder, which may be removed while it does not run."""
        return Path(self._env["DEEPLENS_STATE_DIR"])

    async def until_ready(self, seconds: float = 60) -> None:
        await self.until_answers("/health/ready", seconds)


class Client:
    """Talks HTTP to one worker."""

    def __init__(self, worker: Process, tenant: str, key: str | None = None) -> None:
        self._worker, self.tenant = worker, tenant
        self.http = aiohttp.ClientSession(
            worker.url,
            connector=aiohttp.TCPConnector(limit=0, force_close=False),
            headers={"X-API-Key": key} if key else None,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.http.close()

    async def post(self, path: str, fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        form = aiohttp.FormData(default_to_multipart=True)
        for name, value in fields.items():
            if isinstance(value, bytes):
                form.add_field(name, value, filename="picture.jpg", content_type="image/jpeg")
            else:
                form.add_field(name, str(value))
        async with self.http.post(path, data=form) as response:
            return response.status, await response.json()

    async def upload(self, picture: bytes, **fields: Any) -> str:
        """Upload, and return the image ID of an answer that must be 202.

        Tests send the same picture often; each time it is another image unless they say so.
        """
        options = {"tenantId": self.tenant, "skipDuplicateCheck": "true", **fields}
        status, answer = await self.post("/api/v1/images/upload", options | {"file": picture})
        assert status == 202, answer
        image_id: str = answer["imageId"]
        return image_id

    async def search(self, **fields: Any) -> list[dict[str, Any]]:
        status, answer = await self.post(
            "/api/v1/images/search", {"tenantId": self.tenant, **fields}
        )
        assert status == 200, answer
        results: list[dict[str, Any]] = answer["results"]
        return results

    async def status(self, image_id: str) -> dict[str, Any]:
        answer = await self._ask_status(image_id)
        assert answer["success"], answer
        return answer

    async def _ask_status(self, image_id: str) -> dict[str, Any]:
        try:
            asked = await self.http.get(f"/api/v1/images/{image_id}/status")
        except aiohttp.ClientConnectorError as error:
            raise AssertionError(f"nobody answers: {self._worker.log()[-5000:]}") from error
        async with asked as response:
            answer: dict[str, Any] = await response.json()
            # While rows move to another worker, clients are told to ask again.
            moving = response.status == 503 and answer["errorCode"] == "ROW_MOVING"
            assert moving or response.status == 200, answer
            return answer

    async def until_final(
        self, image_ids: list[str], seconds: float = 90, poll_s: float = 0.05
    ) -> dict[str, str]:
        """Return each image's final status."""
        found: dict[str, str] = {}

        async def all_final() -> bool:
            for image_id in image_ids:
                if image_id not in found:
                    status = (await self._ask_status(image_id))["status"]
                    if status not in FINAL:
                        return False
                    found[image_id] = status
            return True

        try:
            await until(all_final, "all at their end", seconds=seconds, poll_s=poll_s)
        except AssertionError as error:
            left = [image_id for image_id in image_ids if image_id not in found]
            states = [(await self._ask_status(image_id))["status"] for image_id in left[:10]]
            raise AssertionError(f"{error}; {len(left)} left: {left[:10]} {states}") from error
        return found


class System:
    """The workers of one test."""

    def __init__(self, broker: str, namespace: str, folder: Path, extractor_url: str) -> None:
        self.broker, self.namespace, self.folder = broker, namespace, folder
        self.extractor_url = extractor_url
        self.workers: list[Worker] = []
        self.clients: list[Client] = []

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    def worker(self, name: str = "one", roles: str = "all", **settings: str) -> Worker:
        """Describe a worker with a state folder of its own; images and vectors are shared."""
        port = free_port()
        env = {
            "BROKER": self.broker,
            "NAMESPACE": self.namespace,
            "ROLES": roles,
            "DATA_DIR": str(self.data_dir),
            "STATE_DIR": str(self.folder / f"state-{name}"),
            "WEB_PORT": str(port),
            "WEIGHTS": "untrained",
            "EXTRACTOR_URL": self.extractor_url,
            **settings,
        }
        worker = Worker(
            self.folder / name,
            port,
            ["faust", "-A", "deeplens_streams", "worker", "-l", "info"],
            {f"DEEPLENS_{key}": value for key, value in env.items() if value},
        )
        self.workers.append(worker)
        return worker

    async def started(self, name: str = "one", roles: str = "all", **settings: str) -> Worker:
        worker = self.worker(name, roles, **settings)
        worker.start()
        await worker.until_ready()
        return worker

    def client(self, worker: Worker, tenant: str = "acme-corp", key: str | None = None) -> Client:
        client = Client(worker, tenant, key)
        self.clients.append(client)
        return client

    async def close(self) -> None:
        for client in self.clients:
            await client.http.close()
        await asyncio.gather(*(asyncio.to_thread(worker.stop) for worker in self.workers))
