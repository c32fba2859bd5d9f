"""The opaque text by which a client continues a listing."""

import hashlib
import re
import struct
import uuid
from base64 import urlsafe_b64decode, urlsafe_b64encode

from deeplens_streams.errors import BadRequest
from deeplens_streams.storage.object_keys import MS_LIMIT, read_dated_key

# 8 bytes of epoch ms, 16 of the UUID, 6 of the seal: 30 bytes are 40 characters, no padding.
_SHAPE = re.compile(r"[A-Za-z0-9_-]{40}", re.ASCII)
_PLACE = struct.Struct(">Q16s")
_SEAL_BYTES = 6


def encode_cursor(*, tenant: str, key: str) -> str:
    """Return the cursor that continues after the dated object at `key`."""
    place = read_dated_key(key)
    if place is None:
        raise ValueError(f"{key!r} is no dated key")
    packed = _PLACE.pack(place[0], uuid.UUID(place[1]).bytes)
    return urlsafe_b64encode(packed + _seal(tenant, packed)).decode()


def decode_cursor(*, tenant: str, cursor: str) -> tuple[int, str]:
    """Return (epoch ms, UUID) of the object after which `cursor` continues.

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
            if ms < MS_LIMIT:
                return ms, str(uuid.UUID(bytes=uuid_bytes))
    raise BadRequest("The cursor is none that this listing gave; leave it out to begin again.")


def _seal(tenant: str, packed: bytes) -> bytes:
    return hashlib.blake2s(tenant.encode() + packed, digest_size=_SEAL_BYTES).digest()
