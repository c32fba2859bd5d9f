"""Whether a backup is what its manifest says."""

import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path

from deeplens_streams.backup import manifest
from deeplens_streams.backup.catalogue import Catalogue, Entry
from deeplens_streams.backup.copying import Counts, Finding, Reader, Tell
from deeplens_streams.backup.parallel import each
from deeplens_streams.storage import Blobs

_LATER = "; a later run was cut off and may have changed it, run deeplens backup again"


async def verify(target: Blobs, tell: Tell, counts: Counts) -> manifest.Manifest:
    """Read all of a backup, tell of everything that is missing or damaged; return its manifest.

    Raises
    ------
    BackupRefused, BackupDamaged
        No run of it has finished, or its manifest cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="deeplens-backup-") as name:
        catalogue = Catalogue(Path(name))
        try:
            known = await manifest.load(target, catalogue)
            whole = manifest.check_finished(known)
            check = _Verification(known, Reader(target, Path(name)), tell, counts)
            for key in known.damaged:
                check.found(key, "damaged", "this part of the manifest cannot be read")
            await each(_all(catalogue), check.one)
            return whole
        finally:
            catalogue.close()


async def _all(catalogue: Catalogue) -> AsyncGenerator[Entry]:
    for entry in catalogue.entries():
        yield entry


class _Verification:
    def __init__(self, known: manifest.Known, reader: Reader, tell: Tell, counts: Counts) -> None:
        self._later = _LATER if known.unfinished else ""
        self._reader, self._tell, self._counts = reader, tell, counts

    def found(self, key: str, fault: str, detail: str) -> None:
        self._counts.faults[fault] += 1
        self._tell(Finding(key, fault, detail))

    async def one(self, entry: Entry) -> None:
        self._counts.looked += 1
        async with self._reader.read(entry.key, entry.size) as content:
            if content is None:
                self.found(entry.key, "missing", f"it is not there{self._later}")
                return
            self._counts.bytes += content.size
            if content.size != entry.size:
                detail = f"it has {content.size} bytes and should have {entry.size}"
                self.found(entry.key, "damaged", detail + self._later)
            elif content.sha256 != entry.sha256:
                self.found(entry.key, "damaged", f"its SHA-256 is another{self._later}")
