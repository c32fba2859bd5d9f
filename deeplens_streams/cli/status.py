"""``deeplens status``: where a picture is on its way."""

from collections.abc import Iterator
from contextlib import nullcontext

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deeplens_streams.cli import console
from deeplens_streams.cli.client import connect
from deeplens_streams.cli.options import IMAGE_ID, json_option, url_option
from deeplens_streams.client import Status

_COLOURS = {
    "completed": "green",
    "partial": "yellow",
    "failed": "red",
    "retrying": "yellow",
    "deleted": "yellow",
    "skipped": "dim",
    "in_progress": "cyan",
    "processing": "cyan",
}


@click.command()
@click.argument("image_id", metavar="ID", type=IMAGE_ID)
@click.option("--follow", is_flag=True, help="Print every change until the last one.")
@url_option
@json_option
def status(*, image_id: str, follow: bool, url: str, as_json: bool) -> None:
    """Show where a picture is on its way.

    Exits with 1 when the picture has failed. With --follow and --json, each change is one line.
    """
    with connect(url) as api:
        states: Iterator[Status] = api.follow(image_id) if follow else iter([api.status(image_id)])
        last: Status | None = None
        if as_json:
            for state in states:
                console.print_json(state.raw)
                click.get_text_stream("stdout").flush()
                last = state
        else:
            last = _print(states, live=follow)
    if last is not None and last.status == "failed":
        raise click.exceptions.Exit(1)


def _print(states: Iterator[Status], *, live: bool) -> Status | None:
    """Print the states, in place on a terminal, and return the last one."""
    out = console.out()
    in_place = live and out.is_terminal
    state: Status | None = None
    with Live(console=out, refresh_per_second=8) if in_place else nullcontext() as screen:
        for state in states:
            if screen is not None:
                screen.update(_picture(state), refresh=True)
            elif live:
                steps = (f"{each.step} {each.status}" for each in state.processing_steps)
                out.print(f"{state.percent_complete:3.0f} % {state.status}", *steps, sep="  ")
            else:
                out.print(_picture(state))
    return state


def _picture(state: Status) -> RenderableType:
    table = Table("step", "status", "ms", "attempt", "model", "", box=None, pad_edge=False)
    for step in state.processing_steps:
        table.add_row(
            step.step,
            Text(step.status, style=_COLOURS.get(step.status, "")),
            "" if step.duration is None else f"{step.duration:.0f}",
            str(step.attempt or ""),
            step.model_name or "",
            step.error_message or "",
        )
    head = Text.assemble(
        f"{state.image_id}  tenant {state.tenant_id}  ",
        (state.status, _COLOURS.get(state.status, "")),
        f"  {state.percent_complete:.0f} %",
    )
    error = state.error_message
    return Group(head, table, *([Text(error, style="red")] if error else []))
