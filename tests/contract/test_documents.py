"""The OpenAPI and AsyncAPI documents say what the code does."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator
from openapi_spec_validator import validate

from deeplens_streams import errors
from deeplens_streams.broker import codec
from deeplens_streams.broker.topology import TOPICS
from deeplens_streams.config import load_settings
from deeplens_streams.errors import DeepLensError
from deeplens_streams.web import ROUTES
from deeplens_streams.web.middleware.auth import Route
from deeplens_streams.web.openapi import AUTHENTICATION_ERRORS, OPERATIONS, document
from deeplens_streams.web.openapi.asyncapi import FLOWS, asyncapi_document
from models.events import Event
from tests.support.web_server import running

HERE = Path(__file__).parent

#: Those that only their stages and starts can raise.
_NEVER_ANSWERED = {
    errors.ConfigurationError,
    errors.WeightsUnavailable,
    errors.MalformedEvent,
    errors.OriginalMissing,
    errors.NewerVersion,
    errors.DimensionMismatch,
    errors.VectorsRefused,
    errors.BrokerRefused,
    errors.DependencyUnavailable,
    errors.TableUnavailable,
    errors.DeepLensError,
}

by_path = pytest.mark.parametrize("route", ROUTES, ids=lambda each: f"{each.method} {each.path}")


def described(route: Route) -> dict[str, Any]:
    found: dict[str, Any] = document(ROUTES)["paths"][route.path][route.method.lower()]
    return found


def test_the_openapi_document_is_valid() -> None:
    validate(document(ROUTES))


def test_every_operation_is_of_a_route_and_has_a_name_of_its_own() -> None:
    assert {route.handler for route in ROUTES} == OPERATIONS.keys()
    names = [operation.name for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)


@by_path
def test_an_endpoint_s_placeholders_are_its_document_s(route: Route) -> None:
    operation = OPERATIONS[route.handler]
    placeholders = {part[1:-1] for part in route.path.split("/") if part.startswith("{")}
    assert placeholders == {each.name for each in operation.parameters if each.place == "path"}


@by_path
def test_each_error_s_status_and_code_are_documented(route: Route) -> None:
    operation, responses = OPERATIONS[route.handler], described(route)["responses"]
    for error in operation.errors:
        answer = responses[str(error.http_status)]
        body = {
            **route.answer.blank(),
            "success": False,
            "message": error().message,
            "errorCode": error.code,
        }
        schema = answer["content"]["application/json"]["schema"]
        components = document(ROUTES)["components"]
        Draft202012Validator({**schema, "components": components}).validate(body)
        assert error.retryable == ("Retry-After" in answer.get("headers", {}))
    asked = {401, 403, 429} if route.scope else set()
    assert {str(status) for status in asked} <= responses.keys()


def test_no_error_that_a_request_may_meet_is_left_out() -> None:
    known = {
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, DeepLensError)
    }
    documented = {error for operation in OPERATIONS.values() for error in operation.errors}
    documented |= {*AUTHENTICATION_ERRORS, errors.HostRefused}
    assert known - documented == _NEVER_ANSWERED


def test_the_asyncapi_document_is_valid() -> None:
    schema = json.loads((HERE / "schemas" / "asyncapi-3.0.0.json").read_text("utf-8"))
    Draft7Validator(schema).validate(asyncapi_document(load_settings(namespace="some")))


def test_every_topic_and_event_is_in_the_asyncapi_document() -> None:
    found = asyncapi_document(load_settings(namespace="some"))
    channels = {each["address"]: each for each in found["channels"].values()}
    for topic in TOPICS:
        kafka = channels[topic.name("some")]["bindings"]["kafka"]
        assert kafka["partitions"] == topic.partitions
    assert {flow.event for flow in FLOWS} == set(_events(Event))


def _events(base: type[Event]) -> list[type[Event]]:
    found = [each for sub in base.__subclasses__() for each in (sub, *_events(sub))]
    return [each for each in found if each.EVENT_TYPE]  # the others are what events share


@pytest.mark.parametrize(
    "path", sorted((HERE / "events").glob("*.json")), ids=lambda each: each.name
)
def test_the_events_of_the_contract_fit_their_schemas(path: Path) -> None:
    found = asyncapi_document(load_settings())
    example = json.loads(path.read_text("utf-8"))
    event = next(flow.event for flow in FLOWS if example["eventType"] == flow.event.EVENT_TYPE)
    schema = {
        "$ref": f"#/components/schemas/{event.__name__}",
        "components": found["components"],
    }
    validator = Draft202012Validator(schema)
    validator.validate(example)
    validator.validate(json.loads(codec.encode(codec.from_wire(event, example))))
    lacking = {name: value for name, value in example.items() if name != "tenantId"}
    assert not validator.is_valid(lacking)


async def test_both_are_served_with_the_page_to_try_them(tmp_path: Path) -> None:
    async with running(tmp_path) as served:
        for path, key in (("/openapi.json", "openapi"), ("/asyncapi.json", "asyncapi")):
            async with served.client.get(path) as response:
                assert response.content_type == "application/json"
                assert (await response.json())[key].startswith("3.")
                headers = {"If-None-Match": response.headers["ETag"]}
            async with served.client.get(path, headers=headers) as response:
                assert response.status == 304
        async with served.client.get("/docs") as response:
            assert response.status == 200
            assert "'unsafe" not in response.headers["Content-Security-Policy"]
            assert "/static/api.js" in await response.text()
