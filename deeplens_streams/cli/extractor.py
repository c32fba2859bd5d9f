"""``deeplens extractor``: the model as a service of its own."""

import click

from deeplens_streams.config import load_settings


@click.command()
@click.option("--host", help="Default: DEEPLENS_EXTRACTOR_HOST, else 127.0.0.1.")
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Default: DEEPLENS_EXTRACTOR_PORT, else 8001."
)
def extractor(*, host: str | None, port: int | None) -> None:
    """Run the feature extraction service.

    Workers use it when DEEPLENS_EXTRACTOR_URL names it, and then need no model themselves.
    """
    given = {"extractor_host": host, "extractor_port": port}
    settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    from deeplens_streams.extractor_service.app import run  # noqa: PLC0415 - loads the web server

    run(settings)
