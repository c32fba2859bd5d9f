"""``deeplens trash``: what repairs took away, and bringing it back."""

from collections.abc import Iterator
from itertools import islice

import click
from rich.table import Table

from deeplens_streams.cli import console
from deeplens_streams.cli.client import connect
from deeplens_streams.cli.options import TENANT, json_option, url_option
from deeplens_streams.client import SyncClient, TrashEntry

_PAGE = 200


@click.group()
def trash() -> None:
    """See what an audit's repair took away; restore it, or empty the trash."""


@trash.command("list")
@click.option("--tenant", type=TENANT, help="Only this tenant's; default: all.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@url_option
@json_option
def list_(*, tenant: str | None, limit: int, url: str, as_json: bool) -> None:
    """List what is kept, one tenant after the other."""
    with connect(url) as api:
        entries = list(islice(_all(api, tenant), limit))
    if as_json:
        for entry in entries:
            console.print_json(entry.raw)
        return
    table = Table("since", "kind", "bytes", "why", "ID", box=None, pad_edge=False)
    for entry in entries:
        table.add_row(entry.at, entry.kind, str(entry.size), entry.reason, entry.trash_id)
    console.out().print(table if entries else "There is nothing.")


@trash.command()
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--replace", is_flag=True, help="What is there by now goes to the trash instead.")
@url_option
def restore(*, ids: tuple[str, ...], replace: bool, url: str) -> None:
    """Bring things back to where they were."""
    with connect(url) as api:
        for trash_id in ids:
            entry = api.restore_trash(trash_id, replace=replace)
            console.out().print(f"{entry.kind} of {entry.image_id or 'nobody'}: {entry.key}")


@trash.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--tenant", type=TENANT, help="Only this tenant's; default: all.")
@click.option("--older-than", type=click.IntRange(0), metavar="DAYS", help="0 is everything.")
@url_option
def empty(*, ids: tuple[str, ...], tenant: str | None, older_than: int | None, url: str) -> None:
    """Remove things for good: some by ID, or what has been there for so many DAYS."""
    if bool(ids) == (older_than is not None):
        raise click.UsageError("Name things by their IDs, or say --older-than DAYS.")
    if ids and tenant:
        raise click.UsageError("--tenant goes with --older-than.")
    with connect(url) as api:
        if older_than is not None:
            emptied = api.empty_trash(tenant=tenant, older_than_days=older_than)
            removed, why = emptied.removed, emptied.why
        else:
            removed, why = len([api.remove_trash(trash_id) for trash_id in ids]), None
    console.out().print(f"{removed} removed.")
    if why is not None:
        raise click.ClickException(why)


def _all(api: SyncClient, tenant: str | None) -> Iterator[TrashEntry]:
    cursor = None
    while True:
        page = api.trash(tenant=tenant, limit=_PAGE, cursor=cursor)
        yield from page.entries
        cursor = page.next_cursor
        if cursor is None:
            return
