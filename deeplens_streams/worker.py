"""What a worker process starts around its apps: the lock, the topics, the collaborators."""

import asyncio
import fcntl
import os
import time
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast

import faust
import structlog
from mode import Service, ServiceT

from deeplens_streams.config import Settings
from deeplens_streams.errors import BrokerUnavailable, ConfigurationError, DeepLensError
from deeplens_streams.topics import ensure_topics

if TYPE_CHECKING:
    from deeplens_streams.application import RoleApp

log = structlog.get_logger()

#: How long a worker that starts waits for Kafka.
BROKER_PATIENCE_S = 60.0


class Foundation(Service):
    """Started before the apps and stopped after them."""

    def __init__(self, app: "RoleApp", **kwargs: Any) -> None:
        self.app = app
        self._lock: int | None = None
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        settings = self.app.settings
        self._lock = lock_folder(settings.state_path)
        await _topics(settings)
        await self.app.services.start()

    async def on_stop(self) -> None:
        await self.app.services.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @Service.task
    async def _watch_model(self) -> None:
        """Stop the worker with a sentence when the model cannot be had."""
        features = self.app.services.features
        if features is None:
            return
        try:
            await features.ready()
        except DeepLensError as error:
            await self.crash(error)


async def _topics(settings: Settings) -> None:
    """Create the topics, waiting a while for a broker that starts beside us."""
    deadline = time.monotonic() + BROKER_PATIENCE_S
    waiting = False
    while True:
        try:
            return await ensure_topics(settings)
        except BrokerUnavailable as error:
            if time.monotonic() > deadline:
                raise
            if not waiting:
                log.warning("waiting for Kafka", reason=error.message)
                waiting = True
            await asyncio.sleep(1)


def lock_folder(path: Path) -> int:
    """Claim a state folder for this process and return the lock's file descriptor.

    The lock goes with the process, so a stale one cannot be.

    Raises
    ------
    ConfigurationError
        Another process has the folder, or it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(
            f"The state folder {path} cannot be written ({error.strerror}); "
            "set DEEPLENS_STATE_DIR or DEEPLENS_DATA_DIR to a folder that can."
        ) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode() or "another"
        os.close(descriptor)
        raise ConfigurationError(
            f"The state folder {path} is in use by process {holder.strip()}; "
            "give each worker its own DEEPLENS_STATE_DIR."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


class Siblings(Service):
    """The process's other apps, which join their consumer groups all at once."""

    def __init__(self, apps: "Sequence[RoleApp]", **kwargs: Any) -> None:
        self.apps = apps
        super().__init__(**kwargs)

    async def on_start(self) -> None:
        for app in self.apps:
            self.add_future(app.maybe_start())

    async def on_stop(self) -> None:
        await asyncio.gather(*(app.stop() for app in self.apps))


class DeepLensWorker(faust.Worker):
    """Faust's worker, which starts every app of the process."""

    def on_init_dependencies(self) -> Iterable[ServiceT]:
        app = cast("RoleApp", self.app)
        siblings = Siblings(app.process_apps[1:])
        for other in siblings.apps:
            other.finalize()
            other.beacon.reattach(siblings.beacon)
            other.in_worker = True
        feed = [app.feed] if app.feed else []
        return chain([Foundation(app), *feed, siblings], super().on_init_dependencies())

    def execute_from_commandline(self) -> NoReturn:
        try:
            super().execute_from_commandline()
        except DeepLensError as error:
            raise SystemExit(f"deeplens: {error.message}") from None
        raise AssertionError("Faust's worker always exits")
