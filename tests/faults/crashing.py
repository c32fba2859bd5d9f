"""A worker that dies behind a durable write of its own, and is started again.

``python -m tests.faults.crashing FOLDER worker …``: a supervisor imports what a worker is made of
and forks one, as often as it is killed. In `FOLDER` the worker writes down each durable write, and
finds behind which one it is to die.
"""

import asyncio
import ctypes
import json
import os
import shutil
import signal
import sys
import threading
from collections import Counter
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

# What a worker imports when it starts, so that a fork of this process need not.
import rocksdict  # noqa: F401
from aiokafka.protocol.group import LeaveGroupRequest
from faust.cli import worker as _worker  # noqa: F401

from deeplens_streams.audit import settled
from deeplens_streams.broker.admin import admin_client
from deeplens_streams.broker.faust_transport import Consumer
from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.topics import Message
from deeplens_streams.broker.topology import PROGRESS, STATUS, TENANT_CHANGES, group_id
from deeplens_streams.cli import faust_plugin as _under_faust  # noqa: F401
from deeplens_streams.cli.main import main as deeplens
from deeplens_streams.config import Role, Settings, load_settings
from deeplens_streams.ingest import acceptance
from deeplens_streams.ingest.timings import Timings
from deeplens_streams.pipeline import retry
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.blobs.files import NewFile
from deeplens_streams.storage.blobs.local import LocalBlobs
from deeplens_streams.storage.blobs.store import Write
from deeplens_streams.vectors.edge.store import EdgeVectors
from tables.durable import DurableTable

#: Seconds for which an upload that died holds its claim.
PENDING_S = 3.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Point:
    """Where a worker dies: behind the `nth` write of its kind that is of `tenant` or of nobody.

    Attributes
    ----------
    loses_state : whether its state folder is gone with it.
    """

    tenant: str
    what: str
    nth: int
    loses_state: bool = False

    def __str__(self) -> str:
        lost = ", with its state" if self.loses_state else ""
        return f"{self.tenant}: killed behind {self.what} ({self.nth}){lost}"


class Fuse:
    """What test and worker tell each other, in a folder.

    Attributes
    ----------
    armed : the point; removed by the worker that dies at it.
    """

    def __init__(self, folder: Path) -> None:
        self.armed, self.killed = folder / "armed.json", folder / "killed.json"
        self._writes = folder / "writes.tsv"
        self._lock = threading.Lock()
        self._said = b""
        self._seen = 0

    def arm(self, point: Point) -> None:
        new = self.armed.with_suffix(".new")
        new.write_text(json.dumps(asdict(point)))
        new.rename(self.armed)

    def disarm(self) -> None:
        self.armed.unlink(missing_ok=True)

    @property
    def is_armed(self) -> bool:
        return self.armed.exists()

    def size(self) -> int:
        """Return how long the list of writes is, in bytes."""
        return self._writes.stat().st_size if self._writes.exists() else 0

    def writes(self, tenant: str, begin: int) -> list[Point]:
        """Return every write since the list was `begin` long that was of `tenant`, or nobody's."""
        seen: Counter[str] = Counter()
        points = []
        for line in self._writes.read_bytes()[begin:].decode().splitlines():
            owner, what = line.split("\t")
            if owner in {tenant, ""}:
                seen[what] += 1
                points.append(Point(tenant, what, seen[what]))
        return points

    # In the worker ------------------------------------------------------------------------

    def written(self, what: str, tenant: str = "") -> None:
        """Note a durable write, and die if it is the one."""
        with self._lock:
            with self._writes.open("ab", buffering=0) as file:
                file.write(f"{tenant}\t{what}\n".encode())
            try:
                said = self.armed.read_bytes()
            except FileNotFoundError:
                return
            if said != self._said:
                self._said, self._seen = said, 0
            point = Point(**json.loads(said))
            if point.what != what or tenant not in {point.tenant, ""}:
                return
            self._seen += 1
            if self._seen == point.nth:
                self.armed.rename(self.killed)
                os.kill(os.getpid(), signal.SIGKILL)


def _wire(fuse: Fuse) -> None:
    """Have the worker of this process tell `fuse` what it wrote."""
    _wire_storage(fuse)
    _wire_vectors(fuse)
    _wire_kafka(fuse)
    _wire_tables(fuse)


def _wire_storage(fuse: Fuse) -> None:
    place, swap, delete = LocalBlobs._place, LocalBlobs.swap, LocalBlobs.delete

    def written(verb: str, key: str) -> None:
        if key != object_keys.PING_KEY:
            first, _, rest = key.partition("/")
            folder = rest.partition("/")[0]
            is_own = folder in {"original", "thumbnail", "metadata", "checksum", "deleted"}
            kept = is_own or (folder == "failed" and first != object_keys.NOBODY)
            fuse.written(f"storage: {verb} {folder if kept else first}", first if kept else "")

    def _place(self: LocalBlobs, one: Write, new: NewFile) -> None:
        place(self, one, new)
        written("put", one.key)

    async def _swap(self: LocalBlobs, one: Write, *, old: bytes, action: str) -> bool:
        swapped = await swap(self, one, old=old, action=action)
        if swapped:
            written("swap", one.key)
        return swapped

    async def _delete(self: LocalBlobs, key: str, *, action: str) -> None:
        await delete(self, key, action=action)
        written("delete", key)

    LocalBlobs._place = _place  # type: ignore[method-assign, assignment]
    LocalBlobs.swap = _swap  # type: ignore[method-assign, assignment]
    LocalBlobs.delete = _delete  # type: ignore[method-assign]


def _wire_vectors(fuse: Fuse) -> None:
    for verb in ("upsert", "delete", "drop"):
        work = getattr(EdgeVectors, verb)

        async def done(
            self: EdgeVectors, *args: Any, verb: str = verb, work: Any = work, **kwargs: Any
        ) -> Any:
            found = await work(self, *args, **kwargs)
            fuse.written(f"vectors: {verb}", kwargs["tenant"])
            return found

        setattr(EdgeVectors, verb, done)


def _wire_kafka(fuse: Fuse) -> None:
    publish, commit = Publisher.send, Consumer._commit

    async def send(self: Publisher, *messages: Message) -> None:
        # One after the other where it may die between two.
        size = 1 if fuse.is_armed else len(messages)
        for begin in range(0, len(messages), size):
            together = messages[begin : begin + size]
            await publish(self, *together)
            for message in together:
                fuse.written(f"kafka: {_told(message)}", message.event.tenantId)

    async def _commit(self: Consumer, offsets: Any) -> bool:
        committed = await commit(self, offsets)
        if committed:
            role = self.app.conf.id.rpartition("-")[2]
            fuse.written(f"kafka: offsets of {role}")
        return committed

    Publisher.send = send  # type: ignore[method-assign]
    Consumer._commit = _commit  # type: ignore[method-assign, assignment]


def _told(message: Message) -> str:
    """Return the topic, and what is said on one that says several things of a picture."""
    data: Any = getattr(message.event, "data", None)
    said = ""
    if message.is_tombstone:
        said = "nothing any more"
    elif message.topic is PROGRESS:
        said = data.ending or ", ".join(f"{each.step} {each.status}" for each in data.reports)
    elif message.topic is STATUS:
        said = data.status
    elif message.topic is TENANT_CHANGES:
        said = data.kind
    return f"{message.topic.base} {said}".rstrip()


def _wire_tables(fuse: Fuse) -> None:
    keep, drop, settled = (
        DurableTable.__setitem__,
        DurableTable.__delitem__,
        DurableTable.settled,
    )

    def _keep(self: DurableTable, key: bytes, value: Any) -> None:
        keep(self, key, value)
        fuse.written(f"table {self.name}: {getattr(value, 'status', 'row')}", value.tenantId)

    def _drop(self: DurableTable, key: bytes) -> None:
        drop(self, key)
        fuse.written(f"table {self.name}: gone")

    async def _settled(self: DurableTable) -> None:
        changed = not self.is_settled
        await settled(self)
        if changed:
            fuse.written(f"changelog of {self.name}")

    DurableTable.__setitem__ = _keep  # type: ignore[method-assign]
    DurableTable.__delitem__ = _drop  # type: ignore[method-assign]
    DurableTable.settled = _settled  # type: ignore[method-assign]


def _shorten_waits() -> None:
    hasty = partial(Timings, pending_s=PENDING_S)
    acceptance.Timings = hasty  # type: ignore[assignment, attr-defined]
    retry.CLAIM_S = 0.0
    # Nothing is excused because it is young.
    settled.GRACE_S = 0.0


def _leave_groups(settings: Settings) -> None:
    """Take leave of Kafka for a killed worker, whose partitions would wait for it."""
    # Not by `asyncio.run`: the next worker is to find this thread as if none had been here.
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(_leave(settings))
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


async def _leave(settings: Settings) -> None:
    async with admin_client(settings) as admin:
        for role in Role:
            group = group_id(role, settings.namespace)
            coordinator = await admin.find_coordinator(group)
            (answer,) = await admin.describe_consumer_groups([group], coordinator)
            for member, *_ in answer.groups[0][5]:
                request = LeaveGroupRequest(group, member)
                await admin._send_request_to_node(coordinator, request)


def _supervise(fuse: Fuse, arguments: list[str]) -> int:
    """Run workers until one ends by itself, and return its exit code."""
    child = 0

    def pass_on(signum: int, _frame: FrameType | None) -> None:
        if child:
            os.kill(child, signum)

    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, pass_on)
    while True:
        child = os.fork()
        if not child:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            deeplens(arguments)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        if not fuse.killed.exists():
            return code if code >= 0 else 1
        settings = load_settings()
        if json.loads(fuse.killed.read_bytes())["loses_state"]:
            shutil.rmtree(settings.state_path)
        _leave_groups(settings)
        fuse.killed.unlink()


def main() -> None:
    fuse = Fuse(Path(sys.argv[1]))
    _shorten_waits()
    _wire(fuse)
    sys.exit(_supervise(fuse, sys.argv[2:]))


if __name__ == "__main__":
    main()
