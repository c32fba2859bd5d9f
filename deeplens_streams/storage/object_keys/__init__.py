"""Where each object lies: the only place that builds or reads a key.

::

    {tenant}/original/{YYYY-MM-DD}/{uuid}.{ext}
    {tenant}/thumbnail/{YYYY-MM-DD}/{uuid}.jpg
    {tenant}/metadata/{YYYY-MM-DD}/{HH-MM}/{epoch ms, 13 digits}-{uuid}.json
    {tenant}/checksum/{first two digits}/{sha256}.json
    {tenant}/deleted/{YYYY-MM-DD}/{HH-MM}/{epoch ms}-{uuid}.json
    {tenant}/failed/{YYYY-MM-DD}/{HH-MM}/{epoch ms}-{letter's uuid}.json
    index/{uuid}
    failed/{letter's uuid}
    purged/{tenant}.json
    .admin/{YYYY-MM-DD}/{HH-MM}/{epoch ms}-{action's uuid}.json
    .deleting/{uuid}.json
    .purging/{tenant}/{epoch ms, 13 digits}/{uuid}
    .trash/{tenant}/{first two digits}/{uuid}/{epoch ms}-{entry's uuid}.json and .bin
    .registry/{tenant}.json

A tenant may be called ``index``, ``failed`` or ``purged``: below a tenant there are only folders
with names, below these only UUIDs or files, so they never meet. Dead letters of nobody, because
they could not be read, lie below ``.nobody``, which no tenant can be called. Days, minutes and
milliseconds have a fixed width, so the metadata keys of a tenant sort by time.
"""

from deeplens_streams.storage.object_keys.admin import (
    ACTIONS,
    REGISTRY,
    action_cursor,
    action_key,
    action_key_of,
    read_registry_key,
    registry_key,
)
from deeplens_streams.storage.object_keys.deletions import (
    DELETING,
    PURGES,
    PURGING,
    deletion_key,
    purge_key,
    purged_folder,
    purged_key,
    purging_folder,
    read_deletion_key,
    read_purge_key,
)
from deeplens_streams.storage.object_keys.folders import check_listed, folders, pointer_to
from deeplens_streams.storage.object_keys.images import (
    EXTENSIONS,
    NO_IMAGE,
    POINTERS,
    DatedKey,
    check_key,
    claim_folder,
    claim_key,
    file_folders,
    is_checksum,
    is_original_key,
    metadata_folder,
    metadata_key,
    original_key,
    pointer_key,
    read_dated,
    read_file_day,
    read_file_key,
    read_image_id,
    read_mark,
    read_pointer_key,
    thumbnail_key,
    tombstone_folder,
    tombstone_key,
)
from deeplens_streams.storage.object_keys.letters import (
    NOBODY,
    letter_folder,
    letter_key,
    letter_pointer_key,
)
from deeplens_streams.storage.object_keys.shapes import (
    MS_LIMIT,
    InvalidObjectKey,
    day_of,
    epoch_ms,
    read_dated_key,
    time_of,
)
from deeplens_streams.storage.object_keys.trash import TRASH, trash_folder

__all__ = [
    "ACTIONS",
    "DELETING",
    "EXTENSIONS",
    "MS_LIMIT",
    "NOBODY",
    "NO_IMAGE",
    "PING_KEY",
    "POINTERS",
    "PURGES",
    "PURGING",
    "REGISTRY",
    "TRASH",
    "DatedKey",
    "InvalidObjectKey",
    "action_cursor",
    "action_key",
    "action_key_of",
    "check_key",
    "check_listed",
    "claim_folder",
    "claim_key",
    "day_of",
    "deletion_key",
    "epoch_ms",
    "file_folders",
    "folders",
    "is_checksum",
    "is_original_key",
    "letter_folder",
    "letter_key",
    "letter_pointer_key",
    "metadata_folder",
    "metadata_key",
    "original_key",
    "pointer_key",
    "pointer_to",
    "purge_key",
    "purged_folder",
    "purged_key",
    "purging_folder",
    "read_dated",
    "read_dated_key",
    "read_deletion_key",
    "read_file_day",
    "read_file_key",
    "read_image_id",
    "read_mark",
    "read_pointer_key",
    "read_purge_key",
    "read_registry_key",
    "registry_key",
    "thumbnail_key",
    "time_of",
    "tombstone_folder",
    "tombstone_key",
    "trash_folder",
]

#: Written by the health check; no tenant can be called that.
PING_KEY = ".ping"
