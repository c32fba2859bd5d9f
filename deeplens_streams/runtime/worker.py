"""What a worker process starts around its apps: the lock, the topics, the collaborators."""

import asyncio
import gc
import logging.config
import os
import signal
import time
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

import faust
import structlog
from aiokafka.errors import KafkaError
from mode import Service, ServiceT
from yarl import URL

from deeplens_streams import __version__
from deeplens_streams.broker.partition_watch import PartitionWatch
from deeplens_streams.broker.provisioning import ensure_topics
from deeplens_streams.config import Settings
from deeplens_streams.errors import BrokerUnavailable, ConfigurationError, DeepLensError
from deeplens_streams.host.disk_usage import DiskUsage
from deeplens_streams.host.folder_lock import FolderLock
from deeplens_streams.host.ports import LEFT_BEHIND_S, require_port
from deeplens_streams.logs import logging_config
from deeplens_streams.services import Services

if TYPE_CHECKING:
    from deeplens_streams.runtime.apps import RoleApp

log = structlog.get_logger()

#: How long a worker that starts waits for Kafka.
BROKER_PATIENCE_S = 60.0


class Foundation(Service):
    """Started before the apps and stopped after them."""

    def __init__(self, worker: "DeepLensWorker", **kwargs: Any) -> None:
        self.worker = worker
        super().__init__(**kwargs)

    async def on_stop(self) -> None:
        await self.worker.collaborators.close()

    @Service.task
    async def _watch_model(self) -> None:
        """End the worker with a sentence when the model cannot be had."""
        features = self.worker.collaborators.features
        if features is None:
            return
        try:
            await features.ready()
        except DeepLensError as error:
            # Where the worker ends anyway, the model does, too, and is no reason.
            if not (self.should_stop or self.worker.should_stop):
                self.worker.refuse(error.message)


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

    _refusal: str | None = None
    #: What made the worker end, where that was no order: all that fails after it is a consequence.
    _first_cause: BaseException | None = None

    async def start(self) -> None:
        try:
            await super().start()
        except Exception as error:
            self._note_cause(error)
            raise

    def _crash(self, reason: BaseException) -> None:
        self._note_cause(reason)
        super()._crash(reason)

    def _note_cause(self, error: BaseException) -> None:
        if self._first_cause is None and not isinstance(error, asyncio.CancelledError):
            self._first_cause = error

    @property
    def role_app(self) -> "RoleApp":
        return cast("RoleApp", self.app)

    @property
    def collaborators(self) -> Services:
        return self.role_app.services

    def on_init_dependencies(self) -> Iterable[ServiceT]:
        siblings = Siblings(self.role_app.process_apps[1:])
        for other in siblings.apps:
            other.finalize()
            other.beacon.reattach(siblings.beacon)
            other.in_worker = True
        app = self.role_app
        beside: list[ServiceT] = [
            DiskUsage(app.settings),
            *filter(None, (app.feed, app.lag, app.deletions, app.ageing, app.trash, *app.tenants)),
        ]
        beside.append(PartitionWatch(app.settings, self.refuse))
        return chain([Foundation(self), *beside, siblings], super().on_init_dependencies())

    def refuse(self, sentence: str) -> None:
        """Stop as if asked to, then exit with 1 and `sentence`."""
        self._refusal = sentence
        os.kill(os.getpid(), signal.SIGTERM)

    def _say(self, msg: str, file: IO[Any] | None = None, end: str = "\n", **kwargs: Any) -> None:
        """Tell people what Faust does; elsewhere each line is one of the log."""
        if (self.stdout if file is None else file).isatty():
            super()._say(msg, file=file, end=end, **kwargs)

    def execute_from_commandline(self) -> NoReturn:
        settings = self.role_app.settings
        logging.config.dictConfig(logging_config(settings))
        log.info("worker begins", version=__version__, pid=os.getpid(), roles=settings.roles)
        try:
            advice = "give each worker its own DEEPLENS_STATE_DIR"
            with FolderLock(settings.state_path, advice) as lock:
                patience = LEFT_BEHIND_S if lock.was_left_behind else 0.0
                self.loop.run_until_complete(self._prepare(settings, patience))
                _spare_what_stays()
                self._run()
        except DeepLensError as error:
            raise SystemExit(f"deeplens: {error.message}") from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None

    async def _prepare(self, settings: Settings, port_patience_s: float = 0.0) -> None:
        """Do what may be refused, before anything joins a consumer group."""
        self._require_no_other_address(settings)
        require_port(settings, "DEEPLENS_WEB_PORT", patience_s=port_patience_s)
        # First, because loading the model is the longest part of a start.
        await self.collaborators.start()
        try:
            await _topics(settings)
        except DeepLensError:
            await self.collaborators.close()  # so that the reason is the last that is said
            raise

    def _require_no_other_address(self, settings: Settings) -> None:
        """Refuse Faust's options of the web server, which nothing checks."""
        conf = self.role_app.conf
        told = (conf.web_bind, conf.web_port, conf.web_transport.scheme, conf.canonical_url)
        ours = (settings.web_host, settings.web_port, "tcp", URL(settings.canonical_url))
        if told != ours:
            raise ConfigurationError(
                "The web server takes none of --web-bind, --web-port, --web-host and "
                "--web-transport: set DEEPLENS_WEB_HOST, DEEPLENS_WEB_PORT and "
                "DEEPLENS_ADVERTISED_URL instead."
            )

    def _run(self) -> NoReturn:
        try:
            super().execute_from_commandline()
        except SystemExit:
            verdict = self._refusal or (self._first_cause and cause_of_end(self._first_cause))
            if verdict is None:
                raise
        raise SystemExit(f"deeplens: {verdict}")


def _spare_what_stays() -> None:
    """Have the collector never look again at modules and all else that was made so far.

    It stays as long as the process, and a look at all there is holds up every request meanwhile.
    """
    gc.collect()
    gc.freeze()


def cause_of_end(error: BaseException) -> str:
    """Return one sentence of what ended a worker, and what to do."""
    if isinstance(error, DeepLensError):
        return error.message
    said = str(error).partition("\n")[0][:300]
    name = type(error).__name__
    if isinstance(error, KafkaError):
        return (
            f"Kafka refused what the worker cannot do without ({name}: {said}); see the log above."
        )
    if isinstance(error, OSError):
        return f"The system refused what the worker cannot do without ({name}: {said})."
    return (
        f"The worker met an error that nobody foresaw ({name}: {said}) and ended; the log above "
        "has its stack trace. Started again, it goes on where it was."
    )
