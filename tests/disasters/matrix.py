"""The disaster matrix: what can happen to which part, and what is said of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.disasters.damage import Damage, files_below

LOST, EMPTIED, CUT, OLDER = Damage.LOST, Damage.EMPTIED, Damage.CUT, Damage.OLDER


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a data folder.

    Attributes
    ----------
    name : as the documents call it.
    paths : below the data folder; a star stands for each tenant.
    said : by damage, a fault that an audit names, or words of the log or of ``deeplens up``. Where
        there are none, nothing has to be said.
    one : only one file of each, as a bad block leaves it.
    holds_originals : whether originals go with it, which only a backup brings back.
    """

    name: str
    paths: tuple[str, ...]
    said: Mapping[Damage, str] = field(default_factory=dict)
    one: bool = False
    holds_originals: bool = False

    def files(self, data: Path) -> list[str]:
        """Return what is damaged, relative to `data`."""
        found = [path for pattern in self.paths for path in sorted(data.glob(pattern))]
        if self.one:
            found = [file for path in found for file in sorted(files_below(path))[:1]]
        return [str(path.relative_to(data)) for path in found]


def _says(missing: str | None, damaged: str) -> dict[Damage, str]:
    """Return what is said where a part is missing, or some of it, and where it is damaged."""
    said = {EMPTIED: damaged, CUT: damaged}
    return said if missing is None else said | {LOST: missing, OLDER: missing}


_POINTER = _says("pointer_missing", "pointer_damaged")
_METADATA = _says("metadata_missing", "metadata_damaged")
_ORIGINAL = _says("original_missing", "original_damaged")
_THUMBNAIL = _says("thumbnail_missing", "thumbnail_damaged")
_CLAIM = _says("claim_missing", "claim_orphaned")
#: The one may be that of an image that failed, which needs none.
_ONE_CLAIM = _says(None, "claim_orphaned")
_TOMBSTONE = _says(None, "metadata_damaged")
_LETTER = _says("letter_missing", "letter_damaged")

PARTS = (
    Part("Kafka's folder", ("kafka",), _says("stuck", "Kafka's data is damaged")),
    Part("table folders", ("state",), _says(None, "is read from Kafka again")),
    Part("vectors", ("vectors",), _says("vector_missing", "collection_damaged")),
    Part("storage", ("images",), _METADATA, holds_originals=True),
    Part("pointers", ("images/index",), _POINTER),
    Part("metadata objects", ("images/*-corp/metadata",), _METADATA),
    Part("originals", ("images/*-corp/original",), _ORIGINAL, holds_originals=True),
    Part("thumbnails", ("images/*-corp/thumbnail",), _THUMBNAIL),
    Part("duplicate claims", ("images/*-corp/checksum",), _CLAIM),
    Part("tombstones", ("images/*-corp/deleted",), _TOMBSTONE),
    Part("dead letters", ("images/*-corp/failed", "images/failed"), _LETTER),
    Part("the registry's objects", ("images/.registry",)),
    Part("one pointer", ("images/index",), _POINTER, one=True),
    Part("one metadata object", ("images/*-corp/metadata",), _METADATA, one=True),
    Part("one original", ("images/*-corp/original",), _ORIGINAL, one=True, holds_originals=True),
    Part("one thumbnail", ("images/*-corp/thumbnail",), _THUMBNAIL, one=True),
    Part("one claim", ("images/*-corp/checksum",), _ONE_CLAIM, one=True),
    Part("one tombstone", ("images/*-corp/deleted",), _TOMBSTONE, one=True),
    Part("one dead letter", ("images/*-corp/failed",), _LETTER, one=True),
    Part("one object of the registry", ("images/.registry",), one=True),
    Part("one table file", ("state/api/**/*.sst",), one=True),
    Part("one file of Kafka's log", ("kafka/data/deeplens.images.progress-*/*.log",), one=True),
    Part("one vector file", ("vectors/*",), one=True),
)

#: Each part in each way. Of single files none is older: objects are written once, and never change.
CELLS = [
    (part, damage) for part in PARTS for damage in Damage if not (part.one and damage is OLDER)
]

#: What is tried each time, as each part and each way is.
SAMPLE = {
    ("Kafka's folder", LOST),
    ("Kafka's folder", CUT),
    ("table folders", EMPTIED),
    ("vectors", CUT),
    ("storage", OLDER),
    ("pointers", LOST),
    ("metadata objects", EMPTIED),
    ("originals", CUT),
    ("tombstones", EMPTIED),
    ("dead letters", LOST),
}
