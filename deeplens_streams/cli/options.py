"""Options and arguments that several commands share, and where they talk to."""

from collections.abc import Callable
from typing import Any

import click

from deeplens_streams.config import Settings, load_settings
from deeplens_streams.errors import DeepLensError
from deeplens_streams.identifiers import check_image_id, check_tenant_id

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

#: Names that mean "every address"; one cannot connect to them.
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104 - recognised, not bound

json_option: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print JSON for programs."
)


def default_url(settings: Settings) -> str:
    """Return where this machine's own system answers."""
    host = _ANY_HOST.get(settings.web_host, settings.web_host)
    return f"http://{host}:{settings.web_port}"


def _default_url() -> str:
    return default_url(load_settings())


url_option: Decorator = click.option(
    "--url",
    envvar="DEEPLENS_URL",
    default=_default_url,
    show_default="DEEPLENS_URL, else this machine",
    help="Where the system answers.",
)


class Checked(click.ParamType):
    """A parameter that one of the project's own checks decides on."""

    def __init__(self, name: str, check: Callable[[Any], str]) -> None:
        self.name = name
        self._check = check

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        try:
            return self._check(value)
        except DeepLensError as error:
            self.fail(error.message, param, ctx)


IMAGE_ID = Checked("image ID", check_image_id)
TENANT = Checked("tenant", check_tenant_id)

tenant_option: Decorator = click.option(
    "--tenant",
    type=TENANT,
    envvar="DEEPLENS_TENANT",
    default="demo",
    show_default=True,
    help="Whose pictures.",
)
