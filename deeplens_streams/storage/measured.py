"""What a stream of bytes is known by: its size and its checksum."""

import asyncio
import hashlib
from collections.abc import AsyncIterable
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Measured:
    """A stream that was read to its end.

    Attributes
    ----------
    size : bytes.
    sha256 : in hexadecimal digits.
    """

    size: int
    sha256: str


async def measured(chunks: AsyncIterable[bytes], into: BinaryIO | None = None) -> Measured:
    """Read a stream to its end, and return what it is known by.

    Parameters
    ----------
    into : a file that is to have the bytes, too.

    Raises
    ------
    Exception
        What the stream raises, and what the file does.
    """
    size, digest = 0, hashlib.sha256()
    async for chunk in chunks:
        size += len(chunk)
        digest.update(chunk)
        if into is not None:
            await asyncio.to_thread(into.write, chunk)
    return Measured(size, digest.hexdigest())
