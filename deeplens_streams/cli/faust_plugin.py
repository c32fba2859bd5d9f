"""What Faust's own program finds in ``faust -A deeplens_streams …``."""

import sys
from typing import TYPE_CHECKING, Any

import click
from faust.cli.faust import cli
from faust.cli.worker import worker as worker_command

from deeplens_streams.cli.commands import OUR_COMMANDS, load_command
from deeplens_streams.cli.main import main
from deeplens_streams.errors import DeepLensError
from deeplens_streams.runtime.apps import build_from_environment

if TYPE_CHECKING:
    from deeplens_streams.runtime.apps import RoleApp


def app_for_faust() -> "RoleApp":
    """Build the app, with our commands beside Faust's.

    A wrong setting ends the program with one sentence, where Faust would show a stack trace.
    """
    for name in OUR_COMMANDS:
        cli.add_command(_Ours(name))
    worker_command.on_worker_created = _show_banner  # type: ignore[assignment]
    try:
        return build_from_environment()
    except DeepLensError as error:
        raise SystemExit(f"deeplens: {error.message}") from None


def _show_banner(command: worker_command, worker: Any) -> None:
    """Show Faust's table of what it runs on to people; elsewhere each line is one of the log."""
    if sys.stdout.isatty():
        command.say(command.banner(worker))


class _Ours(click.Command):
    """One of our commands, with its own options, errors and exit codes."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name,
            params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
            callback=lambda arguments: main([name, *arguments]),
            context_settings={"ignore_unknown_options": True},
            add_help_option=False,
        )

    def get_short_help_str(self, limit: int = 45) -> str:
        return load_command(str(self.name)).get_short_help_str(limit)
