"""``deeplens tenants``: the tenant manager, over the admin interface."""

import time
from collections.abc import Mapping
from typing import Any

import click
from rich.table import Table

from deeplens_streams.cli import console
from deeplens_streams.cli.client import connect
from deeplens_streams.cli.options import TENANT, json_option, url_option
from deeplens_streams.cli.tenant_keys import keys
from deeplens_streams.client import (
    Missing,
    NotReady,
    Refused,
    SyncClient,
    TenantAnswer,
    TenantStep,
)
from deeplens_streams.errors import DeepLensError

_LIMITS = {
    "max_images": "images",
    "max_bytes": "bytes",
    "uploads_per_minute": "uploadsPerMinute",
    "searches_per_minute": "searchesPerMinute",
    "max_collections": "collections",
}
_POLL_S = 0.5
_EXISTS = 409


@click.group()
def tenants() -> None:
    """Make, limit, suspend and remove tenants, and their keys.

    The operator's key is read from DEEPLENS_API_KEY.
    """


def _limit_options(command: Any) -> Any:
    for name, what in reversed(_LIMITS.items()):
        command = click.option(
            f"--{name.replace('_', '-')}", type=click.IntRange(0), help=f"Limit of {what}."
        )(command)
    return command


def _limits(given: dict[str, int | None]) -> dict[str, int | None]:
    return {_LIMITS[name]: value for name, value in given.items() if value is not None}


@tenants.command()
@click.argument("names", metavar="TENANT...", nargs=-1, required=True, type=TENANT)
@_limit_options
@click.option("--model", help="Make this model's collection, for tenants that exist, too.")
@click.option("--dimension", type=click.IntRange(1, 4096), help="Of that model's vectors.")
@url_option
@json_option
def create(
    *,
    names: tuple[str, ...],
    model: str | None,
    dimension: int | None,
    url: str,
    as_json: bool,
    **given: int | None,
) -> None:
    """Make tenants with everything that they need, and look at them.

    Cut off or refused half-way, the same command goes on. The first API key of each is printed
    once.
    """
    with connect(url) as api:
        size = _dimension(api, model, dimension) if model else None
        for name in names:
            made = _create(api, name, _limits(given), may_exist=model is not None, as_json=as_json)
            if made is not None:  # before anything else: the key is shown this once
                _show_made(name, made.raw, as_json=as_json)
            if model and size:
                _collect(api, name, model, size, as_json=as_json)
            found = _check(api, name, as_json=as_json)
            if not as_json:
                console.out().print(f"{name}: {found.message}")


def _create(
    api: SyncClient, name: str, limits: dict[str, int | None], *, may_exist: bool, as_json: bool
) -> TenantAnswer | None:
    try:
        made = api.create_tenant(name, limits=limits)
    except NotReady as error:
        _steps(_steps_of(error), as_json=as_json)
        _show_made(name, error.raw, as_json=as_json)
        raise
    except Refused as error:
        if error.status != _EXISTS or not may_exist:
            raise
        if limits:
            api.limit_tenant(name, limits)
        return None
    _steps(made.steps, as_json=as_json)
    return made


def _show_made(name: str, raw: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.print_json(raw)
    elif raw.get("apiKey"):
        console.out().print(f"{name}: API key {raw['apiKey']}", soft_wrap=True)


def _steps_of(error: Refused) -> list[TenantStep]:
    return [TenantStep.read(each) for each in error.raw.get("steps", [])]


def _dimension(api: SyncClient, model: str, dimension: int | None) -> int:
    if dimension is not None:
        return dimension
    ready = api.readiness()
    known = ready.raw.get("model") if ready is not None else None
    if known and known["name"] == model:
        return int(known["dimension"])
    raise click.UsageError(f"Say --dimension: this system does not run {model}.")


def _collect(api: SyncClient, name: str, model: str, size: int, *, as_json: bool) -> None:
    made = api.create_collection(name, model, size)
    if not as_json:
        console.out().print(f"{name}: {made.collection_name}: {made.message}")


def _steps(steps: list[TenantStep], *, as_json: bool) -> None:
    for each in [] if as_json else steps:
        sign = "ok" if each.status == "completed" else each.status
        console.out().print(f"{each.step:12} {sign:7} {each.message}")


@tenants.command()
@click.argument("name", metavar="TENANT", type=TENANT)
@url_option
@json_option
def show(*, name: str, url: str, as_json: bool) -> None:
    """Print what the registry has of a tenant."""
    with connect(url) as api:
        _tell(api.tenant(name), as_json=as_json)


@tenants.command("list")
@url_option
@json_option
def list_(*, url: str, as_json: bool) -> None:
    """List tenants by ID."""
    table = Table("tenant", "state", "pictures", "bytes", "keys", "since", box=None, pad_edge=False)
    with connect(url) as api:
        for each in api.tenants():
            if as_json:
                console.print_json(each.raw)
                continue
            usage = each.usage
            table.add_row(
                each.tenant_id,
                each.state,
                f"{usage['images']:,}",
                f"{usage['bytes']:,}",
                str(each.keys),
                each.created_at,
            )
    if not as_json:
        console.out().print(table if table.row_count else "There is none.")


@tenants.command()
@click.argument("name", metavar="TENANT", type=TENANT)
@_limit_options
@url_option
@json_option
def limit(*, name: str, url: str, as_json: bool, **given: int | None) -> None:
    """Change the limits that are named."""
    if not _limits(given):
        raise click.UsageError("Name a limit to change.")
    with connect(url) as api:
        _tell(api.limit_tenant(name, _limits(given)), as_json=as_json)


@tenants.command()
@click.argument("name", metavar="TENANT", type=TENANT)
@url_option
@json_option
def suspend(*, name: str, url: str, as_json: bool) -> None:
    """Refuse everything of a tenant until it is resumed."""
    with connect(url) as api:
        _tell(api.suspend_tenant(name), as_json=as_json)


@tenants.command()
@click.argument("name", metavar="TENANT", type=TENANT)
@url_option
@json_option
def resume(*, name: str, url: str, as_json: bool) -> None:
    """Let a suspended tenant in again."""
    with connect(url) as api:
        _tell(api.resume_tenant(name), as_json=as_json)


@tenants.command()
@click.argument("name", metavar="TENANT", type=TENANT)
@url_option
@json_option
def usage(*, name: str, url: str, as_json: bool) -> None:
    """Print what a tenant has, and may have."""
    with connect(url) as api:
        found = api.tenant_usage(name)
    if as_json:
        console.print_json(found.raw)
        return
    for what, has in (("images", found.images), ("bytes", found.bytes)):
        most = found.limits[what]
        console.out().print(f"{what:7} {has:,}" + (f" of {most:,}" if most is not None else ""))


@tenants.command()
@click.argument("name", metavar="TENANT", type=TENANT)
@url_option
@json_option
def check(*, name: str, url: str, as_json: bool) -> None:
    """Look at everything that a tenant needs; exits with 3 unless all of it is well."""
    with connect(url) as api:
        found = _check(api, name, as_json=as_json)
    _steps(found.steps, as_json=as_json)


def _check(api: SyncClient, name: str, *, as_json: bool) -> TenantAnswer:
    """Have a tenant looked at; what is not well is printed before it is raised."""
    try:
        found = api.check_tenant(name)
    except NotReady as error:
        _steps(_steps_of(error), as_json=as_json)
        if as_json:
            console.print_json(error.raw)
        raise
    if as_json:
        console.print_json(found.raw)
    return found


@tenants.command()
@click.argument("name", metavar="TENANT", type=TENANT)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--wait", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds.")
@url_option
@json_option
def delete(*, name: str, yes: bool, wait: float, url: str, as_json: bool) -> None:
    """Remove a tenant with everything that it has, and wait until nothing is left."""
    if not yes:
        click.confirm(f"Delete {name} with every picture of it at {url}?", abort=True)
    deadline = time.monotonic() + wait
    with connect(url) as api:
        answer = api.delete_tenant(name)
        while not (is_gone := answer.completed_at is not None and _is_forgotten(api, name)):
            if time.monotonic() > deadline:
                break
            time.sleep(_POLL_S)
            answer = api.tenant_purge(name)
    if as_json:
        console.print_json(answer.raw)
    else:
        console.out().print(f"{name}: {answer.message}")
    if not is_gone:
        raise DeepLensError("Something is left; the same command again tells how far it is.")


def _is_forgotten(api: SyncClient, name: str) -> bool:
    """Tell whether the registry's row, which goes last, is gone."""
    try:
        api.tenant(name)
    except Missing:
        return True
    return False


def _tell(answer: TenantAnswer, *, as_json: bool) -> None:
    if as_json:
        console.print_json(answer.raw)
        return
    tenant = answer.tenant
    if answer.message:
        console.out().print(f"{tenant.tenant_id}: {answer.message}")
    for name in ("state", "created_at", "updated_at", "keys"):
        console.out().print(f"{name.replace('_', ' '):12} {getattr(tenant, name)}")
    figures = tenant.usage | {f"limit of {name}": each for name, each in tenant.limits.items()}
    for name, value in figures.items():
        console.out().print(f"{name:26} {'none' if value is None else format(value, ',')}")


tenants.add_command(keys)
