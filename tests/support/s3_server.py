"""versitygw, a real S3 server over a folder, and the variables that lead a client to it."""

import os
import socket
import subprocess
import time
from pathlib import Path

from deeplens_streams.host.ports import free_port
from tests.support.certificates import Pair
from tests.support.programs import program

ROOT = Path(__file__).parents[2]
START_S = 20
KEYS = {"ROOT_ACCESS_KEY": "of-the-tests", "ROOT_SECRET_KEY": "secret-of-the-tests"}


class S3Server:
    """A server that can be killed, and started again on the same port and folder.

    What S3 knows of an object beside its bytes is in extended attributes of its file. versitygw's
    other way, a folder beside, is no choice: it shows a new ETag with old bytes for a moment, and
    a conditional write then replaces what nobody has read.
    """

    def __init__(self, folder: Path, *, tls: Pair | None = None) -> None:
        self._log, self._buckets, self._port = folder / "log", folder / "buckets", free_port()
        self._buckets.mkdir(parents=True)
        self._arguments = [program("versitygw"), "--port", f"127.0.0.1:{self._port}"]
        if tls:
            self._arguments += ["--cert", str(tls.certificate), "--key", str(tls.key)]
        self._arguments += ["posix", str(self._buckets)]
        self._process: subprocess.Popen[bytes] | None = None
        self.environment = {
            "AWS_ENDPOINT_URL": f"http{'s' if tls else ''}://127.0.0.1:{self._port}",
            "AWS_ALLOW_HTTP": "false" if tls else "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEYS["ROOT_ACCESS_KEY"],
            "AWS_SECRET_ACCESS_KEY": KEYS["ROOT_SECRET_KEY"],
        }

    def bucket(self, name: str) -> str:
        """Make a bucket and return its URL."""
        (self._buckets / name).mkdir()
        return f"s3://{name}"

    def start(self) -> None:
        """Start it; when this returns, it listens."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments, env=os.environ | KEYS, stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_S
        while not self._listens():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, "the S3 server does not listen"
            time.sleep(0.02)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
