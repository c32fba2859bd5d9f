"""``deeplens restore``: what a backup has, back into the storage of a system."""

import asyncio
from contextlib import ExitStack

import click

from deeplens_streams.cli import console
from deeplens_streams.cli.backup import place, require_apart, require_there
from deeplens_streams.cli.copy_progress import Shown, count_and_size
from deeplens_streams.cli.options import json_option
from deeplens_streams.config import load_settings
from deeplens_streams.host.folder_lock import FolderLock


@click.command()
@click.argument("source")
@click.option(
    "--into-existing",
    is_flag=True,
    help="Into a storage that holds images: write what is missing or broken there, and bring "
    "nothing back that was deleted.",
)
@click.option(
    "--unfinished", is_flag=True, help="Take what there is, though no run of the backup finished."
)
@json_option
def restore(*, source: str, into_existing: bool, unfinished: bool, as_json: bool) -> None:
    """Copy a backup back into the storage of this system.

    SOURCE is what deeplens backup was given. The storage is that of
    DEEPLENS_STORAGE_URL or the data folder, and must hold no images.
    Start the system afterwards, and run deeplens audit --repair: it has
    rows, thumbnails and vectors made again. Exits with 1 if something
    of the backup is damaged, each named; the rest is restored.
    """
    from deeplens_streams.backup.restore import (  # noqa: PLC0415 - loads every backend
        Way,
    )
    from deeplens_streams.backup.restore import restore as bring_back  # noqa: PLC0415 - as above
    from deeplens_streams.storage import blobs_at, open_blobs  # noqa: PLC0415 - as above

    settings = load_settings()
    console.quiet_clients()
    url = place(source)
    require_apart(settings, url)
    require_there(url)
    with ExitStack() as held:
        if settings.storage_url is None and not into_existing:
            held.enter_context(FolderLock(settings.data_dir, "stop it first"))
        here, there = open_blobs(settings), blobs_at(url, settings)
        way = Way(source=url, into_existing=into_existing, unfinished=unfinished)
        with Shown("restored", as_json=as_json) as shown:
            asyncio.run(bring_back(there, here, way, shown.tell, shown.counts))
    written = count_and_size(shown.counts.copied, shown.counts.bytes)
    then = "start the system and run deeplens audit --repair"
    where = console.place_name(settings.images_url)
    shown.end(f"{where} has {written} more; {then}", f"the rest is restored; {then}")
