"""What clients may write into a form's fields, checked one by one."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Final

from deeplens_streams.errors import BadRequest, UnknownModel
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.web.forms.multipart import Form
from models.events import ProcessingOptions

MAX_FILE_NAME: Final = 255
MAX_TAGS: Final = 32
MAX_TAG_VALUE: Final = 256
MAX_UPLOADED_BY: Final = 128
PRIORITIES: Final = ("high", "normal", "low")

#: Tag keys are part of a filter's field name, where a dot separates.
TAG_KEY: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

_DEFAULT_NAME: Final = "image"


def safe_file_name(given: str) -> str:
    """Return the client's name for a file, fit to show: no folders, nothing invisible.

    It is for people only; nothing is stored under it.
    """
    name = re.split(r"[/\\]", given)[-1]
    # Category C is control, format (right-to-left overrides), surrogate and unassigned.
    name = "".join(char for char in name if unicodedata.category(char)[0] != "C").strip()
    name = _shortened(name)
    return name if name.strip(".") else _DEFAULT_NAME


def _shortened(name: str) -> str:
    """Cut what is too long before the extension."""
    if len(name) <= MAX_FILE_NAME:
        return name
    stem, dot, extension = name.rpartition(".")
    if not stem or len(extension) > 10:  # noqa: PLR2004 -- longer is no extension
        return name[:MAX_FILE_NAME]
    return stem[: MAX_FILE_NAME - len(extension) - 1] + dot + extension


def boolean(form: Form, name: str, *, default: bool) -> bool:
    value = form.one(name)
    if value is None:
        return default
    if value.lower() not in {"true", "false"}:
        raise BadRequest(f"The field {name!r} is true or false.")
    return value.lower() == "true"


def truth(value: str | None, name: str) -> bool:
    """Return a query's value that is ``true`` or ``false``, which is what it is without one."""
    given = "false" if value is None else value.lower()
    if given not in {"true", "false"}:
        raise BadRequest(f"The field {name!r} is true or false.")
    return given == "true"


def number(form: Form, name: str, *, default: float, low: float, high: float) -> float:
    value = form.one(name)
    if value is None:
        return default
    try:
        found = float(value)
    except ValueError:
        found = float("nan")
    if not low <= found <= high:  # NaN is neither
        raise BadRequest(f"The field {name!r} is a number from {low:g} to {high:g}.")
    return found


def whole_number(value: str | None, name: str, *, default: int, low: int, high: int) -> int:
    if value is None:
        return default
    text = value.strip()  # nothing left is a slip, and no number
    # int() would take other scripts' digits, underscores and any length.
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        raise BadRequest(f"The field {name!r} is a whole number from {low} to {high}.")
    return int(text)


def plain_text(value: str | None, name: str, *, limit: int) -> str | None:
    """Return a short text without control characters."""
    if value is None:
        return None
    if len(value) > limit or not value.isprintable():
        raise BadRequest(f"The field {name!r} is a text of up to {limit} printable characters.")
    return value


def tags(form: Form) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in form.entries("tags"):
        if not TAG_KEY.fullmatch(key):
            raise BadRequest("A tag's key is 1 to 64 of A-Z, a-z, 0-9, _ and -: tags[key]=value.")
        if key in found:
            raise BadRequest(f"The tag {key!r} is there more than once; send it once.")
        found[key] = plain_text(value, f"tags[{key}]", limit=MAX_TAG_VALUE) or ""
    if len(found) > MAX_TAGS:
        raise BadRequest(f"A picture has up to {MAX_TAGS} tags.")
    return found


def model_names(form: Form, known: ModelSpec) -> list[str]:
    """Return the models asked for, each once; the configured one by default."""
    asked = [
        name.strip() for value in form.all("models") for name in value.split(",") if name.strip()
    ]
    for name in asked:
        check_model(name, known)
    return list(dict.fromkeys(asked)) or [known.name]


def check_model(name: str, known: ModelSpec) -> str:
    if name != known.name:
        raise UnknownModel(f"There is no model {name[:60]!r} here; this system has {known.name}.")
    return name


def priority(form: Form) -> str:
    value = form.one("priority") or "normal"
    if value not in PRIORITIES:
        raise BadRequest(f"The field 'priority' is one of {_listed(PRIORITIES)}.")
    return value


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1]


def processing_options(form: Form, known: ModelSpec) -> ProcessingOptions:
    return ProcessingOptions(
        models=model_names(form, known),
        priority=priority(form),
        skipDuplicateCheck=boolean(form, "skipDuplicateCheck", default=False),
        generateThumbnail=boolean(form, "generateThumbnail", default=True),
    )
