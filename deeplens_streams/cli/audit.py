"""``deeplens audit``: whether everything that was accepted is accounted for."""

import click
from rich.table import Table

from deeplens_streams.cli import console
from deeplens_streams.cli.client import connect
from deeplens_streams.cli.options import TENANT, json_option, url_option
from deeplens_streams.client import NotReachable
from deeplens_streams.client.models import Raw
from deeplens_streams.errors import DeepLensError

_COLUMNS = ("accepted", "completed", "partial", "failed", "deleted", "inFlight", "unknown")
_LEDGERS = ("tenant", "total")
_OUTDATED = (
    "Of {} pictures an older preprocessing made the vector, or what is told of them; "
    "--outdated --repair makes both again."
)


@click.command()
@click.option("--tenant", type=TENANT, help="Only this tenant's; default: all.")
@click.option("--repair", is_flag=True, help="Process what is missing, remove what is nobody's.")
@click.option("--checksums", is_flag=True, help="Read every original and compare its SHA-256.")
@click.option("--outdated", is_flag=True, help="Find what an older preprocessing made, too.")
@url_option
@json_option
def audit(
    *,
    tenant: str | None,
    repair: bool,
    checksums: bool,
    outdated: bool,
    url: str,
    as_json: bool,
) -> None:
    """Compare storage, status table, vectors and dead letters.

    Exits with 1 when something is wrong and not repaired. What a repair sends is on its way
    afterwards: the next audit tells what came of it.
    """
    table = Table("tenant", *_COLUMNS, "", box=None, pad_edge=False, padding=(0, 2))
    total: Raw | None = None
    wrong = 0
    with connect(url) as api:
        # Not in a variable: an error would keep it until behind the connection's end.
        for line in api.audit(tenant=tenant, repair=repair, checksums=checksums, outdated=outdated):
            if as_json:
                console.print_json(line)
            if line["type"] == "error":
                raise NotReachable(f"The audit could not go on: {line['message']}")
            wrong += line["type"] == "finding" and not line["repaired"]
            if line["type"] in _LEDGERS:
                _add(table, line)
            elif not as_json:
                _tell(line)
            total = line if line["type"] == "total" else None
    if total is None:
        raise NotReachable("The audit was cut off; try again.")
    if not as_json:
        console.out().print(table)
        _limits(total)
        if not outdated and total.get("outdated"):
            console.err().print(_OUTDATED.format(total["outdated"]))
    if wrong or not total["balanced"]:
        raise DeepLensError(f"{wrong} things are wrong; --repair mends what can be mended.")


def _tell(line: Raw) -> None:
    """Print a finding, or, where somebody may be waiting, how far the audit is."""
    err = console.err()
    if line["type"] == "finding":
        mended = "repaired" if line["repaired"] else "not repaired"
        name = f"{line['tenantId'] or '-'} {line['imageId'] or '-'}"
        err.print(f"{name}: {line['fault']}, {line['detail']} ({mended})")
    elif line["type"] == "progress" and err.is_terminal:
        err.print(f"{line['tenantId'] or 'all rows'}: {line['checked']} looked at", style="dim")


def _limits(total: Raw) -> None:
    """Print what an audit could not look at."""
    err = console.err()
    if total["inFlight"] and total["readUpTo"]:
        err.print(f"What moved after {total['readUpTo']} is taken to be on its way.")
    elif total["inFlight"]:
        err.print("It is not known yet whether what is in flight is on its way; try again.")
    if not total["vectorsChecked"]:
        err.print("Vectors were not looked at: the embedded engine belongs to another worker.")


def _add(table: Table, line: Raw) -> None:
    name = line.get("tenantId") or "all"
    balance = "balanced" if line["balanced"] else "not balanced"
    table.add_row(name, *(str(line[each]) for each in _COLUMNS), balance)
