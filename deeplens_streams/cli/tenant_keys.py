"""``deeplens tenants keys``: API keys, made, rotated and ended."""

from typing import Any

import click
from rich.table import Table

from deeplens_streams.cli import console
from deeplens_streams.cli.client import connect
from deeplens_streams.cli.options import TENANT, json_option, url_option
from deeplens_streams.client import KeyAnswer


@click.group()
def keys() -> None:
    """Keys of a tenant; with --operators, of those who run the system."""


def _owner(command: Any) -> Any:
    command = click.option("--operators", is_flag=True, help="Keys that belong to no tenant.")(
        command
    )
    return click.option("--tenant", type=TENANT, envvar="DEEPLENS_TENANT", help="Whose keys.")(
        command
    )


def _owner_of(tenant: str | None, *, operators: bool) -> str | None:
    if operators == (tenant is not None):
        raise click.UsageError("Say either --tenant or --operators.")
    return tenant


@keys.command("list")
@_owner
@url_option
@json_option
def list_keys(*, tenant: str | None, operators: bool, url: str, as_json: bool) -> None:
    """List what is known of keys; none can be shown again."""
    with connect(url) as api:
        found = api.keys(_owner_of(tenant, operators=operators))
    if as_json:
        console.print_json(found.raw)
        return
    table = Table("key", "name", "scopes", "ends", "last used", box=None, pad_edge=False)
    for key in found.keys:
        ends = "revoked" if key.revoked_at else key.expires_at or "never"
        table.add_row(
            key.key_id, key.name, ", ".join(key.scopes), ends, key.last_used_at or "never"
        )
    console.out().print(table if found.keys else "There is none.")


@keys.command("create")
@_owner
@click.option("--name", default="", help="What it is for.")
@click.option("--scope", "scopes", multiple=True, help="What it may do; all unless it is said.")
@click.option("--expires-at", metavar="TIME", help="ISO-8601; it does not end by itself else.")
@url_option
@json_option
def create_key(
    *,
    tenant: str | None,
    operators: bool,
    name: str,
    scopes: tuple[str, ...],
    expires_at: str | None,
    url: str,
    as_json: bool,
) -> None:
    """Make a key; it is printed once."""
    with connect(url) as api:
        owner = _owner_of(tenant, operators=operators)
        made = api.create_key(owner, name=name, scopes=scopes or None, expires_at=expires_at)
    _print_key(made, as_json=as_json)


@keys.command("rotate")
@click.argument("key_id", metavar="KEY")
@_owner
@click.option("--overlap", type=click.IntRange(0), help="Seconds that the old one works on.")
@url_option
@json_option
def rotate_key(
    *,
    key_id: str,
    tenant: str | None,
    operators: bool,
    overlap: int | None,
    url: str,
    as_json: bool,
) -> None:
    """Make a key like another one, which ends after an overlap."""
    with connect(url) as api:
        owner = _owner_of(tenant, operators=operators)
        made = api.rotate_key(owner, key_id, overlap_seconds=overlap)
    _print_key(made, as_json=as_json)


@keys.command("revoke")
@click.argument("key_id", metavar="KEY")
@_owner
@url_option
@json_option
def revoke_key(
    *, key_id: str, tenant: str | None, operators: bool, url: str, as_json: bool
) -> None:
    """End a key at once."""
    with connect(url) as api:
        ended = api.revoke_key(_owner_of(tenant, operators=operators), key_id)
    _print_key(ended, as_json=as_json)


def _print_key(answer: KeyAnswer, *, as_json: bool) -> None:
    if as_json:
        console.print_json(answer.raw)
        return
    console.err().print(answer.message)
    console.out().print(answer.api_key or answer.key.key_id, soft_wrap=True)
