"""``deeplens delete``: an image, or all that a tenant has."""

import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import click

from deeplens_streams.cli import console
from deeplens_streams.cli.client import connect
from deeplens_streams.cli.options import IMAGE_ID, TENANT, json_option, url_option
from deeplens_streams.client import Deletion, TenantPurge
from deeplens_streams.errors import DeepLensError

_POLL_S = 0.5

_Gone = TypeVar("_Gone", Deletion, TenantPurge)


@click.command()
@click.argument("ids", metavar="[ID]...", nargs=-1, type=IMAGE_ID)
@click.option("--whole-tenant", type=TENANT, help="Delete every picture of this tenant.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds.")
@url_option
@json_option
def delete(
    *,
    ids: tuple[str, ...],
    whole_tenant: str | None,
    yes: bool,
    wait: float,
    url: str,
    as_json: bool,
) -> None:
    """Delete pictures, and wait until nothing is left of them.

    Exits with 1 when something is left after --wait; it is being removed all the same.
    """
    if bool(ids) == bool(whole_tenant):
        raise click.UsageError("Name pictures by their IDs, or a tenant with --whole-tenant.")
    if whole_tenant and not yes:
        click.confirm(f"Delete every picture of {whole_tenant} at {url}?", abort=True)
    deadline = time.monotonic() + wait
    with connect(url) as api:
        answers: list[Deletion] | list[TenantPurge]
        if whole_tenant:
            api.delete_tenant(whole_tenant)
            answers = [_wait(partial(api.tenant_purge, whole_tenant), deadline)]
        else:
            answers = [_wait(partial(api.delete, each), deadline) for each in ids]
    for answer in answers:
        if as_json:
            console.print_json(answer.raw)
        else:
            name = answer.image_id if isinstance(answer, Deletion) else answer.tenant_id
            console.out().print(f"{name}: {answer.message}")
    if any(answer.completed_at is None for answer in answers):
        raise DeepLensError("Something is left; the same command again tells how far it is.")


def _wait(look: Callable[[], _Gone], deadline: float) -> _Gone:
    """Return the answer that says that nothing is left, or the last one."""
    while True:
        answer = look()
        if answer.completed_at is not None or time.monotonic() > deadline:
            return answer
        time.sleep(_POLL_S)
