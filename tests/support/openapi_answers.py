"""Every answer of the web layer in tests is held against the OpenAPI document."""

import json
from functools import cache
from typing import Any

from aiohttp import web
from jsonschema import Draft202012Validator

from deeplens_streams.web import ROUTES
from deeplens_streams.web.openapi import document

_METHOD_NOT_ALLOWED = 405


@cache
def described() -> dict[str, Any]:
    return document(ROUTES)


@cache
def _validator(method: str, path: str, status: int, media_type: str) -> Draft202012Validator:
    responses = described()["paths"][path][method]["responses"]
    schema = responses[str(status)]["content"][media_type]["schema"]
    return Draft202012Validator({**schema, "components": described()["components"]})


def breaches_of(name: str, value: object) -> list[str]:
    """Return what a value has that the schema of that name does not say."""
    schema = {"$ref": f"#/components/schemas/{name}", "components": described()["components"]}
    return [error.message for error in Draft202012Validator(schema).iter_errors(value)]


def breaches(request: web.Request, response: web.StreamResponse) -> list[str]:
    """Return what this answer has that the document does not say; empty is right."""
    resource = request.match_info.route.resource
    path = resource.canonical if resource is not None else None
    operations = described()["paths"].get(path)
    if operations is None or response.status == _METHOD_NOT_ALLOWED:
        return []  # no address of ours, or no method of it
    method = "get" if request.method == "HEAD" else request.method.lower()
    name = f"{method} {path} {response.status}"
    answer = operations[method]["responses"].get(str(response.status))
    if answer is None:
        return [f"{name}: the status is not documented"]
    said = _breaches(answer, method, path or "", response)
    return [f"{name}: {each}" for each in said]


def _breaches(
    answer: dict[str, Any], method: str, path: str, response: web.StreamResponse
) -> list[str]:
    if "Retry-After" in answer.get("headers", {}) and "Retry-After" not in response.headers:
        return ["there is no Retry-After"]
    kinds = answer.get("content", {})
    if not kinds:
        return []
    kind = response.content_type
    if kind not in kinds and f"{kind.partition('/')[0]}/*" not in kinds:
        return [f"{kind} is not documented"]
    if kind != "application/json" or not isinstance(response, web.Response):
        return []
    assert isinstance(response.body, bytes)
    found = _validator(method, path, response.status, kind).iter_errors(json.loads(response.body))
    return [f"{error.json_path} {error.message}" for error in found]
