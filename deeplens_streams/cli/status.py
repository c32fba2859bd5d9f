"""``deeplens status``: where a picture is on its way."""

from contextlib import nullcontext
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deeplens_streams.cli import console
from deeplens_streams.cli.client import Api
from deeplens_streams.cli.options import IMAGE_ID, json_option, url_option

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
    with Api(url) as api:
        states = api.follow(image_id) if follow else iter([api.status(image_id)])
        if as_json:
            for state in states:
                console.print_json(state)
                click.get_text_stream("stdout").flush()
        else:
            state = _print(states, live=follow)
    if state["status"] == "failed":
        raise click.exceptions.Exit(1)


def _print(states: Any, *, live: bool) -> dict[str, Any]:
    """Print the states, in place on a terminal, and return the last one."""
    out = console.out()
    in_place = live and out.is_terminal
    state: dict[str, Any] = {}
    with Live(console=out, refresh_per_second=8) if in_place else nullcontext() as screen:
        for state in states:
            if screen is not None:
                screen.update(_picture(state), refresh=True)
            elif live:
                steps = (f"{each['step']} {each['status']}" for each in state["processingSteps"])
                out.print(f"{state['percentComplete']:3.0f} % {state['status']}", *steps, sep="  ")
            else:
                out.print(_picture(state))
    return state


def _picture(state: dict[str, Any]) -> RenderableType:
    table = Table("step", "status", "ms", "attempt", "model", "", box=None, pad_edge=False)
    for step in state["processingSteps"]:
        duration = step.get("duration")
        table.add_row(
            step["step"],
            Text(step["status"], style=_COLOURS.get(step["status"], "")),
            "" if duration is None else f"{duration:.0f}",
            str(step.get("attempt") or ""),
            step.get("modelName") or "",
            step.get("errorMessage") or "",
        )
    head = Text.assemble(
        f"{state['imageId']}  tenant {state['tenantId']}  ",
        (state["status"], _COLOURS.get(state["status"], "")),
        f"  {state['percentComplete']:.0f} %",
    )
    error = state.get("errorMessage")
    return Group(head, table, *([Text(str(error), style="red")] if error else []))
