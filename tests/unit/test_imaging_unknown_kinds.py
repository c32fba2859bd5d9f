"""Whole pictures of kinds that no decoder here knows are not called damaged."""

import io

import pytest
from PIL import Image

from deeplens_streams.errors import UndecodableImage, UnsupportedKind
from deeplens_streams.features.pictures import inspect
from deeplens_streams.imaging.unknown_kinds import unknown_kind
from tests.support.pictures import LIMIT, decoded, saved


def changed(name: str, begin: bytes, offset: int, put: bytes) -> bytes:
    """Return a picture with bytes exchanged behind the first place that begins so."""
    data = saved(Image.new("RGB", (16, 16)), name)
    at = data.index(begin) + offset
    return data[:at] + put + data[at + len(put) :]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (changed("JPEG", b"\xff\xc0", 4, b"\x0c"), "JPEG .* 12-bit"),
        (changed("BMP", b"\x28\0\0\0", 14, b"\x80\0"), "BMP .* depth"),
        (changed("BMP", b"\x28\0\0\0", 16, b"\5\0"), "BMP .* compression"),
    ],
    ids=["JPEG of 12 bits", "BMP of 128 bits", "BMP with a PNG inside"],
)
def test_a_whole_picture_of_an_unknown_kind_is_named(data: bytes, told: str) -> None:
    for look in (lambda each: inspect(io.BytesIO(each), max_pixels=LIMIT), decoded):
        with pytest.raises(UnsupportedKind, match=f"This kind of {told}"):
            look(data)


def test_damage_is_no_unknown_kind() -> None:
    with pytest.raises(UndecodableImage) as found:
        decoded(saved(Image.new("RGB", (16, 16)), "TIFF")[:60])
    assert not isinstance(found.value, UnsupportedKind)


def test_what_is_told_is_printable_and_short() -> None:
    assert unknown_kind(ValueError("Unsupported \0\n" + "x" * 500)) == "Unsupported " + "x" * 88
    assert unknown_kind(ValueError("it is broken")) is None
