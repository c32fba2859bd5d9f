"""What a run has done so far, kept in the backup itself, so that the next one goes on there."""

import asyncio
import os
import socket
import time
from dataclasses import asdict
from typing import Any

import orjson

from deeplens_streams.backup.catalogue import Entry
from deeplens_streams.backup.errors import BackupRefused
from deeplens_streams.backup.manifest import FOLDER, UNFINISHED
from deeplens_streams.storage import Blobs
from deeplens_streams.storage.blobs.store import AlreadyThere, Write

_RUNNING_KEY = f"{FOLDER}/running.json"
_ACTION = "note how far a backup is"
#: Lines of a part, at the most, and seconds between two.
_LINES, _EVERY_S = 500, 5.0
#: Seconds after which a run on another machine is taken to be dead, and between two of its signs.
_DEAD_S, _SIGN_S = 180.0, 30.0


class Journal:
    """Of one run. What is noted has been done."""

    def __init__(self, blobs: Blobs, run_id: str, number: int) -> None:
        self._blobs, self._folder, self._number = blobs, f"{UNFINISHED}/{run_id}", number
        self._lines: list[bytes] = []
        self._written = time.monotonic()
        self._turn = asyncio.Lock()

    async def note(self, entry: Entry) -> None:
        await self._add(asdict(entry))

    async def note_gone(self, key: str) -> None:
        await self._add({"key": key, "gone": True})

    async def _add(self, said: dict[str, Any]) -> None:
        self._lines.append(orjson.dumps(said))
        if len(self._lines) >= _LINES or time.monotonic() - self._written > _EVERY_S:
            await self.flush()

    async def begin(self) -> None:
        """Say that there is a run: what it does may be done before it is noted."""
        await self._write([])

    async def flush(self) -> None:
        async with self._turn:
            lines, self._lines = self._lines, []
            self._written = time.monotonic()
            if lines:
                await self._write(lines)

    async def _write(self, lines: list[bytes]) -> None:
        key = f"{self._folder}/{self._number:08}.jsonl"
        self._number += 1
        write = Write(key, b"\n".join(lines), "application/x-ndjson")
        await self._blobs.put(write, action=_ACTION)


class Lease:
    """That one run at a time works on a backup."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._said = b""
        self._at = 0.0

    async def take(self) -> None:
        """Take it, from a run that is dead, too.

        Raises
        ------
        BackupRefused
            Another run is at work.
        """
        said = self._sign()
        write = Write(_RUNNING_KEY, said, if_absent=True)
        try:
            await self._blobs.put(write, action=_ACTION)
        except AlreadyThere:
            old = await self._blobs.get(_RUNNING_KEY, action=_ACTION) or b""
            if not _is_dead(old) or not await self._swap(said, old):
                raise BackupRefused(
                    "Another deeplens backup is at work here; wait until it has ended."
                ) from None
        self._said = said

    async def renew(self) -> None:
        """Say that this run is alive, now and then."""
        if time.monotonic() - self._at > _SIGN_S:
            said = self._sign()
            if not await self._swap(said, self._said):
                raise BackupRefused("Another deeplens backup has taken this one's place.")
            self._said = said

    async def release(self) -> None:
        if await self._blobs.get(_RUNNING_KEY, action=_ACTION) == self._said:
            await self._blobs.delete(_RUNNING_KEY, action=_ACTION)

    async def _swap(self, said: bytes, old: bytes) -> bool:
        write = Write(_RUNNING_KEY, said)
        return await self._blobs.swap(write, old=old, action=_ACTION)

    def _sign(self) -> bytes:
        self._at = time.monotonic()
        return orjson.dumps({"host": socket.gethostname(), "pid": os.getpid(), "at": time.time()})


def _is_dead(raw: bytes) -> bool:
    """Tell whether who wrote this cannot be at work any more."""
    try:
        said = orjson.loads(raw)
        is_ours, pid, at = said["host"] == socket.gethostname(), int(said["pid"]), float(said["at"])
    except (ValueError, KeyError, TypeError):
        return True
    if is_ours and pid != os.getpid():
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
    return time.time() - at > _DEAD_S
