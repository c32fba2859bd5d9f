"""How commands print: tables and bars for people, JSON for programs."""

import json
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from deeplens_streams.client import Hit

_PLAIN_WIDTH = 200


def out() -> Console:
    """Return the console for results."""
    return _console(sys.stdout.isatty())


def err() -> Console:
    """Return the console for progress and complaints."""
    return _console(sys.stderr.isatty(), stderr=True)


def _console(on_terminal: bool, *, stderr: bool = False) -> Console:
    # Elsewhere nobody's window is narrow, and a line is one line.
    width = None if on_terminal else _PLAIN_WIDTH
    # Names of files and folders are printed as they are: brackets, and ``:cat:``, too.
    return Console(
        stderr=stderr,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=not on_terminal,
        width=width,
    )


def place_name(url: str) -> str:
    """Return what a person calls a place: a folder's path, or else the URL."""
    return url2pathname(urlsplit(url).path) if url.startswith("file:") else url


def print_json(value: Any) -> None:
    """Print one JSON value as one line."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def progress_bar(console: Console) -> Progress:
    """Return a bar with a count; it is silent where there is no terminal."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def hits_table(results: "Sequence[Hit]") -> Table:
    """Return search results as a table, the best first."""
    table = Table("", "score", "file", "image", box=None, pad_edge=False, padding=(0, 2))
    for rank, hit in enumerate(results, 1):
        table.add_row(
            str(rank),
            f"{hit.similarity_score:.4f}",
            hit.file_name or "",
            hit.image_id,
        )
    for column in table.columns:
        column.no_wrap = True
    return table


def quiet_clients() -> None:
    """Keep the terminal for people: a command says itself what went wrong."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
