"""Many uploads at once, each counted for what became of it."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from deeplens_streams.cli.client import connect
from deeplens_streams.cli.upload_history import UploadMemory
from deeplens_streams.client import Missing, NotReachable, NotReady, Refused, Status
from deeplens_streams.client.http import ATTEMPTS
from deeplens_streams.errors import DeepLensError

_POLL_S = 0.5
#: How soon a pause notices that the run ends.
_LOOK_S = 0.1

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file.

    Attributes
    ----------
    result : ``uploaded``, ``duplicate`` (the system had the bytes), ``skipped`` (an earlier
        run uploaded it) or ``failed``.
    """

    path: Path
    result: str
    image_id: str | None = None
    error_code: str | None = None
    message: str | None = None


class _Stopped(Exception):
    """The run ends; whoever waits for a second attempt gives up."""


class UploadRun:
    """Uploads files to one tenant, `parallel` at a time.

    Parameters
    ----------
    memory : knows and keeps what was uploaded; None to send everything.
    """

    def __init__(
        self,
        url: str,
        *,
        tenant: str,
        parallel: int,
        memory: UploadMemory | None,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        self._stop = threading.Event()
        self.api = connect(url, attempts=ATTEMPTS, pause=self._pause)
        self._tenant = tenant
        self._parallel = parallel
        self._memory = memory
        self._fields = fields

    def upload(self, files: Iterable[Path]) -> Iterator[Outcome]:
        """Return each file's outcome when it is known, in no particular order.

        Raises
        ------
        NotReachable
            Nothing answers any more; what was uploaded until then is remembered.
        """
        return self._each(files, self._upload_one)

    def follow(self, image_ids: Iterable[str]) -> Iterator[Status]:
        """Return each picture's last status when it is reached."""
        return self._each(image_ids, self._last_status)

    def close(self) -> None:
        self._stop.set()
        self.api.close()

    def _each(self, items: Iterable[_Item], work: Callable[[_Item], _Result]) -> Iterator[_Result]:
        """Do `work` on each item in threads; no more are begun than can be in hand."""
        remaining = iter(items)
        with ThreadPoolExecutor(self._parallel) as pool:
            pending: set[Future[_Result]] = set()
            try:
                while True:
                    room = 2 * self._parallel - len(pending)
                    pending |= {pool.submit(work, item) for item in islice(remaining, room)}
                    if not pending:
                        return
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    for future in done:
                        yield future.result()
            except BaseException:
                self._stop.set()  # what is on its way is answered and remembered
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def _upload_one(self, path: Path) -> Outcome:
        try:
            known = self._memory.image_of(path) if self._memory else None
            if known is not None and self._exists(known):
                return Outcome(path, "skipped", known)
            answer = self.api.upload(path, tenant=self._tenant, fields=self._fields)
            image_id = answer.image_id
            if self._memory:
                self._memory.remember(path, image_id)
            result = "duplicate" if answer.duplicate_of else "uploaded"
            return Outcome(path, result, image_id)
        except OSError as error:
            return Outcome(path, "failed", None, "UNREADABLE", error.strerror or str(error))
        except NotReachable as error:
            if not isinstance(error, NotReady):
                raise
            return Outcome(path, "failed", None, error.code, error.message)
        except DeepLensError as error:
            code = error.error_code if isinstance(error, Refused) else error.code
            return Outcome(path, "failed", None, code, error.message)

    def _exists(self, image_id: str) -> bool:
        """Tell whether the system still has it; it may have been begun anew."""
        try:
            return self.api.status(image_id).status != "deleted"
        except Missing:
            return False

    def _last_status(self, image_id: str) -> Status:
        while True:
            try:
                status = self.api.status(image_id)
                if status.is_final:
                    return status
            except NotReady:
                pass  # a table that moves is back within seconds
            if self._stop.wait(_POLL_S):
                raise _Stopped

    async def _pause(self, seconds: float) -> None:
        """Wait between two attempts, and no longer than the run goes on."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while (left := until - loop.time()) > 0:
            if self._stop.is_set():
                raise _Stopped
            await asyncio.sleep(min(left, _LOOK_S))


def count(outcomes: Iterable[Outcome]) -> Counter[str]:
    """Return how many files had each result."""
    return Counter(outcome.result for outcome in outcomes)
