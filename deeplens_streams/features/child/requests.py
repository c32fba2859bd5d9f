"""Pictures that wait for the model's process or are in its hands, and whose doing its end was."""

import asyncio
import itertools
from dataclasses import dataclass

from deeplens_streams.errors import ExtractorUnavailable, UndecodableImage
from deeplens_streams.features.child.ipc import Header
from deeplens_streams.features.child.poison import PoisonRegistry, digest_of
from deeplens_streams.features.remote.errors import PICTURE_ERRORS, ExtractionFailed

_ERRORS = PICTURE_ERRORS | {ExtractorUnavailable.code: ExtractorUnavailable}
_CRASHES = "The picture makes the decoder crash; it is damaged."
_TOO_MUCH = (
    "The picture takes more memory to decode than there is; export it again, or give the process "
    "that decodes more."
)
_HANGS = "The picture keeps the decoder busy without an end; it is damaged."


@dataclass(slots=True, eq=False)
class Request:
    """One picture for the process; `answer` has what the process said of it."""

    number: int
    header: Header
    data: bytes
    answer: asyncio.Future[tuple[Header, bytes]]
    #: Of the bytes, where somebody had to know it.
    digest: bytes | None = None
    sent: bool = False
    #: Nobody waits for it any more; the process may have it in hand all the same.
    left: bool = False
    #: Above 0 the process ended with this picture in hand, and more if it was being decoded.
    suspicion: int = 0


class PendingRequests:
    """All pictures that are not answered yet.

    With which alone the process crashes twice, or which hangs twice, is undecodable, now and when
    it is sent again.
    """

    def __init__(self) -> None:
        self._requests: dict[int, Request] = {}
        self._suspects = PoisonRegistry()
        self._numbers = itertools.count(1)

    async def check(self, data: bytes) -> bytes | None:
        """Return the picture's digest if anybody needs it.

        Raises
        ------
        UndecodableImage
            The process ended of this picture twice.
        """
        if not self._suspects:
            return None
        digest = await asyncio.to_thread(digest_of, data)
        self._suspects.check(digest)
        return digest

    def add(self, header: Header, data: bytes, digest: bytes | None) -> Request:
        number = next(self._numbers)
        answer = asyncio.get_running_loop().create_future()
        request = Request(number, {"id": number, **header}, data, answer, digest)
        self._requests[number] = request
        return request

    def leave(self, request: Request) -> None:
        """Note that nobody waits for its answer any more."""
        request.left = True
        if not request.sent:
            self._drop(request)

    def waiting(self) -> list[Request]:
        """Return what is to be sent, who is suspected most first."""
        unsent = [each for each in self._requests.values() if not each.sent]
        return sorted(unsent, key=lambda each: -each.suspicion)

    def in_hand(self) -> list[Request]:
        """Return what the process has been sent and not answered."""
        return [each for each in self._requests.values() if each.sent]

    def answered(self, header: Header, body: bytes) -> None:
        """Pass on what the process says of a picture."""
        request = self._requests.pop(header["id"], None)
        if request is None:
            return
        if request.digest is not None:
            self._suspects.clear(request.digest)
        if request.left:
            request.answer.cancel()
        elif "error" in header:
            request.answer.set_exception(_error(header))
        else:
            request.answer.set_result((header, body))

    def fail_all(self, message: str) -> None:
        for request in list(self._requests.values()):
            self._fail(request, ExtractorUnavailable(message))

    def process_ended(
        self, *, hung: set[int], decoding: set[int], out_of_memory: bool = False
    ) -> None:
        """Find out whose doing it was, and have the others done again.

        Parameters
        ----------
        hung : numbers of pictures for which the process was ended.
        decoding : numbers of those that it was decoding.
        out_of_memory : whether it ended because it ran out of its memory.
        """
        in_hand = self.in_hand()
        if hung:  # the others were only beside it
            message, culprits = _HANGS, [each for each in in_hand if each.number in hung]
            if len(culprits) > 1:
                # One may have kept the interpreter from the rest: each is tried alone.
                for each in culprits:
                    each.suspicion = 2
                culprits = []
        else:
            message = _TOO_MUCH if out_of_memory else _CRASHES
            culprits = in_hand if len(in_hand) == 1 else []
            for each in in_hand:
                each.suspicion = 2 if each.number in decoding else 1
        for each in in_hand:
            each.sent = False
            if each.left:
                self._drop(each)
        for digest, data in {digest_of(each.data): each.data for each in culprits}.items():
            self._suspects.strike(digest, message)
            self._judge(digest, data)

    def _judge(self, digest: bytes, data: bytes) -> None:
        """Fail every copy of a picture if it is known to be undecodable now."""
        for each in [each for each in self._requests.values() if each.data == data]:
            each.digest = digest
            try:
                self._suspects.check(digest)
            except UndecodableImage as error:
                self._fail(each, error)

    def _fail(self, request: Request, error: Exception) -> None:
        if request.left:
            self._drop(request)
        else:
            del self._requests[request.number]
            request.answer.set_exception(error)

    def _drop(self, request: Request) -> None:
        self._requests.pop(request.number, None)
        request.answer.cancel()


def _error(header: Header) -> Exception:
    known = _ERRORS.get(header["error"])
    if known is not None:
        return known(header["message"])
    failure = ExtractionFailed(header["message"])
    if "trace" in header:
        failure.add_note(f"In the model's process:\n{header['trace']}")
    return failure
