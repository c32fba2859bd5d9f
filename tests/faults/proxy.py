"""toxiproxy between a worker and Kafka, and a Kafka that sends its clients through it."""

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import aiohttp

from deeplens_streams.embedded_kafka.server import KafkaServer
from deeplens_streams.host.ports import free_port
from tests.support.programs import program
from tests.support.system import until


class ProxiedKafka(KafkaServer):
    """Kafka with one more listener, of which it says that it is at the proxy's port."""

    def __init__(self, folder: Path, *, proxy_port: int) -> None:
        super().__init__(folder)
        self.behind_port, self._proxy_port = free_port(), proxy_port

    def _write_configuration(self) -> None:
        super()._write_configuration()
        path = self.folder / "server.properties"
        more = {
            "listeners": f"PROXIED://127.0.0.1:{self.behind_port}",
            "advertised.listeners": f"PROXIED://127.0.0.1:{self._proxy_port}",
            "listener.security.protocol.map": "PROXIED:PLAINTEXT",
        }
        lines = path.read_text("utf-8").splitlines()
        path.write_text(
            "\n".join(
                f"{line},{more[name]}" if (name := line.partition("=")[0]) in more else line
                for line in lines
            ),
            "utf-8",
        )


class Proxy:
    """One proxy of a toxiproxy server."""

    def __init__(self, folder: Path, *, port: int, upstream_port: int) -> None:
        self._folder, self._port, self._upstream = folder, port, upstream_port
        self._control = f"http://127.0.0.1:{free_port()}"
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._spawn()

        async def answers() -> bool:
            try:
                await self._call("GET", "/version")
            except aiohttp.ClientError:
                return False
            return True

        await until(answers, "toxiproxy answers")
        await self._call(
            "POST",
            "/proxies",
            {
                "name": "kafka",
                "listen": f"127.0.0.1:{self._port}",
                "upstream": f"127.0.0.1:{self._upstream}",
            },
        )

    def _spawn(self) -> None:
        binary = program("toxiproxy-server")
        with (self._folder / "toxiproxy.log").open("wb") as log:
            self._process = subprocess.Popen(
                [binary, "-host", "127.0.0.1", "-port", self._control.rpartition(":")[2]],
                stdout=log,
                stderr=log,
            )

    async def add(self, kind: str, **attributes: int) -> None:
        """Add a toxic to what Kafka sends."""
        await self._call(
            "POST", "/proxies/kafka/toxics", {"name": kind, "type": kind, "attributes": attributes}
        )

    async def remove(self, kind: str) -> None:
        await self._call("DELETE", f"/proxies/kafka/toxics/{kind}")

    async def cut(self, seconds: float) -> None:
        await self._call("POST", "/proxies/kafka", {"enabled": False})
        await asyncio.sleep(seconds)
        await self._call("POST", "/proxies/kafka", {"enabled": True})

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        async with (
            aiohttp.ClientSession(raise_for_status=True) as http,
            http.request(method, self._control + path, json=body) as response,
        ):
            await response.read()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
