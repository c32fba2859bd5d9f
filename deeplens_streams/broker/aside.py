"""What is on a topic, written to files while the topic is made again.

One folder a topic: a file for each partition, one record a line, and ``manifest.json``, which is
written last: without it, nothing here is whole.
"""

import base64
import heapq
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it was: with its headers, and the time that it was written."""

    partition: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What there was of a topic.

    Attributes
    ----------
    ends : the offset behind the last record, by partition.
    count : of the records that are kept.
    replicas : of each partition.
    overrides : the settings that the topic is to have of its own.
    """

    topic: str
    ends: Mapping[int, int]
    count: int
    replicas: int
    overrides: Mapping[str, str]


class Aside:
    """The folder of one topic."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def manifest(self) -> Manifest | None:
        """Return the manifest; None while not everything is here."""
        try:
            found = json.loads((self.folder / _MANIFEST).read_text())
        except FileNotFoundError:
            return None
        ends = {int(partition): end for partition, end in found["ends"].items()}
        return Manifest(**found | {"ends": ends})

    def begin(self) -> None:
        """Make the folder, without what an earlier run that did not get far has left."""
        # Hashes of keys, names of files: nobody else's business.
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in self.folder.iterdir():
            old.unlink()

    def append(self, partition: int, records: list[Record]) -> None:
        with (self.folder / f"{partition}.jsonl").open("ab") as file:
            for record in records:
                file.write(orjson.dumps(_to_wire(record)) + b"\n")

    def finish(self, manifest: Manifest) -> None:
        """Have all of it on the disk, then the manifest."""
        for path in self.folder.glob("*.jsonl"):
            with path.open("rb") as file:
                os.fsync(file.fileno())
        new = self.folder / "manifest.new"
        with new.open("w") as file:
            json.dump(asdict(manifest), file)
            file.flush()
            os.fsync(file.fileno())
        new.rename(self.folder / _MANIFEST)
        _sync_folder(self.folder)

    def records(self) -> Iterator[Record]:
        """Yield what is kept, by time; those of one partition in the order that they had.

        A key's records may be on two partitions, where it belonged before and after others were
        added.
        """
        files = sorted(self.folder.glob("*.jsonl"), key=lambda path: int(path.stem))
        return heapq.merge(
            *(_read(path, int(path.stem)) for path in files), key=lambda record: record.timestamp
        )

    def close(self) -> Path:
        """Put the folder away as done, and return where it is: it is a copy, if one is wanted."""
        number = 1
        while (done := self.folder.with_name(f"{self.folder.name}.done-{number}")).exists():
            number += 1
        self.folder.rename(done)
        return done


def _read(path: Path, partition: int) -> Iterator[Record]:
    with path.open("rb") as file:
        for line in file:
            yield _from_wire(orjson.loads(line), partition)


def _to_wire(record: Record) -> dict[str, Any]:
    return {
        "t": record.timestamp,
        "k": _text(record.key),
        "v": _text(record.value),
        "h": [[name, _text(value)] for name, value in record.headers],
    }


def _from_wire(found: dict[str, Any], partition: int) -> Record:
    headers = tuple((name, _bytes(value) or b"") for name, value in found["h"])
    return Record(partition, found["t"], _bytes(found["k"]), _bytes(found["v"]), headers)


def _text(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else base64.b64decode(value)


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
