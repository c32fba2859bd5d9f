"""The ``deeplens`` command: ours and Faust's, under one name.

Exit codes: 0 it worked; 1 it failed; 2 it was called wrongly; 3 the system that it talks to
cannot be reached or is not ready; 130 Ctrl-C.
"""

import os
import signal
import sys
from collections.abc import Sequence

import click

from deeplens_streams import __version__
from deeplens_streams.cli.commands import OUR_COMMANDS, CommandGroup
from deeplens_streams.errors import DeepLensError, DependencyUnavailable

EXIT_FAILED = 1
EXIT_UNREACHABLE = 3
EXIT_INTERRUPTED = 128 + signal.SIGINT

_ABOUT_US = {"--help", "-h", "--version"}


@click.group(
    cls=CommandGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 worked, 1 failed, 2 wrong usage, 3 not reachable or not ready, "
    "130 interrupted.",
)
@click.version_option(__version__, prog_name="deeplens")
def deeplens() -> None:
    """Find pictures that look alike: one command to run the system, others to use it."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit; every error is one sentence on standard error."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _dispatch(argv)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        status = error.exit_code
    except click.exceptions.Exit as leave:
        status = leave.exit_code
    except (KeyboardInterrupt, click.Abort):
        status = EXIT_INTERRUPTED
    except DeepLensError as error:
        click.echo(f"deeplens: {error.message}", err=True)
        away = isinstance(error, DependencyUnavailable)
        status = EXIT_UNREACHABLE if away else EXIT_FAILED
    except BrokenPipeError:
        # Python flushes standard output once more at exit; let that go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = EXIT_FAILED
    except Exception as error:
        if os.environ.get("DEEPLENS_TRACEBACK"):
            raise
        click.echo(
            f"deeplens: a fault in this program, {type(error).__name__}: {error} "
            "(DEEPLENS_TRACEBACK=1 shows where)",
            err=True,
        )
        status = EXIT_FAILED
    else:
        status = 0
    sys.exit(status)


def _dispatch(argv: list[str]) -> None:
    if not argv or argv[0] in OUR_COMMANDS or argv[0] in _ABOUT_US:
        result = deeplens.main(argv or ["--help"], prog_name="deeplens", standalone_mode=False)
        if isinstance(result, int) and result:  # what click makes of an Exit
            raise click.exceptions.Exit(result)
        return
    # Faust looks for its app in sys.argv, so the list itself is changed.
    sys.argv[:] = ["deeplens", "-A", "deeplens_streams", *argv]
    from faust.cli.faust import cli  # noqa: PLC0415 - our own commands start without Faust

    cli.main(prog_name="deeplens", standalone_mode=False)


if __name__ == "__main__":
    main()
