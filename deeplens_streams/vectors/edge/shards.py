"""Qdrant Edge collections in a folder, of which only so many are open."""

import contextlib
import json
import shutil
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import qdrant_edge as edge

from deeplens_streams.errors import VectorsUnavailable
from deeplens_streams.host import malloc
from deeplens_streams.vectors.collection_ref import TENANT_FIELD
from deeplens_streams.vectors.edge import damage
from deeplens_streams.vectors.filters import TERMS, TIME_FIELD

#: Changed points after which segments are written (10 ms for this many of 2048 numbers). Nothing is
#: lost without it, the write-ahead log has it all, but what it holds is replayed at opening.
FLUSH_EVERY = 256

#: Behind a collection's name: being made; a copy that is being optimized; what such a copy is about
#: to replace; being removed.
_UNFINISHED, _COPY, _OLD, _GONE = ".new", ".copy", ".old", ".gone"
#: What comes of reading a collection's configuration that is missing or damaged.
_NO_SIZE = (FileNotFoundError, ValueError, KeyError, TypeError)


@dataclass(slots=True)
class _Open:
    shard: edge.EdgeShard
    unflushed: int = 0


class ShardCache:
    """Opens, makes, replaces and removes collections. All calls come from one thread.

    Parameters
    ----------
    folder : holds one folder a collection, named like it.
    max_open : each open collection has threads and files of its own.
    """

    def __init__(self, folder: Path, *, max_open: int) -> None:
        self._folder = folder
        self._max_open = max_open
        self._open: OrderedDict[str, _Open] = OrderedDict()  # least recently used first
        self._journals: dict[str, set[str]] = {}
        self.damaged = damage.DamagedCollections(folder)
        #: The one that the present job asked for last, which is the one that it works on.
        self._in_use: str | None = None

    @property
    def open_names(self) -> list[str]:
        return list(self._open)

    def begin_job(self) -> None:
        """Note that no collection was asked for yet: its errors are of no earlier job's."""
        self.leave()

    def leave(self) -> None:
        """Note that what the present job does from here on says nothing of a collection's files."""
        self._in_use = None

    def recover(self) -> None:
        """Finish what a process left that died while it replaced or removed a collection."""
        for path in list(self._folder.glob(f"*{_OLD}")):
            whole = path.with_name(path.name.removesuffix(_OLD))
            if not whole.exists():  # it died between the two renames of `replace`
                copy = self.copy_path(whole.name)
                (copy if copy.exists() else path).rename(whole)
        for suffix in (_UNFINISHED, _COPY, _OLD, _GONE):
            for path in list(self._folder.glob(f"*{suffix}")):
                shutil.rmtree(path)
        self.damaged.forget_old()

    def names(self) -> list[str]:
        """Return the collections that there are, whole ones alone."""
        return [path.name for path in self._folder.glob("*_vectors")]

    def get(self, name: str) -> edge.EdgeShard | None:
        """Return the collection, opened if need be, or None if there is none."""
        self._in_use = name
        if name in self._open:
            self._open.move_to_end(name)
            return self._open[name].shard
        path = self._folder / name
        if not path.is_dir():
            return None
        self._make_room()
        try:
            shard = edge.EdgeShard.load(str(path))
        except BaseException as error:
            if not damage.is_damage(error, loading=True):
                raise
            self.damaged.put_aside(name, error)
            return None
        self._open[name] = _Open(shard)
        return shard

    def failed(self, error: BaseException) -> None:
        """Put the collection aside that a job worked on, if its error says that it is damaged."""
        entry = self._open.get(self._in_use or "")
        if entry is None:
            return
        name = self._in_use
        assert name is not None, "it is open"
        if damage.is_panic(error):
            # It may be a fault of what was asked: whether it is one of the files, they tell.
            self._let_go(name)
            shard = self.get(name)
            if shard is None:
                return
            try:
                shard.scroll(edge.ScrollRequest(limit=1, with_payload=True, with_vector=True))
            except BaseException as again:
                error = again
            else:
                return
        elif not damage.is_damage(error, loading=False):
            return
        self._let_go(name)
        self.damaged.put_aside(name, error)

    def dimension(self, name: str) -> int | None:
        """Return how many numbers the collection's vectors have, or None if there is none."""
        path = self._folder / name
        if not path.is_dir():
            return None
        try:
            return _size_in(path)
        except _NO_SIZE:
            # Edge writes a missing one anew, and does not open a collection with a damaged one.
            if self.get(name) is None:
                return None
        try:
            return _size_in(path)
        except _NO_SIZE as error:  # damaged while it is open
            unavailable = VectorsUnavailable()
            unavailable.ambiguous = True
            raise unavailable from error

    def create(self, name: str, *, dimension: int, shared: bool) -> edge.EdgeShard:
        """Make the collection and return it."""
        unfinished = self._folder / f"{name}{_UNFINISHED}"
        if unfinished.exists():
            shutil.rmtree(unfinished)  # it could not be finished the last time
        # A collection is made aside and renamed, so that there is all of it or none.
        shard = edge.EdgeShard.create(
            str(unfinished),
            edge.EdgeConfig(vectors=_vectors(dimension, shared=shared), max_search_threads=1),
        )
        # At 10,000 points a filtered search takes 5 ms with these and 40 without.
        indexes: dict[str, edge.PayloadSchemaType | edge.KeywordIndexParams] = {
            TERMS: edge.PayloadSchemaType.Keyword,
            TIME_FIELD: edge.PayloadSchemaType.Datetime,
        }
        if shared:
            indexes[TENANT_FIELD] = edge.KeywordIndexParams(is_tenant=True)
        for field, schema in indexes.items():
            shard.update(edge.UpdateOperation.create_field_index(field, schema))
        shard.flush()
        shard.close()
        unfinished.rename(self._folder / name)
        made = self.get(name)
        assert made is not None
        return made

    def changed(self, name: str, points: Collection[str]) -> None:
        """Note that points of an open collection changed."""
        if name in self._journals:
            self._journals[name].update(points)
        entry = self._open[name]
        entry.unflushed += len(points)
        if entry.unflushed >= FLUSH_EVERY:
            entry.shard.flush()
            entry.unflushed = 0
            # A vector is freed as a message, as a list and as a point, by other threads than those
            # that made it: that was 15 MB and more of 95.
            malloc.trim()

    def drop(self, name: str) -> None:
        """Remove the collection, all at once for who comes later."""
        self._let_go(name)
        gone = self._folder / f"{name}{_GONE}"
        (self._folder / name).rename(gone)
        shutil.rmtree(gone)

    # What an optimization needs -------------------------------------------------------------

    def copy_path(self, name: str) -> Path:
        """Return where a copy of the collection is, if there is one."""
        return self._folder / f"{name}{_COPY}"

    def begin_journal(self, name: str) -> set[str]:
        """Return a set that gets the IDs of all points that change from now on."""
        return self._journals.setdefault(name, set())

    def end_journal(self, name: str) -> None:
        self._journals.pop(name, None)

    def replace(self, name: str) -> None:
        """Put the copy in the collection's place."""
        self._close(name)
        old = self._folder / f"{name}{_OLD}"
        # 1. out of the way, 2. the copy instead; `recover` finishes what stops between them
        (self._folder / name).rename(old)
        self.copy_path(name).rename(self._folder / name)
        shutil.rmtree(old)

    # Closing --------------------------------------------------------------------------------

    def close_all(self) -> None:
        for name in self.open_names:
            self._close(name)

    def _make_room(self) -> None:
        while len(self._open) >= self._max_open:
            self._close(next(iter(self._open)))

    def _let_go(self, name: str) -> None:
        """Close a collection whose files do not matter any more."""
        with contextlib.suppress(BaseException):
            self._close(name)

    def _close(self, name: str) -> None:
        entry = self._open.pop(name, None)
        if entry is None:
            return
        try:
            entry.shard.flush()
        finally:
            entry.shard.close()


def _size_in(path: Path) -> int:
    size: int = json.loads((path / "edge_config.json").read_bytes())["vectors"][""]["size"]
    return size


def _vectors(dimension: int, *, shared: bool) -> edge.EdgeVectorParams:
    """Return how vectors are kept: one graph for all, or one for each tenant that is large."""
    per_tenant = edge.HnswIndexConfig(
        m=0, payload_m=16, ef_construct=100, full_scan_threshold=10_000
    )
    return edge.EdgeVectorParams(
        size=dimension,
        distance=edge.Distance.Cosine,
        hnsw_config=per_tenant if shared else None,
    )
