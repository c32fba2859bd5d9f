"""Write docs/configuration.md from the settings' own docstrings: ``make docs``."""

from pathlib import Path
from typing import Any, get_args

from deeplens_streams.config import ROLE_PURPOSES, Role, Settings

_HEAD = """# Configuration

Every setting is an environment variable, read once when a process starts. Nothing has to be set:
the defaults run everything on one machine.

This page is generated from `deeplens_streams/config.py` by `make docs`.

| variable | default | meaning |
|---|---|---|
"""

_TAIL = """
The roles of `DEEPLENS_ROLES`:

| role | runs |
|---|---|
"""

_COMMANDS = """
Commands read these, too; they are no settings of the system:

| variable | meaning |
|---|---|
| `DEEPLENS_URL` | Where the system answers, unless `--url` says it. Default: this machine. |
| `DEEPLENS_TENANT` | Whose, unless `--tenant` says it. `upload` and `search` default to `demo`. |
| `DEEPLENS_API_KEY` | The key that is sent where the system asks for one. |
| `DEEPLENS_TRACEBACK` | Anything: a command that ends by a fault of its own shows where. |
"""


def page() -> str:
    """Return the page's text."""
    rows = [
        f"| `DEEPLENS_{name.upper()}` | {_default(field)} | {_meaning(field)} |"
        for name, field in Settings.model_fields.items()
    ]
    roles = [f"| `{role.value}` | {ROLE_PURPOSES[role]} |" for role in Role]
    return _HEAD + "\n".join(rows) + "\n" + _TAIL + "\n".join(roles) + "\n" + _COMMANDS


def _default(field: Any) -> str:
    value = field.default
    if isinstance(value, tuple):
        is_all = value and all(isinstance(each, Role) for each in value)
        value = "all" if is_all else ",".join(str(each) for each in value)
    if isinstance(value, bool):
        value = str(value).lower()
    return f"`{value}`" if value not in {None, ""} else "none"


def _meaning(field: Any) -> str:
    text = " ".join((field.description or "").split()).replace("``", "`").replace("|", "\\|")
    choices = [each for each in get_args(field.annotation) if isinstance(each, str)]
    return f"{text} One of {', '.join(f'`{each}`' for each in choices)}." if choices else text


if __name__ == "__main__":
    Path(__file__).with_name("configuration.md").write_text(page())
