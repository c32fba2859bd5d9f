"""``deeplens backup``: a copy of all that storage has, brought up to date, or read and compared."""

import asyncio
from pathlib import Path

import click

from deeplens_streams.cli import console
from deeplens_streams.cli.copy_progress import Shown, count_and_size
from deeplens_streams.cli.options import json_option
from deeplens_streams.config import Settings, load_settings
from deeplens_streams.errors import ConfigurationError


@click.command()
@click.argument("target")
@click.option("--verify", is_flag=True, help="Read all of a backup and compare; copy nothing.")
@click.option("--thumbnails", is_flag=True, help="Thumbnails, too; else they are made again.")
@click.option("--trash", is_flag=True, help="What was set aside, too.")
@click.option("--moved", is_flag=True, help="The storage has another URL than before.")
@json_option
def backup(
    *, target: str, verify: bool, thumbnails: bool, trash: bool, moved: bool, as_json: bool
) -> None:
    """Copy all images and what belongs to them to TARGET.

    TARGET is a folder or a URL such as s3://bucket/prefix; credentials
    come from the same variables as for DEEPLENS_STORAGE_URL. The system
    may run. A second run copies what is new, and one that was cut off
    goes on. Exits with 1 if something is damaged or lost, each named.
    """
    from deeplens_streams.backup.run import Wanted, back_up  # noqa: PLC0415 - loads every backend
    from deeplens_streams.backup.verify import verify as read_all  # noqa: PLC0415 - as above
    from deeplens_streams.storage import blobs_at, open_blobs  # noqa: PLC0415 - as above

    settings = load_settings()
    console.quiet_clients()
    url = place(target)
    require_apart(settings, url)
    require_there(url if verify else settings.images_url)
    there = blobs_at(url, settings)
    with Shown("read" if verify else "looked at", as_json=as_json) as shown:
        if verify:
            whole = asyncio.run(read_all(there, shown.tell, shown.counts))
        else:
            wanted = Wanted(
                source=settings.images_url, thumbnails=thumbnails, trash=trash, moved=moved
            )
            here = open_blobs(settings)
            whole = asyncio.run(back_up(here, there, wanted, shown.tell, shown.counts))
    holds = f"{console.place_name(url)} holds {count_and_size(whole.objects, whole.bytes)}"
    if verify:
        shown.end(f"{holds}, of {whole.finished}", "run deeplens backup again")
    else:
        done = f"{shown.counts.copied} copied, {shown.counts.removed} removed"
        shown.end(f"{holds}; {done}", "the backup is finished; run deeplens audit")


def place(text: str) -> str:
    """Return the URL of what a person names by a URL or a path."""
    return text if "://" in text else Path(text).expanduser().absolute().as_uri()


def require_there(url: str) -> None:
    """Raise `ConfigurationError` if it is a folder that there is not: none is made by reading."""
    folder = console.place_name(url)
    if url.startswith("file:") and not Path(folder).is_dir():
        raise ConfigurationError(f"There is no folder {folder}.")


def require_apart(settings: Settings, url: str) -> None:
    """Raise `ConfigurationError` if storage and backup are one, or one lies in the other."""
    here, there = (f"{each.rstrip('/')}/" for each in (settings.images_url, url))
    if here.startswith(there) or there.startswith(here):
        one, other = console.place_name(url), console.place_name(settings.images_url)
        raise ConfigurationError(
            f"{one} and the storage {other} lie in each other; choose another place."
        )
