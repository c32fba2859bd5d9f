"""The tables' partitions: every row of each is read, from a copy that shares its files."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from rocksdict import AccessType, Options, Rdict

from deeplens_streams.data_check.damage import NEXT_START, Damage, Look

_MEND = f"{NEXT_START}, from the table's changelog in Kafka"


async def check(look: Look) -> AsyncIterator[Damage]:
    """Yield each partition of a table of this state folder that cannot be read whole."""
    for folder in sorted(look.settings.state_path.glob("*/v*/tables/*.db")):
        wrong = await asyncio.to_thread(_wrong, look, folder)
        if wrong is not None:
            subject = folder.name.removesuffix(".db")
            yield Damage("tables", look.name(folder), "table_damaged", wrong, _MEND, subject)


def _wrong(look: Look, folder: Path) -> str | None:
    if not folder.is_dir():
        return "it is no folder"
    tables = {path.name for path in folder.glob("*.sst") if path.stat().st_size}
    with tempfile.TemporaryDirectory(prefix="deeplens-doctor-") as name:
        copy = Path(name) / folder.name
        _share(folder, copy)
        try:
            known = set(_read(look, copy))
        except Exception as error:  # RocksDB's are of no class of their own
            return str(error).replace(f"{copy}/", "").partition("\n")[0][:300]
    unknown = tables - known
    if unknown:
        return f"{', '.join(sorted(unknown))}: no manifest names it, so rows may be missing"
    return None


def _share(folder: Path, copy: Path) -> None:
    """Make a folder in which RocksDB may write: what it changes is copied, the rest is linked."""
    copy.mkdir()
    for path in folder.iterdir():
        if path.suffix == ".sst":
            (copy / path.name).symlink_to(path.absolute())
        elif path.is_file() and path.name != "LOCK" and not path.name.startswith("LOG"):
            shutil.copyfile(path, copy / path.name)


def _read(look: Look, copy: Path) -> Iterator[str]:
    """Read every row, which checks every block, and yield the names of the table files."""
    options = Options(raw_mode=True)
    options.create_if_missing(False)
    options.set_paranoid_checks(True)
    options.set_max_open_files(64)
    database = Rdict(str(copy), options=options, access_type=AccessType.read_only())
    try:
        rows = database.iter()
        rows.seek_to_first()
        while rows.valid():
            look.looked += 1
            rows.next()
        rows.status()  # which raises what ended it
        for each in database.live_files():
            yield Path(each["name"]).name
    finally:
        database.close()
