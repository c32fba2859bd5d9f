"""A backup's manifest: size and SHA-256 of every object, in pieces, written when all else is.

::

    .backup/format.json                         that this is a backup
    .backup/manifest.json                       of the last run that finished; replaced at once
    .backup/objects/{sha256}.jsonl.gz           a piece of it, some thousand objects
    .backup/unfinished/{run}/{number}.jsonl     what a run that goes on has copied and removed
    .backup/running.json                        who is at work on it

All else in a backup has the key that it has at its source.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from deeplens_streams import __version__
from deeplens_streams.backup.catalogue import Catalogue, Entry
from deeplens_streams.backup.errors import BackupDamaged, BackupRefused
from deeplens_streams.storage import Blobs
from deeplens_streams.storage.blobs.store import Write

#: What this version writes, and the newest that it reads.
FORMAT = 1
FOLDER = ".backup"
MANIFEST_KEY = f"{FOLDER}/manifest.json"
_PIECES, UNFINISHED = f"{FOLDER}/objects", f"{FOLDER}/unfinished"
_READ = "read a backup's manifest"
_WRITE = "write a backup's manifest"
#: Objects of a piece, on average and at the most.
_PIECE, _PIECE_MAX = 4096, 16_384


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the manifest; `sha256` is of its lines, and its name."""

    sha256: str
    objects: int

    @property
    def key(self) -> str:
        return f"{_PIECES}/{self.sha256}.jsonl.gz"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a run that finished says of itself.

    Attributes
    ----------
    source : where the originals are, a URL; credentials are never part of it.
    objects, bytes : of all that is in the backup.
    thumbnails : whether they were copied.
    """

    run: str
    source: str
    started: str
    finished: str
    objects: int
    bytes: int
    thumbnails: bool
    pieces: list[Piece]
    format: int = FORMAT
    version: str = __version__


@dataclass(slots=True)
class Known:
    """What a backup says of itself.

    Attributes
    ----------
    manifest : of the last run that finished, None where none did.
    unfinished : the run that was cut off, None where none was.
    parts : how many parts it left.
    damaged : keys of pieces and parts that cannot be read.
    """

    manifest: Manifest | None = None
    unfinished: str | None = None
    parts: int = 0
    damaged: list[str] = field(default_factory=list)


async def mark(blobs: Blobs) -> None:
    """Say that a backup is here, before anything of it is."""
    await blobs.put(Write(f"{FOLDER}/format.json", orjson.dumps({"format": FORMAT})), action=_WRITE)


async def load(blobs: Blobs, catalogue: Catalogue) -> Known:
    """Enter all that a backup's manifest, and a run that was cut off, say of its objects.

    Raises
    ------
    BackupRefused
        It is of a version that is newer than this one.
    """
    known = Known()
    raw = await blobs.get(MANIFEST_KEY, action=_READ)
    if raw is not None:
        known.manifest = _read_manifest(raw)
        if known.manifest is None:
            known.damaged.append(MANIFEST_KEY)
    for piece in known.manifest.pieces if known.manifest else ():
        lines = _unpacked(await blobs.get(piece.key, action=_READ), piece)
        if lines is None:
            known.damaged.append(piece.key)
        else:
            catalogue.put(*(Entry(**orjson.loads(line)) for line in lines), seen=False)
    await _load_parts(blobs, catalogue, known)
    return known


def _read_manifest(raw: bytes) -> Manifest | None:
    try:
        said: dict[str, Any] = orjson.loads(raw)
        if said["format"] > FORMAT:
            raise BackupRefused(
                f"This backup has format {said['format']}, written by version {said['version']}; "
                f"this version reads up to {FORMAT}. Use that version, or a newer one."
            )
        return Manifest(**said | {"pieces": [Piece(**each) for each in said["pieces"]]})
    except (ValueError, TypeError, KeyError):
        return None


async def _load_parts(blobs: Blobs, catalogue: Catalogue, known: Known) -> None:
    finished = known.manifest.run if known.manifest else None
    async with aclosing(blobs.walk(f"{UNFINISHED}", action=_READ)) as keys:
        parts = sorted([key async for key in keys])
    for key in parts:
        run, _, name = key.removeprefix(f"{UNFINISHED}/").partition("/")
        if run == finished:  # it was killed while it tidied up
            continue
        known.unfinished, known.parts = run, int(name.removesuffix(".jsonl")) + 1
        try:
            for line in (await blobs.get(key, action=_READ) or b"").splitlines():
                said = orjson.loads(line)
                if said.get("gone"):
                    catalogue.remove(said["key"])
                else:
                    catalogue.put(Entry(**said), seen=False)
        except (ValueError, TypeError, KeyError):
            known.damaged.append(key)


def _unpacked(raw: bytes | None, piece: Piece) -> list[bytes] | None:
    try:
        data = gzip.decompress(raw or b"")
    except (OSError, EOFError, zlib.error):
        return None
    is_whole = hashlib.sha256(data).hexdigest() == piece.sha256
    return data.splitlines() if is_whole else None


async def finish(blobs: Blobs, catalogue: Catalogue, manifest: Manifest, old: Known) -> Manifest:
    """Write the manifest of a run that has come to its end, and tidy up.

    Parameters
    ----------
    manifest : without objects, bytes and pieces.
    old : what was loaded at its beginning.
    """
    there = {piece.sha256 for piece in old.manifest.pieces} if old.manifest else set()
    there -= {key.rpartition("/")[2].partition(".")[0] for key in old.damaged}
    pieces = []
    # 1. pieces, of which those that have not changed are there
    for lines, count in _pieces(catalogue):
        piece = Piece(hashlib.sha256(lines).hexdigest(), count)
        if piece.sha256 not in there:
            packed = gzip.compress(lines, compresslevel=3, mtime=0)
            await blobs.put(Write(piece.key, packed, "application/gzip"), action=_WRITE)
        pieces.append(piece)
    objects, size = catalogue.totals()
    said = asdict(manifest) | {"objects": objects, "bytes": size, "pieces": pieces}
    whole = Manifest(**said)
    # 2. what makes this the backup
    await blobs.put(Write(MANIFEST_KEY, orjson.dumps(asdict(whole))), action=_WRITE)
    # 3. what belongs to earlier runs goes
    used = {piece.key for piece in pieces}
    for folder in (_PIECES, UNFINISHED):
        async with aclosing(blobs.walk(folder, action=_READ)) as keys:
            unused = [key async for key in keys if key not in used]
        for key in unused:
            await blobs.delete(key, action=_WRITE)
    await blobs.prune(UNFINISHED, action=_WRITE)
    return whole


def _pieces(catalogue: Catalogue) -> Iterator[tuple[bytes, int]]:
    """Yield the lines of each piece, and how many they are.

    Where a piece ends is told by a key's own checksum, so that what comes and goes in one changes
    no other: of those the next run writes nothing.
    """
    lines: list[bytes] = []
    for entry in catalogue.entries():
        said = {name: value for name, value in asdict(entry).items() if value is not None}
        lines.append(orjson.dumps({"sha256": None, **said}))
        is_end = zlib.crc32(entry.key.encode()) % _PIECE == 0
        if is_end or len(lines) == _PIECE_MAX:
            yield b"\n".join(lines), len(lines)
            lines = []
    if lines:
        yield b"\n".join(lines), len(lines)


def check_finished(known: Known) -> Manifest:
    """Return the manifest of the last run that finished.

    Raises
    ------
    BackupRefused
        None did.
    BackupDamaged
        It cannot be read.
    """
    if known.manifest is not None:
        return known.manifest
    if MANIFEST_KEY in known.damaged:
        raise BackupDamaged(f"{MANIFEST_KEY} cannot be read; run deeplens backup again.")
    if known.unfinished is not None:
        raise BackupRefused("No run of this backup has finished; run deeplens backup again.")
    raise BackupRefused("There is no backup here; deeplens backup makes one.")
