"""One version of the system, run by its own ``deeplens up``, and what its processes take."""

from pathlib import Path

import psutil

from deeplens_streams.host.ports import free_port
from tests.support.system import Process

_START_S = 180.0


class RunningVersion(Process):
    """The system of one checkout, on a data folder of its own.

    Parameters
    ----------
    code : the checkout; its ``.venv`` runs it.
    folder : keeps its data and logs.
    settings : ``DEEPLENS_*`` by whole name.
    """

    def __init__(self, code: Path, folder: Path, settings: dict[str, str]) -> None:
        port = free_port()
        up = ["deeplens_streams.cli.main", "up", "--no-demo", "--with-parent"]
        up += ["--port", str(port), "--data-dir", str(folder / "data")]
        super().__init__(folder, port, up, settings)
        self.env, self.code = settings, code
        self.python = str(code / ".venv" / "bin" / "python")

    async def until_ready(self) -> None:
        await self.until_answers("/health/ready", _START_S)

    def last_words(self) -> str:
        """Return how the logs of the system and of its worker end."""
        logs = (self.log_path, self.log_path.parent / "data" / "logs" / "worker.log")
        return "\n".join(log.read_text(errors="replace")[-1500:] for log in logs if log.exists())

    def cpu_seconds(self) -> dict[str, float]:
        """Return the CPU time so far of the worker, of its children and of Kafka.

        The children are those that decode, infer and optimize; those that have ended count.
        """
        parts = self._parts()
        spent = {name: sum(sum(each.cpu_times()[:2]) for each in parts[name]) for name in parts}
        for each in (*parts["worker"], *parts["children"]):
            spent["children"] += sum(each.cpu_times()[2:4])
        return spent

    def resident(self) -> dict[str, float]:
        """Return the resident memory of the same, in MiB."""
        return {
            name: sum(each.memory_info().rss for each in processes) / 2**20
            for name, processes in self._parts().items()
        }

    def worker_pid(self) -> int:
        return int(self._parts()["worker"][0].pid)

    def _parts(self) -> dict[str, list[psutil.Process]]:
        assert self.process is not None
        everything = psutil.Process(self.process.pid).children(recursive=True)
        # The guards of both hold the commands in theirs, and so do not begin like them.
        worker = next(each for each in everything if each.cmdline()[1:3] == ["-m", "faust"])
        return {
            "worker": [worker],
            "children": worker.children(recursive=True),
            "Kafka": [each for each in everything if "java" in each.name()],
        }
