"""Kafka and one worker with every role: started in order, watched, stopped the other way."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from deeplens_streams.cli import worker_log
from deeplens_streams.cli.client import connect
from deeplens_streams.cli.damaged_kafka import KafkaMending
from deeplens_streams.cli.model_choice import Choice, choose
from deeplens_streams.cli.options import default_url
from deeplens_streams.cli.startup_progress import Steps
from deeplens_streams.client import Readiness
from deeplens_streams.config import Settings
from deeplens_streams.embedded_kafka import KafkaServer
from deeplens_streams.embedded_kafka.server import KafkaEnded
from deeplens_streams.errors import ConfigurationError, DeepLensError
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.features.kept_model import keep_model, kept_model
from deeplens_streams.host.guarded_process import GuardedProcess

#: How long the worker may take to commit and close before it is killed.
_WORKER_GRACE_S = 5.0
_POLL_S = 0.1
#: Looks at the readiness before what is still missing is named: a few seconds.
_LOOKS_BEFORE_NAMING = 50


class SystemFailed(DeepLensError):
    """A part of the system ended by itself."""

    code = "SYSTEM_FAILED"


class System:
    """Everything that one machine needs, in child processes that end with this one.

    Parameters
    ----------
    settings : ``broker`` and ``roles`` are replaced by the system's own.
    hold : descriptors that the children's guards keep open until the children have ended.
    """

    def __init__(self, settings: Settings, steps: Steps, *, hold: Sequence[int] = ()) -> None:
        self.settings = settings
        self.url = default_url(settings)
        #: Once `start` has returned.
        self.model: Choice | None = None
        self.logs = settings.data_dir / "logs"
        self.worker_log = self.logs / "worker.log"
        self._steps = steps
        self._hold = hold
        self._kafka = self._new_kafka()
        self._is_ending = False
        self._worker: GuardedProcess | None = None
        self._weights: GuardedProcess | None = None
        self._logged_before = 0

    def _new_kafka(self) -> KafkaServer:
        return KafkaServer(
            self.settings.data_dir / "kafka",
            sync=self.settings.sync,
            progress=self._steps.jars,
            say=self._steps.warn,
            hold=self._hold,
        )

    def _start_kafka(self) -> None:
        """Start Kafka, after mending what is damaged if that is why it ends."""
        mending = KafkaMending(self.settings)
        while True:
            try:
                self._kafka.start()
                return
            except KafkaEnded as error:
                said = None if self._is_ending else mending.mend(error.errors)
                if said is None:
                    left = None if self._is_ending else mending.left()
                    raise KafkaEnded(" ".join(filter(None, (error.message, left)))) from None
                self._steps.warn(said)
                self._kafka = self._new_kafka()
                if self._is_ending:
                    raise

    async def start(self) -> None:
        """Start all parts and return when uploads and searches are answered.

        Raises
        ------
        DeepLensError
            A part cannot start; `stop` still has to follow.
        """
        self._steps.say("starting")
        weights = asyncio.create_task(self._choose_model())
        kafka = asyncio.create_task(asyncio.to_thread(self._kafka.prepare))
        try:
            # The worker loads its model and looks for Kafka while Kafka starts.
            await asyncio.shield(kafka)
            kafka = asyncio.create_task(asyncio.to_thread(self._start_kafka))
            self.model = await weights
            self._start_worker(self.model)
            await self._wait_for(kafka)
        except BaseException:
            # A thread cannot be cancelled: it is told, and waited for.
            self.kill()
            weights.cancel()
            await asyncio.gather(weights, kafka, return_exceptions=True)
            raise
        await self._wait_until_ready()

    async def watch(self) -> None:
        """Return never; raise `SystemFailed` when a part has ended by itself."""
        while True:
            self._check()
            await asyncio.sleep(_POLL_S)

    def stop(self) -> None:
        """Stop all parts, the worker first, and return when they are gone."""
        self._is_ending = True
        for part in (self._weights, self._worker, self._kafka):
            if part is not None:
                part.stop()

    def kill(self) -> None:
        """End all parts at once; `stop` still has to follow."""
        self._is_ending = True
        for part in (self._weights, self._worker, self._kafka):
            if part is not None:
                part.kill()

    async def _choose_model(self) -> Choice:
        """Choose a model whose weights are on this machine, and write down which one it is."""
        settings = self.settings
        choice = await choose(settings, self._fetch_weights)
        if kept_model(settings.data_dir) != choice.name:
            await asyncio.to_thread(keep_model, settings.data_dir, choice.name)
        return choice

    async def _fetch_weights(self, model: ModelSpec) -> str | None:
        """Have a model's weights on this machine; return why not, if they cannot be had."""
        log = self.logs / "weights.log"
        log.unlink(missing_ok=True)
        self._weights = GuardedProcess(
            [sys.executable, "-m", "deeplens_streams.features.weights"],
            log=log,
            env={**os.environ, "DEEPLENS_MODEL": model.name},
            grace_s=1.0,
            hold=self._hold,
        )
        if await asyncio.to_thread(self._weights.wait) == 0:
            return None
        return worker_log.last_words(log) or f"The weights of {model.name} cannot be had."

    def _start_worker(self, model: Choice) -> None:
        worker_log.rotate(self.worker_log)
        self._logged_before = worker_log.size(self.worker_log)
        environment = {
            **os.environ,
            "DEEPLENS_BROKER": f"kafka://{self._kafka.bootstrap}",
            "DEEPLENS_ROLES": "all",
            "DEEPLENS_DATA_DIR": str(self.settings.data_dir),
            "DEEPLENS_WEB_HOST": self.settings.web_host,
            "DEEPLENS_WEB_PORT": str(self.settings.web_port),
            "DEEPLENS_MODEL": model.name,
            "DEEPLENS_WEIGHTS": self.settings.weights,
            "DEEPLENS_LOG_FORMAT": "json",
        }
        self._worker = GuardedProcess(
            [sys.executable, "-m", "faust", "-A", "deeplens_streams", "worker", "-l", "info"],
            log=self.worker_log,
            env=environment,
            grace_s=_WORKER_GRACE_S,
            hold=self._hold,
        )

    async def _wait_for(self, kafka: "asyncio.Task[None]") -> None:
        """Return when Kafka has started; raise if it cannot, or the worker ends meanwhile."""
        while not kafka.done():
            self._check_worker()
            await asyncio.wait([kafka], timeout=_POLL_S)
        kafka.result()

    async def _wait_until_ready(self) -> None:
        looks = 0
        with connect(self.url) as api:
            while True:
                self._check()
                readiness = await asyncio.to_thread(api.readiness)
                if readiness is not None and readiness.success:
                    return
                looks += 1
                if looks % _LOOKS_BEFORE_NAMING == 0:
                    self._steps.say(f"starting ({_missing(readiness)})")
                await asyncio.sleep(_POLL_S)

    def _check(self) -> None:
        self._check_worker()
        if not self._kafka.is_running():
            raise SystemFailed(
                f"Kafka ended: {self._kafka.last_words()} (log: {self._kafka.log_path})"
            )

    def _check_worker(self) -> None:
        if self._worker is not None and self._worker.poll() is not None:
            said = worker_log.last_words(self.worker_log, self._logged_before)
            raise SystemFailed(
                f"The worker ended: {said or 'it said nothing'} (log: {self.worker_log})"
            )


def require_folder(folder: Path) -> None:
    """Make the folder if there is none; raise `ConfigurationError` unless it can be written."""
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigurationError(
            f"The data folder {folder} cannot be written ({(error.strerror or '').lower()}); "
            "choose another with --data-dir."
        ) from None


def _missing(readiness: Readiness | None) -> str:
    """Name what is not ready yet, in the words of the health check."""
    if readiness is None:
        return "it does not answer yet"
    missing = [name for name, check in readiness.checks.items() if not check.ok]
    return f"waiting for {', '.join(missing)}" if missing else "not ready yet"
