"""Kafka's folder: each partition's segments batch by batch, their checksums, and what lies beside.

A batch is, from its first byte: base offset (8 bytes), length of the rest (4), leader epoch (4),
format (1, which is 2), CRC-32C of all behind it (4), attributes (2), last offset's distance (4).
"""

import asyncio
import contextlib
import re
import struct
from collections.abc import AsyncIterator, Iterator
from io import BufferedReader
from pathlib import Path

import orjson
from aiokafka.record.util import calc_crc32c

from deeplens_streams.data_check.damage import NEXT_START, Damage, Look
from deeplens_streams.embedded_kafka.astray import META, log_dirs

_HEAD = struct.Struct(">qiibIhi")
#: Bytes of a batch that its length does not count.
_UNCOUNTED = 12
#: From where on the checksum counts.
_CRC_FROM = 21
_FORMAT = 2
#: Bytes of a batch that nobody here has written; a length beyond is no length.
_MAX_BATCH = 64 * 1024 * 1024
_SEGMENT = re.compile(r"\d{20}\.log")
#: The folder of one.
PARTITION = re.compile(r".+-\d+")
_ENTRY = {".index": 8, ".timeindex": 12}
_META_LINES = {"version=1", "node.id=1"}
#: Of these Kafka says nothing but that it cannot start; without them it reads its logs anew.
_CHECKPOINTS = (
    "recovery-point-offset-checkpoint",
    "log-start-offset-checkpoint",
    "replication-offset-checkpoint",
    "cleaner-offset-checkpoint",
)
#: Topic, partition, offset; and epoch, offset.
_OFFSET, _EPOCH = re.compile(r"\S+ \d+ -?\d+"), re.compile(r"-?\d+ -?\d+")
_EPOCHS = "leader-epoch-checkpoint"
_BOOTSTRAP = "bootstrap.checkpoint"
#: In each partition's folder, which one it is.
ABOUT = "partition.metadata"
_ABOUT = re.compile(r"version: \d+\s+topic_id: \S{22}\s*")
REMOVE_FILE = "remove this file: Kafka makes it anew"
_ANEW = (
    "remove {kafka} and {state}, start the system, then deeplens audit --repair: storage has all "
    "that was accepted"
)


async def check(look: Look) -> AsyncIterator[Damage]:
    """Yield what is damaged in the Kafka of this machine, if there is one."""
    folder = look.settings.data_dir / "kafka"
    if not folder.is_dir():
        return
    found = walk(look, folder)
    while (damage := await asyncio.to_thread(next, found, None)) is not None:
        yield damage


def walk(look: Look, folder: Path) -> Iterator[Damage]:
    """Yield what is damaged in Kafka's folder, which nobody writes to meanwhile."""
    state = look.name(look.settings.state_path)
    anew = _ANEW.format(kafka=look.name(folder), state=state)
    for name in log_dirs(folder):
        data = folder / name
        if not data.is_dir():
            continue
        if _META_LINES - _lines(data / META):
            detail = "Kafka cannot tell whose folder this is"
            yield _damage(look, data / META, "kafka_meta_damaged", detail, anew)
        if not _is_bootstrap(look, data / _BOOTSTRAP):
            detail = "it does not say which version of Kafka's own records there is"
            path = data / _BOOTSTRAP
            yield _damage(look, path, "kafka_checkpoint_damaged", detail, REMOVE_FILE)
        for checkpoint in _CHECKPOINTS:
            if not _is_checkpoint(data / checkpoint, _OFFSET):
                detail = "it is no checkpoint: Kafka does not start"
                path = data / checkpoint
                yield _damage(look, path, "kafka_checkpoint_damaged", detail, REMOVE_FILE)
        for partition in sorted(data.iterdir()):
            if partition.is_dir() and PARTITION.fullmatch(partition.name):
                yield from _partition(look, partition, anew)


def _lines(path: Path) -> set[str]:
    try:
        return set(path.read_text("latin-1").splitlines())
    except OSError:
        return set()


def _is_checkpoint(path: Path, line: re.Pattern[str]) -> bool:
    """Tell whether a checkpoint is none at all, or one: version, count, and so many lines.

    An empty one is one, too: Kafka makes such, and reads no entry.
    """
    try:
        lines = path.read_text("latin-1").splitlines()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    if not lines:
        return True
    numbers = len(lines) > 1 and lines[0].strip() == "0" and lines[1].strip().isdigit()
    if not numbers or len(lines) != 2 + int(lines[1]):
        return False
    return all(line.fullmatch(each) for each in lines[2:])


def _is_bootstrap(look: Look, path: Path) -> bool:
    """Tell whether what a first start reads is none at all, or whole batches."""
    try:
        with path.open("rb") as file:
            return path.stat().st_size > 0 and _first_wrong(look, file, 0) is None
    except FileNotFoundError:
        return True


def _partition(look: Look, folder: Path, anew: str) -> Iterator[Damage]:
    if not _is_checkpoint(folder / _EPOCHS, _EPOCH):
        detail = "it is no checkpoint"
        path = folder / _EPOCHS
        yield _damage(look, path, "kafka_checkpoint_damaged", detail, REMOVE_FILE)
    if (wrong := _wrong_about(folder)) is not None:
        detail = "it cannot be read: Kafka does not start"
        yield _damage(look, wrong, "kafka_partition_damaged", detail, anew)
    segments = sorted(path for path in folder.iterdir() if _SEGMENT.fullmatch(path.name))
    if not segments:
        detail = "it has no segment: what it held is lost"
        yield _damage(look, folder, "kafka_segment_missing", detail, anew)
    for segment in segments:
        for suffix, size in _ENTRY.items():
            index = segment.with_suffix(suffix)
            if not index.exists() or index.stat().st_size % size:
                detail = "this index is missing or cut short"
                yield _damage(look, index, "kafka_index_damaged", detail, NEXT_START)
        yield from _segment(look, segment, anew, is_last=segment is segments[-1])


def _wrong_about(folder: Path) -> Path | None:
    """Return the file that should say what a partition is, and does not."""
    about, state = folder / ABOUT, folder / "quorum-state"
    with contextlib.suppress(FileNotFoundError):
        if not _ABOUT.fullmatch(about.read_text("latin-1")):
            return about
    try:
        orjson.loads(state.read_bytes())
    except FileNotFoundError:
        pass
    except ValueError:
        return state
    return None


def _segment(look: Look, path: Path, anew: str, *, is_last: bool) -> Iterator[Damage]:
    """Yield the first batch that is not whole; nothing is known of what is behind it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        wrong = _first_wrong(look, file, int(path.stem))
    if wrong is None and _indexed_to(path.with_suffix(".index")) >= size > 0:
        wrong = (size, "its index knows of more")
    if wrong is None:
        return
    at, reason = wrong
    if is_last and reason in _UNFINISHED:
        detail = (
            f"{size - at} of its {size} bytes are behind the last whole batch: a write was cut off"
        )
        mend = f"{NEXT_START}, by cutting it there; then deeplens audit --repair"
        yield _damage(look, path, "kafka_tail_cut", detail, mend)
        return
    detail = f"from byte {at} of {size} on: {reason}"
    yield _damage(look, path, "kafka_log_damaged", detail, anew)


def _indexed_to(index: Path) -> int:
    """Return the last place in a segment that its index names, or -1."""
    try:
        raw = index.read_bytes()
    except OSError:
        return -1
    entries = struct.iter_unpack(">ii", raw[: len(raw) // 8 * 8])
    return max((place for _, place in entries), default=-1)


_CUT = "a batch ends behind the end of the file"
_ZEROS = "zeros, where a batch should be"
#: At the end of the last segment; zeros are the room of a write that the disk has not seen.
_UNFINISHED = {_CUT, f"{_ZEROS}, to the end"}


def _first_wrong(look: Look, file: BufferedReader, base: int) -> tuple[int, str] | None:
    """Return where the first batch is that is not whole, and why, or None."""
    at, expected = 0, base
    while head := file.read(_HEAD.size):
        if len(head) < _HEAD.size:
            return at, _CUT
        offset, length, _, form, crc, _, last = _HEAD.unpack(head)
        if form != _FORMAT or not _HEAD.size - _UNCOUNTED <= length <= _MAX_BATCH:
            return at, "it is no batch" if any(head) else _zeros(file)
        rest = file.read(length + _UNCOUNTED - _HEAD.size)
        if len(head) + len(rest) < length + _UNCOUNTED:
            return at, _CUT
        if calc_crc32c(head[_CRC_FROM:] + rest) != crc:
            return at, "the batch's checksum is another"
        if offset < expected:
            return at, f"offset {offset}, where {expected} or later should be"
        expected = offset + last + 1
        at += length + _UNCOUNTED
        look.looked += 1
    return None


def _zeros(file: BufferedReader) -> str:
    while rest := file.read(1 << 20):
        if any(rest):
            return _ZEROS
    return f"{_ZEROS}, to the end"


def _damage(look: Look, path: Path, kind: str, detail: str, mend: str) -> Damage:
    folder = path if path.is_dir() else path.parent
    return Damage("kafka", look.name(path), kind, detail, mend, subject=folder.name)
