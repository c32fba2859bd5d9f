"""What a start is doing now: a spinner on a terminal, a line a step elsewhere."""

from typing import Self

from rich.console import Console
from rich.status import Status

_LINE_EVERY = 10


class Steps:
    """The present step of something that takes seconds. Safe to use from several threads."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = Status("", console=console) if console.is_terminal else None

    def say(self, text: str) -> None:
        if self._status is None:
            self._console.print(text)
        else:
            self._status.update(text)

    def warn(self, text: str) -> None:
        """Print a line that stays."""
        self._console.print(text, style="bold yellow")

    def jars(self, done: int, total: int) -> None:
        """Say how many of Kafka's jars have arrived."""
        if self._status is not None or done in (0, total) or done % _LINE_EVERY == 0:
            self.say(f"fetching Apache Kafka: {done} of {total} files")

    def __enter__(self) -> Self:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()
