"""``deeplens dead-letters``: what could not be processed, and what becomes of it."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import click
from rich.table import Table

from deeplens_streams.cli import console
from deeplens_streams.cli.client import connect
from deeplens_streams.cli.options import TENANT, json_option, url_option
from deeplens_streams.client import DeadLetter, LettersChanged, SyncClient

_STATES = ["waiting", "retried", "discarded", "superseded", "all"]


@click.group("dead-letters")
def dead_letters() -> None:
    """See what could not be processed; retry or discard it."""


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--until", metavar="TIME", help="Only what failed before, ISO-8601."),
        click.option("--since", metavar="TIME", help="Only what failed then or later, ISO-8601."),
        click.option("--code", help="Only this error code."),
        click.option("--step", help="Only this step."),
        click.option("--tenant", type=TENANT, envvar="DEEPLENS_TENANT", help="Only this tenant's."),
    ):
        command = option(command)
    return command


@dead_letters.command("list")
@_filters
@click.option("--state", type=click.Choice(_STATES), default="waiting", show_default=True)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True)
@url_option
@json_option
def list_(*, url: str, as_json: bool, limit: int, **filters: str | None) -> None:
    """List dead letters, the newest of each tenant first."""
    with connect(url) as api:
        letters = list(islice(_all(api, _named(filters), limit), limit))
    if as_json:
        for letter in letters:
            console.print_json(letter.raw)
        return
    table = Table("failed at", "tenant", "step", "code", "letter", "", box=None, pad_edge=False)
    for letter in letters:
        can = "" if letter.can_retry else "would fail again"
        table.add_row(
            letter.failed_at,
            letter.tenant_id or "-",
            letter.failed_step,
            letter.error_code,
            letter.letter_id,
            can if letter.state == "waiting" else letter.state,
        )
    console.out().print(table if letters else "There is none.")


@dead_letters.command()
@click.argument("letter_id", metavar="ID")
@url_option
def show(*, letter_id: str, url: str) -> None:
    """Print one dead letter as JSON, its event and its stack trace included."""
    with connect(url) as api:
        console.print_json(api.dead_letter(letter_id).raw)


@dead_letters.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_filters
@click.option("--all", "everything", is_flag=True, help="Retry all that the filters leave.")
@click.option("--force", is_flag=True, help="Also what is expected to fail again.")
@url_option
@json_option
def retry(
    *, ids: tuple[str, ...], everything: bool, force: bool, url: str, as_json: bool, **filters: Any
) -> None:
    """Send events again, at the step that failed: some by ID, or --all."""
    meant = _meant(ids, filters, everything=everything)
    with connect(url) as api:
        _say(api.retry_letters(ids or None, force=force, filters=meant), as_json=as_json)


@dead_letters.command()
@click.argument("ids", metavar="[ID]...", nargs=-1)
@_filters
@click.option("--all", "everything", is_flag=True, help="Discard all that the filters leave.")
@click.option("--reason", required=True, help="Why; it is kept with the letter.")
@url_option
@json_option
def discard(
    *, ids: tuple[str, ...], everything: bool, reason: str, url: str, as_json: bool, **filters: Any
) -> None:
    """Decide that events are not to be retried: some by ID, or --all."""
    meant = _meant(ids, filters, everything=everything)
    with connect(url) as api:
        _say(api.discard_letters(ids or None, reason=reason, filters=meant), as_json=as_json)


def _named(filters: dict[str, str | None]) -> dict[str, str]:
    """Return the filters that were given, as the interface calls them."""
    names = {"tenant": "tenantId"}
    return {names.get(name, name): value for name, value in filters.items() if value}


def _meant(ids: tuple[str, ...], filters: dict[str, Any], *, everything: bool) -> dict[str, str]:
    if bool(ids) == everything:
        raise click.UsageError("Name dead letters by their IDs, or say --all.")
    if ids and any(filters.values()):
        raise click.UsageError("Filters go with --all.")
    return _named(filters)


def _say(answers: Iterator[LettersChanged], *, as_json: bool) -> None:
    """Print what was done, as it is done, and leave with 1 where something was skipped."""
    done, skipped = 0, 0
    for answer in answers:
        done += len(answer.done)
        skipped += len(answer.skipped)
        for each in [] if as_json else answer.skipped:
            console.err().print(f"{each.letter_id}: {each.message}")
        if as_json:
            console.print_json(answer.raw)
    if not as_json:
        console.out().print(f"{done} done, {skipped} skipped.")
    if skipped:
        raise click.exceptions.Exit(1)


def _all(api: SyncClient, filters: dict[str, str], limit: int) -> Iterator[DeadLetter]:
    """Yield dead letters, one page after the other."""
    cursor = None
    while True:
        page = api.dead_letters(limit=limit, cursor=cursor, filters=filters)
        yield from page.dead_letters
        cursor = page.next_cursor
        if cursor is None:
            return
