"""The opaque text by which a client continues a listing."""

import hashlib
import re
import struct
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode

from deeplens_streams.errors import BadRequest
from deeplens_streams.identifiers import IMAGE_ID_PREFIX
from deeplens_streams.storage.layout import metadata_key, read_metadata_key

# 8 bytes of epoch ms, 16 of the UUID, 6 of the seal: 30 bytes are 40 characters, no padding.
_SHAPE = re.compile(r"[A-Za-z0-9_-]{40}", re.ASCII)
_PLACE = struct.Struct(">Q16s")
_SEAL_BYTES = 6


def encode_cursor(*, tenant: str, key: str) -> str:
    """Return the cursor that continues after the metadata object at `key`."""
    place = read_metadata_key(key)
    if place is None:
        raise ValueError(f"{key!r} is no metadata key")
    packed = _PLACE.pack(place[0], uuid.UUID(place[1]).bytes)
    return urlsafe_b64encode(packed + _seal(tenant, packed)).decode()


def decode_cursor(*, tenant: str, cursor: str) -> str:
    """Return the metadata key after which `cursor` continues.

    The seal tells a cursor that was cut, altered or given to another tenant. It is no secret
    and needs none: a made-up cursor still only reads the asking tenant's own listing.

    Raises
    ------
    BadRequest
        The cursor is none that this tenant was given.
    """
    if _SHAPE.fullmatch(cursor):
        raw = urlsafe_b64decode(cursor)
        packed, seal = raw[: _PLACE.size], raw[_PLACE.size :]
        if seal == _seal(tenant, packed):
            ms, uuid_bytes = _PLACE.unpack(packed)
            image_id = f"{IMAGE_ID_PREFIX}{uuid.UUID(bytes=uuid_bytes)}"
            try:
                return metadata_key(tenant=tenant, image_id=image_id, ms=ms)
            except OverflowError:
                pass
    raise BadRequest("The cursor is none that this listing gave; leave it out to begin again.")


def _seal(tenant: str, packed: bytes) -> bytes:
    return hashlib.blake2s(tenant.encode() + packed, digest_size=_SEAL_BYTES).digest()
