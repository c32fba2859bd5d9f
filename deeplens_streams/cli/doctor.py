"""``deeplens doctor``: every dependency and setting, and what to do about each."""

import asyncio

import click
from rich.table import Table
from rich.text import Text

from deeplens_streams.cli import console
from deeplens_streams.cli.data_check import check_data
from deeplens_streams.cli.doctor_checks import CHECKS, Finding
from deeplens_streams.cli.options import json_option
from deeplens_streams.config import Settings, load_settings
from deeplens_streams.errors import DeepLensError

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
_PATIENCE_S = 20.0


@click.command()
@click.option(
    "--data", "is_data", is_flag=True, help="Read a stopped system's data folder instead."
)
@json_option
def doctor(*, is_data: bool, as_json: bool) -> None:
    """Check what this machine and its settings need.

    Neither tables nor vectors are opened. Exits with 1 if a check
    fails; a warning is something that a default copes with.

    With --data it reads all of the data folder of a system that is
    stopped: images, tables, Kafka's log and vectors. It changes
    nothing, and says what is damaged and what mends it.
    """
    settings = load_settings()
    console.quiet_clients()
    if is_data:
        check_data(settings, as_json=as_json)
        return
    findings = asyncio.run(_check_all(settings))
    if as_json:
        console.print_json([finding._asdict() for finding in findings])
    else:
        console.out().print(_table(findings))
    if any(finding.state == "fail" for finding in findings):
        raise click.exceptions.Exit(1)


async def _check_all(settings: Settings) -> list[Finding]:
    """Run all checks at once; none may hold up or break the others."""
    return list(await asyncio.gather(*(_check(name, settings) for name in CHECKS)))


async def _check(name: str, settings: Settings) -> Finding:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            state, detail = await CHECKS[name](settings)
    except TimeoutError:
        state, detail = "fail", "it did not answer in time"
    except DeepLensError as error:
        state, detail = "fail", error.message
    except Exception as error:
        state, detail = "fail", f"{type(error).__name__}: {error}"
    return Finding(name, state, detail)


def _table(findings: list[Finding]) -> Table:
    table = Table("check", "", "", box=None, pad_edge=False, padding=(0, 2), show_header=False)
    for finding in findings:
        table.add_row(
            finding.check, Text(finding.state, style=_COLOURS[finding.state]), finding.detail
        )
    table.columns[0].no_wrap = True
    return table
