"""``deeplens search``: what looks like a picture."""

from pathlib import Path

import click

from deeplens_streams.cli import console
from deeplens_streams.cli.client import connect
from deeplens_streams.cli.options import json_option, tenant_option, url_option
from deeplens_streams.errors import InvalidImageId
from deeplens_streams.identifiers import check_image_id


@click.command()
@click.argument("query", metavar="FILE|ID")
@click.option("--limit", type=click.IntRange(1, 100), default=10, show_default=True)
@click.option(
    "--threshold",
    type=click.FloatRange(-1, 1),
    default=0.7,
    show_default=True,
    help="The lowest score that counts.",
)
@click.option("--filters", metavar="JSON", help='Such as {"tags.colour": ["red", "blue"]}.')
@click.option("--model", "model_name", help="Default: the system's own.")
@tenant_option
@url_option
@json_option
def search(
    *,
    query: str,
    limit: int,
    threshold: float,
    filters: str | None,
    model_name: str | None,
    tenant: str,
    url: str,
    as_json: bool,
) -> None:
    """Find pictures that look like a file or like an uploaded one."""
    with connect(url) as api:
        answer = api.search(
            _query(query),
            tenant=tenant,
            limit=limit,
            threshold=threshold,
            filters=filters,
            model=model_name,
        )
    if as_json:
        console.print_json(answer.raw)
        return
    if answer.results:
        console.out().print(console.hits_table(answer.results))
    else:
        console.out().print(f"Nothing of tenant {tenant} is that similar.")
    # Where the model has no trained weights, the message is the warning that says so.
    if answer.message:
        console.err().print(answer.message)


def _query(query: str) -> Path | str:
    path = Path(query)
    if path.is_file():
        return path
    try:
        return check_image_id(query)
    except InvalidImageId:
        raise click.BadParameter(
            f"{query!r} is neither a file nor an image ID.", param_hint="FILE|ID"
        ) from None
