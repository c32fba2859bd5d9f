"""What the models of forms read is what the OpenAPI document says of them, field by field."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from aiohttp import web

from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.web.forms import search, upload
from deeplens_streams.web.forms.multipart import Form
from deeplens_streams.web.openapi import forms as documented

REQUEST = cast(web.Request, None)
MODEL = UNTRAINED


class Watched(Form):
    """A form that notes which fields are asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def all(self, name: str) -> list[str]:
        self.asked.add(name)
        return super().all(name)

    def entries(self, prefix: str) -> Iterator[tuple[str, str]]:
        self.asked.add(f"{prefix}[")
        return super().entries(prefix)


@pytest.fixture(autouse=True)
def of_one_tenant(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (upload, search):
        monkeypatch.setattr(each, "tenant_of", lambda _request, given: given or "demo")


def names(schema: dict[str, Any], file_field: str) -> set[str]:
    patterns = {
        each.lstrip("^").split("\\[")[0] + "[" for each in schema.get("patternProperties", {})
    }
    return (schema["properties"].keys() - {file_field}) | patterns


def test_an_upload() -> None:
    form = Watched()
    form.file_name = "a.jpg"
    read = upload.UploadForm.read(REQUEST, form, model=MODEL)
    assert form.asked == names(documented.UPLOAD, upload.FILE_FIELD)
    properties = documented.UPLOAD["properties"]
    assert str(read.keep_gps).lower() == properties["keepGps"]["default"]
    assert read.options.priority == properties["priority"]["default"]
    options = read.options
    for name in ("skipDuplicateCheck", "generateThumbnail"):
        assert str(getattr(options, name)).lower() == properties[name]["default"]
    assert (read.file_name, read.url, read.tags) == ("a.jpg", None, {})


def test_a_search() -> None:
    form = Watched()
    form.file_name = "a.jpg"
    read = search.SearchForm.read(REQUEST, form, size=1, model=MODEL)
    assert form.asked == names(documented.SEARCH, search.FILE_FIELD)
    for name in ("limit", "threshold"):
        assert getattr(read, name) == documented.SEARCH["properties"][name]["default"]
