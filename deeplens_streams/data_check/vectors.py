"""Edge's collections: a copy of each is opened by a process of its own, and every point read."""

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from deeplens_streams.data_check.damage import NEXT_START, REPAIR, Damage, Look
from deeplens_streams.vectors.edge.sparse_copy import copy_file, disk_bytes

_CHILD = "deeplens_streams.data_check.vectors_child"
#: What an earlier process left of making, replacing or removing a collection.
_LEFT = (".new", ".copy", ".old", ".gone")
_MEND = f"{REPAIR}: the engine puts this folder aside, and its vectors are made anew"


async def check(look: Look) -> AsyncIterator[Damage]:
    """Yield each collection that cannot be opened or read."""
    if look.settings.qdrant_url is not None:
        look.left_out.append("vectors: they are on a Qdrant server")
        return
    folder = look.settings.vectors_path
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in paths:
        if path.suffix in _LEFT:
            detail = "a process was killed while it made, replaced or removed this collection"
            yield _damage(look, path, "collection_unfinished", detail, NEXT_START)
        elif path.name.endswith("_vectors"):
            wrong = await _wrong(look, path)
            if wrong is not None:
                yield _damage(look, path, "collection_damaged", wrong, _MEND)


async def _wrong(look: Look, path: Path) -> str | None:
    size = _dimension(path)
    if size is None:
        return "its edge_config.json cannot be read"
    with tempfile.TemporaryDirectory(prefix="deeplens-doctor-") as name:
        needed, free = await asyncio.to_thread(disk_bytes, path), shutil.disk_usage(name).free
        if needed > free // 2:
            look.left_out.append(
                f"{look.name(path)}: a copy takes {needed} bytes, more than half of what is free "
                f"in {name}; set TMPDIR"
            )
            return None
        copy = Path(name) / path.name
        await asyncio.to_thread(shutil.copytree, path, copy, copy_function=copy_file)
        return await _read(look, copy, size)


def _dimension(path: Path) -> int | None:
    """Return how long a collection's vectors are, 0 if nothing says so, None if it is no folder."""
    try:
        said = json.loads((path / "edge_config.json").read_bytes())
        return int(said["vectors"][""]["size"])
    except FileNotFoundError:
        return 0  # the engine makes it anew
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def _read(look: Look, copy: Path, size: int) -> str | None:
    """Have a child read a collection: damage may end it."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", _CHILD, str(copy), str(size)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        out, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    try:
        said = json.loads(out)
    except ValueError:
        return f"the engine ended with {child.returncode} when it read this"
    look.looked += said["points"]
    wrong: str | None = said["wrong"]
    return wrong.replace(str(copy), copy.name) if wrong else None


def _damage(look: Look, path: Path, kind: str, detail: str, mend: str) -> Damage:
    return Damage("vectors", look.name(path), kind, detail, mend, subject=path.stem)
