"""Pictures with which a decoder crashed or hung, known by their bytes whoever sends them again."""

import hashlib
from collections import OrderedDict

from deeplens_streams.errors import UndecodableImage

#: Once may be somebody else's doing: the machine ran out of memory, or the process was killed.
_TWICE = 2


class PoisonRegistry:
    """Counts against pictures; with which it happened twice, it is undecodable.

    Parameters
    ----------
    room : pictures that are remembered; those that were not seen for longest are forgotten.
    """

    def __init__(self, room: int = 1000) -> None:
        self._room = room
        #: By hash: how often, and what the last one was.
        self._known: OrderedDict[bytes, tuple[int, str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def strike(self, digest: bytes, message: str) -> None:
        """Count one crash or hang that was this picture's; `message` is for a person."""
        times, _ = self._known.get(digest, (0, ""))
        self._known[digest] = (times + 1, message)
        self._known.move_to_end(digest)
        if len(self._known) > self._room:
            self._known.popitem(last=False)

    def clear(self, digest: bytes) -> None:
        """Forget what was counted: the picture was decoded."""
        self._known.pop(digest, None)

    def check(self, digest: bytes) -> None:
        """Raise `UndecodableImage` if it happened twice with this picture."""
        if digest in self._known:
            self._known.move_to_end(digest)
            times, message = self._known[digest]
            if times >= _TWICE:
                raise UndecodableImage(message)


def digest_of(data: bytes) -> bytes:
    """Return what a picture is known by."""
    return hashlib.sha256(data).digest()
