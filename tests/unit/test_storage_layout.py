"""Keys: what they are made of and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deeplens_streams.errors import BadRequest
from deeplens_streams.identifiers import new_image_id
from deeplens_streams.imaging.formats import FORMATS
from deeplens_streams.storage import object_keys
from deeplens_streams.storage.listing.cursor import decode_cursor, encode_cursor

IMAGE = "img_11111111-2222-3333-4444-555555555555"


def test_keys_are_as_documented() -> None:
    at = "2025-03-09T23:59:59.999Z"
    ms = object_keys.epoch_ms(at)
    uuid = IMAGE.removeprefix("img_")
    assert (
        object_keys.metadata_key(tenant="acme", image_id=IMAGE, ms=ms)
        == f"acme/metadata/2025-03-09/23-59/1741564799999-{uuid}.json"
    )
    assert (
        object_keys.thumbnail_key(tenant="acme", image_id=IMAGE, uploaded_at=at)
        == f"acme/thumbnail/2025-03-09/{uuid}.jpg"
    )
    assert object_keys.pointer_key(IMAGE) == f"index/{uuid}"


@pytest.mark.parametrize("format", object_keys.images.EXTENSIONS)
def test_the_key_of_an_original_of_each_format_is_read_again(format: str) -> None:
    at = "2025-03-09T23:59:59.999Z"
    key = object_keys.original_key(tenant="acme", image_id=IMAGE, uploaded_at=at, format=format)
    assert object_keys.read_file_key(key) == IMAGE
    assert object_keys.is_original_key(key)
    assert object_keys.read_file_day(key) == "2025-03-09"


def test_a_day_is_a_day_in_utc() -> None:
    key = object_keys.thumbnail_key(
        tenant="acme", image_id=IMAGE, uploaded_at="2025-03-10T00:30:00+01:00"
    )
    assert key.startswith("acme/thumbnail/2025-03-09/")


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2025-03-09T12:00:00.001Z", 1741521600001),
        ("2025-03-09T12:00:00.001999Z", 1741521600001),
        ("2025-03-09T12:00:00.29Z", 1741521600290),
    ],
)
def test_time_is_cut_to_whole_milliseconds(text: str, ms: int) -> None:
    assert object_keys.epoch_ms(text) == ms


@pytest.mark.parametrize(
    "text", ["", "now", "2025-03-09T12:00:00", "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z"]
)
def test_a_time_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"isoformat|offset|cannot be when"):
        object_keys.epoch_ms(text)


@given(st.integers(0, 10**13 - 1), st.integers(0, 10**13 - 1))
def test_keys_sort_by_time(one: int, other: int) -> None:
    first = object_keys.metadata_key(tenant="acme", image_id=IMAGE, ms=one)
    second = object_keys.metadata_key(tenant="acme", image_id=IMAGE, ms=other)
    assert (first < second) == (one < other)
    assert object_keys.check_key(tenant="acme", key=first) == first


@given(st.integers(0, 10**13 - 1))
def test_a_cursor_leads_back_to_its_key(ms: int) -> None:
    key = object_keys.metadata_key(tenant="acme", image_id=new_image_id(), ms=ms)
    assert decode_cursor(
        tenant="acme", cursor=encode_cursor(tenant="acme", key=key)
    ) == object_keys.read_dated_key(key)


@given(st.text(max_size=60) | st.from_regex(r"[A-Za-z0-9_-]{40}", fullmatch=True))
def test_a_made_up_cursor_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        decode_cursor(tenant="acme", cursor=text)


@given(st.text())
def test_no_text_is_a_key_by_chance(text: str) -> None:
    with pytest.raises(object_keys.InvalidObjectKey):
        object_keys.check_key(tenant="acme", key=f"acme/{text}")


@pytest.mark.parametrize("format", sorted({each.name for each in FORMATS}))
def test_the_original_of_every_format_has_a_key_that_is_read_again(format: str) -> None:
    image_id = new_image_id()
    key = object_keys.original_key(
        tenant="acme-corp", image_id=image_id, uploaded_at="2026-11-28T09:00:00Z", format=format
    )
    object_keys.check_key(tenant="acme-corp", key=key)
    assert object_keys.read_file_key(key) == image_id
    assert object_keys.read_file_day(key) == "2026-11-28"
