"""``deeplens up``: the whole system on this machine, until Ctrl-C."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import click

from deeplens_streams.cli import console
from deeplens_streams.cli.demo import TENANT, Demo
from deeplens_streams.cli.local_system import System, require_folder
from deeplens_streams.cli.startup_progress import Steps
from deeplens_streams.config import Settings, load_settings
from deeplens_streams.errors import ConfigurationError, DeepLensError
from deeplens_streams.host.folder_lock import FolderLock
from deeplens_streams.host.ports import LEFT_BEHIND_S, require_port

_PARENT_POLL_S = 0.5


@click.command()
@click.option("--no-demo", is_flag=True, help="Leave a new data folder empty.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Default: DEEPLENS_WEB_PORT, else 8080."
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Keeps everything. Default: DEEPLENS_DATA_DIR, else var.",
)
@click.option("--with-parent", is_flag=True, hidden=True, help="Stop when the parent is gone.")
def up(*, no_demo: bool, port: int | None, data_dir: Path | None, with_parent: bool) -> None:
    """Start Kafka and a worker with every role on this machine.

    On a new data folder it also ingests a dozen sample pictures for the tenant demo and
    searches once. Ctrl-C stops everything (exit code 0), a second one at once; nothing stays
    behind, even when this command is killed.
    """
    given = {"web_port": port, "data_dir": data_dir}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    for name in sorted(settings.model_fields_set):
        if name == "broker" or name.startswith("kafka_"):
            raise ConfigurationError(
                f"DEEPLENS_{name.upper()} is set and deeplens up starts a Kafka of its own; "
                "unset it, or run deeplens worker."
            )
    console.quiet_clients()
    require_folder(settings.data_dir)
    with FolderLock(settings.data_dir, say=_say_waiting) as lock:
        patience = LEFT_BEHIND_S if lock.was_left_behind else 0.0
        require_port(settings, "--port", patience_s=patience)
        asyncio.run(_run(settings, demo=not no_demo, with_parent=with_parent, lock=lock.fileno()))


async def _run(settings: Settings, *, demo: bool, with_parent: bool, lock: int) -> None:
    is_new = not (settings.data_dir / "kafka").exists()
    steps = Steps(console.err())
    system = System(settings, steps, hold=[lock])
    main = asyncio.create_task(_start_and_watch(system, steps, demo=demo and is_new))
    parent = asyncio.create_task(_parent_gone()) if with_parent else None
    signals = _StopSignals(main, hurry=system.kill)
    if parent is not None:
        parent.add_done_callback(lambda _: signals.stop())
    try:
        with contextlib.suppress(asyncio.CancelledError):  # it is how a signal ends it
            await main
    finally:
        if parent is not None:
            parent.cancel()
        with steps:
            steps.say("stopping")
            await asyncio.to_thread(system.stop)
        signals.restore()


async def _start_and_watch(system: System, steps: Steps, *, demo: bool) -> None:
    with steps:
        await system.start()
    _say_where(system)
    watch = asyncio.create_task(system.watch())
    try:
        if demo:
            await _demonstrate(system, watch)
        await watch
    finally:
        watch.cancel()


async def _demonstrate(system: System, watch: "asyncio.Task[None]") -> None:
    """Run the demonstration; what fails in it is said, and the system stays up."""
    demo = Demo(system.url, console.out())
    thread = asyncio.create_task(asyncio.to_thread(demo))
    try:
        await asyncio.wait([thread, watch], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped = not thread.done()
        if stopped:
            demo.stop()
        # Once stopped, what else it says is of no interest.
        (error,) = await asyncio.gather(thread, return_exceptions=True)
    if isinstance(error, DeepLensError) and not stopped:
        console.err().print(f"deeplens: the demonstration: {error.message}")
    elif error is not None and not stopped:
        raise error


def _say_waiting(sentence: str) -> None:
    console.err().print(f"deeplens: {sentence}")


def _say_where(system: System) -> None:
    out = console.out()
    upload = f"curl -F tenantId={TENANT} -F file=@photo.jpg {system.url}/api/v1/images/upload"
    if system.model is not None:
        out.print(f"model   {system.model.why}")
    out.print(f"page    {system.url}/")
    out.print(f"upload  {upload}")
    out.print(f"data    {system.settings.data_dir} (log: {system.worker_log})")


class _StopSignals:
    """The first SIGINT, SIGTERM or SIGHUP cancels a task; a later one hurries."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __init__(self, task: "asyncio.Task[None]", *, hurry: Callable[[], None]) -> None:
        self._task = task
        self._hurry = hurry
        self._stopping = False
        self._loop = asyncio.get_running_loop()
        for number in self._SIGNALS:
            self._loop.add_signal_handler(number, self._on_signal)

    def stop(self) -> None:
        self._stopping = True
        self._task.cancel()

    def restore(self) -> None:
        for number in self._SIGNALS:
            self._loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._stopping:
            self._hurry()
        else:
            self.stop()


async def _parent_gone() -> None:
    """Return when the process that started this one has ended."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110 - the kernel sends no event for it
        await asyncio.sleep(_PARENT_POLL_S)
