"""The contract's example events decode, and their re-encoding holds every field."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from deeplens_streams.broker import codec
from deeplens_streams.errors import InvalidTenantId, MalformedEvent
from models.events import (
    Event,
    FeatureExtractionRequested,
    ImageUploaded,
    ProcessingCompleted,
    ProcessingFailed,
    ProcessingFailedData,
    VectorIndexingRequested,
)

EXAMPLES = Path(__file__).parent / "events"
CASES: list[tuple[str, type[Event]]] = [
    ("1-image.uploaded", ImageUploaded),
    ("2-feature.extraction.requested", FeatureExtractionRequested),
    ("3-vector.indexing.requested", VectorIndexingRequested),
    ("4-processing.completed", ProcessingCompleted),
]


def example(name: str) -> dict[str, Any]:
    data: dict[str, Any] = orjson.loads((EXAMPLES / f"{name}.json").read_bytes())
    return data


def assert_holds(written: Any, given: Any) -> None:
    if isinstance(given, dict):
        for key, value in given.items():
            assert_holds(written[key], value)
    elif isinstance(given, list):
        assert len(written) == len(given)
        for one, other in zip(written, given, strict=True):
            assert_holds(one, other)
    else:
        assert written == given


def required_paths(data: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    paths = []
    for key, value in data.items():
        paths.append((*prefix, key))
        if isinstance(value, dict):
            paths += required_paths(value, (*prefix, key))
    return paths


@pytest.mark.parametrize(("name", "record"), CASES)
def test_example_survives_the_way_through(name: str, record: type[Event]) -> None:
    given = example(name)
    event = codec.decode(record, orjson.dumps(given))
    assert_holds(orjson.loads(codec.encode(event)), given)


@pytest.mark.parametrize(("name", "record"), CASES)
def test_unknown_fields_and_a_newer_minor_version_are_taken(name: str, record: type[Event]) -> None:
    given = example(name) | {"eventVersion": "1.7", "future": {"a": 1}}
    given["data"]["alsoNew"] = [1, 2]
    event = codec.decode(record, orjson.dumps(given))
    assert event.image_id == given["data"]["imageId"]
    assert_holds(orjson.loads(codec.encode(event)), given)


@pytest.mark.parametrize(
    ("name", "record", "path"),
    [(name, record, path) for name, record in CASES for path in required_paths(example(name))],
)
def test_a_missing_field_is_named(name: str, record: type[Event], path: tuple[str, ...]) -> None:
    given = example(name)
    parent = given
    for key in path[:-1]:
        parent = parent[key]
    del parent[path[-1]]
    with pytest.raises(MalformedEvent, match=rf"{path[-1]} is missing"):
        codec.decode(record, orjson.dumps(given))


@pytest.mark.parametrize("raw", [None, b"", b"x", b"[]", b"17", b'"text"', b"\xff\xfe", b"{}"])
def test_what_is_no_event_is_refused(raw: bytes | None) -> None:
    with pytest.raises(MalformedEvent):
        codec.decode(ImageUploaded, raw)


def test_wrong_types_are_named() -> None:
    given = example("1-image.uploaded")
    given["data"]["fileSize"] = "large"
    with pytest.raises(MalformedEvent, match=r"data\.fileSize is not of type int"):
        codec.decode(ImageUploaded, orjson.dumps(given))
    vector = example("3-vector.indexing.requested")
    vector["data"]["featureVector"] = [0.1, "0.2"]
    with pytest.raises(MalformedEvent, match="no number"):
        codec.decode(VectorIndexingRequested, orjson.dumps(vector))


def test_another_event_or_major_version_is_refused() -> None:
    given = example("1-image.uploaded")
    with pytest.raises(MalformedEvent, match="other"):
        codec.decode(ImageUploaded, orjson.dumps(given | {"eventType": "other"}))
    with pytest.raises(MalformedEvent, match=r"1\.x"):
        codec.decode(ImageUploaded, orjson.dumps(given | {"eventVersion": "2.0"}))


@pytest.mark.parametrize("tenant", ["", "Acme", "../etc", "a_b", "ä", "a" * 64, "-a"])
def test_a_tenant_id_that_could_not_be_is_refused(tenant: str) -> None:
    given = example("1-image.uploaded") | {"tenantId": tenant}
    with pytest.raises(InvalidTenantId):
        codec.decode(ImageUploaded, orjson.dumps(given))


def test_a_dead_letter_may_belong_to_nobody() -> None:
    letter = ProcessingFailed(
        eventType="processing.failed",
        tenantId="",
        correlationId="",
        data=ProcessingFailedData(
            failedStep="image_processing",
            errorCode="MALFORMED_EVENT",
            errorMessage="no JSON",
            originalEvent={"valueBase64": "eA=="},
        ),
    )
    again = codec.decode(ProcessingFailed, codec.encode(letter))
    assert again == letter
    assert again.data.imageId is None


def test_headers_say_whose_an_event_is() -> None:
    event = codec.decode(
        FeatureExtractionRequested, orjson.dumps(example("2-feature.extraction.requested"))
    )
    headers = codec.headers(event)
    assert set(headers) == {"eventType", "tenantId", "correlationId", "timestamp"}
    assert headers["tenantId"] == b"acme-corp"
