"""Writes that survive a power cut, many at the price of few.

A write does its work in steps and says behind each what has to be on the disk before the next. The
steps of all writes in flight are done together, and then what they ask for is synced together:
each folder once, and where they are many, all of their file system by one call.
"""

from collections import deque
from collections.abc import Callable, Collection, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from deeplens_streams.storage.blobs.disk_sync import sync_file_systems, sync_path

T = TypeVar("T")

#: Work that yields what has to be on the disk before it goes on, and returns what came of it.
Steps = Generator[Collection[Path], None, T]

#: Writes whose steps are done together.
_GROUP = 64
#: Up to so many files and folders are synced one by one, a few at the same time. The one call for
#: all waits for what other programs have written, too, and a lone upload is to wait for itself.
_FEW, _THREADS = 16, 4


@dataclass(slots=True)
class _Write:
    steps: Steps[Any]
    done: Future[Any]
    waits_for: Collection[Path] = ()


class GroupSync:
    """Does the steps of writes in one thread, and syncs between them.

    Parameters
    ----------
    sync : brings one file or folder to the disk.
    sync_all : brings everything on their file systems there; False where it cannot.
    """

    def __init__(
        self,
        sync: Callable[[Path], None] = sync_path,
        sync_all: Callable[[Collection[Path]], bool] = sync_file_systems,
    ) -> None:
        self._sync, self._sync_everything = sync, sync_all
        self._waiting: deque[_Write] = deque()
        self._lock = Lock()
        self._is_working = False
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="storage-write")
        self._syncers = ThreadPoolExecutor(_THREADS, thread_name_prefix="storage-sync")

    def submit(self, steps: Steps[T]) -> "Future[T]":
        """Do `steps`; cancelled before the first, none is done."""
        done: Future[T] = Future()
        with self._lock:
            self._waiting.append(_Write(steps, done))
            begins, self._is_working = not self._is_working, True
        if begins:
            self._worker.submit(self._work)
        return done

    def _work(self) -> None:
        group: list[_Write] = []
        while True:
            with self._lock:
                while self._waiting and len(group) < _GROUP:
                    write = self._waiting.popleft()
                    if write.done.set_running_or_notify_cancel():
                        group.append(write)
                if not group:
                    self._is_working = False
                    return
            group = [write for write in group if _goes_on(write, None)]
            faults = self._sync_all({path for write in group for path in write.waits_for})
            for write in group if faults else ():
                fault = next((faults[path] for path in write.waits_for if path in faults), None)
                if fault is not None:
                    _goes_on(write, fault)
            group = [write for write in group if not write.done.done()]

    def _sync_all(self, paths: Collection[Path]) -> dict[Path, Exception]:
        """Sync all of `paths`; return what went wrong with which."""
        if len(paths) > _FEW and self._sync_everything(paths):
            return {}
        of_all = map if len(paths) == 1 else self._syncers.map
        answers = of_all(self._try, paths)
        return {path: fault for path, fault in zip(paths, answers, strict=True) if fault}

    def _try(self, path: Path) -> Exception | None:
        try:
            self._sync(path)
        except FileNotFoundError:
            return None  # it was removed meanwhile, and so is no longer waited for
        except Exception as error:  # a bug, too, is theirs who wait for it
            return error
        return None


def _goes_on(write: _Write, fault: Exception | None) -> bool:
    """Do a write's next step, or have it fail; False where that was its last."""
    try:
        write.waits_for = write.steps.throw(fault) if fault else next(write.steps)
    except StopIteration as end:
        write.done.set_result(end.value)
    except BaseException as error:  # it belongs to who waits for it
        write.done.set_exception(error)
    else:
        return True
    return False


def at_once(steps: Steps[T]) -> T:
    """Do all steps one after the other, and sync nothing."""
    try:
        while True:
            next(steps)
    except StopIteration as end:
        result: T = end.value
        return result
