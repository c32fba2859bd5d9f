"""docs/compare_openapi.py finds what an OpenAPI document has lost."""

import copy
from typing import Any

import pytest

from deeplens_streams.web import ROUTES
from deeplens_streams.web.openapi import document
from docs.compare_openapi import compare


def small() -> dict[str, Any]:
    """Return a document with one of each thing."""
    image = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "Its own.", "examples": ["a.png"]},
            "state": {"anyOf": [{"type": "string", "enum": ["new", "old"]}, {"type": "null"}]},
        },
        "required": ["name", "state"],
    }
    return {
        "paths": {
            "/images": {
                "get": {
                    "operationId": "listImages",
                    "summary": "List them",
                    "parameters": [{"name": "limit", "in": "query", "schema": {"type": "integer"}}],
                    "responses": {
                        "200": {
                            "description": "Done.",
                            "content": {
                                "application/json": {
                                    "schema": {
                                        "type": "array",
                                        "items": {"$ref": "#/components/schemas/Image"},
                                    }
                                }
                            },
                        },
                        "429": {"description": "Too many.", "headers": {"Retry-After": {}}},
                    },
                }
            }
        },
        "components": {"schemas": {"Image": image}, "securitySchemes": {}},
    }


def in_document(*path: str | int) -> Any:
    """Return the small document, and the part of it at `path`."""
    made = small()
    part: Any = made
    for each in path:
        part = part[each]
    return made, part


GET = ("paths", "/images", "get")
IMAGE = ("components", "schemas", "Image")


@pytest.mark.parametrize(
    ("path", "gone", "said"),
    [
        (("paths", "/images"), "get", "GET /images"),
        ((*GET, "responses"), "429", "GET /images 429"),
        ((*GET, "parameters", 0, "schema"), "type", "GET /images query limit type"),
        ((*IMAGE, "properties"), "name", "GET /images 200 application/json items: .name"),
        ((*IMAGE, "properties", "name"), "examples", 'items: .name examples "a.png"'),
        ((*IMAGE, "properties", "name"), "description", "items: .name description"),
        (IMAGE, "required", 'items: required "state"'),
        ((*IMAGE, "properties", "state", "anyOf"), 1, "items: .state or null"),
        ((*IMAGE, "properties", "state", "anyOf", 0, "enum"), 1, 'items: .state enum "old"'),
    ],
)
def test_what_is_gone_is_lost(path: tuple[str | int, ...], gone: str | int, said: str) -> None:
    new, part = in_document(*path)
    del part[gone]
    found = compare(small(), new)
    assert found.breaks
    assert any(said in line for line in found.lost), found.lost
    assert not compare(new, small()).lost


def test_another_type_breaks_and_other_words_do_not() -> None:
    new, name = in_document(*IMAGE, "properties", "name")
    name["description"] = "What it is called."
    found = compare(small(), new)
    assert (found.lost, found.changed, len(found.reworded)) == ([], [], 1)
    assert not found.breaks
    name["type"] = "integer"
    assert compare(small(), new).breaks


def test_where_a_schema_stands_says_nothing() -> None:
    new, array = in_document(*GET, "responses", "200", "content", "application/json", "schema")
    array["items"] = copy.deepcopy(new["components"]["schemas"]["Image"])
    assert compare(small(), new).lost == []
    assert compare(small(), new).added == []


def test_the_document_of_the_routes_is_its_own() -> None:
    found = compare(document(ROUTES), document(ROUTES))
    assert (found.lost, found.changed, found.reworded, found.added) == ([], [], [], [])
