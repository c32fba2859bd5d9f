"""Damage beside the pixels of a PNG costs what is damaged, and not the picture."""

import io
import zlib

import pytest
from PIL import Image, PngImagePlugin

from deeplens_streams.errors import UndecodableImage
from deeplens_streams.imaging.header import inspect
from deeplens_streams.imaging.icc import LARGEST_PROFILE
from deeplens_streams.imaging.lenient_png import DAMAGED_CHUNK, LONG_TEXT
from tests.support.odd_headers import chunk
from tests.support.pictures import LIMIT, decoded, difference, quadrants, saved
from tests.support.profiles import grey_profile

HEADER_BYTES = 33
PLAIN = saved(quadrants(), "PNG")
UPRIGHT = decoded(PLAIN)


def beside(*chunks: bytes) -> bytes:
    return PLAIN[:HEADER_BYTES] + b"".join(chunks) + PLAIN[HEADER_BYTES:]


def damaged(kind: bytes, body: bytes) -> bytes:
    """Return a chunk whose checksum is wrong."""
    whole = bytearray(chunk(kind, body))
    whole[-1] ^= 1
    return bytes(whole)


def told(data: bytes) -> list[str]:
    return inspect(io.BytesIO(data), max_pixels=LIMIT).notes


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"tEXt", b"Title\0A picture"),
        (b"iTXt", b"Title\0\0\0\0\0A picture"),
        (b"zTXt", b"Title\0\0" + zlib.compress(b"A picture")),
        (b"tIME", b"\7\xea\1\1\0\0\0"),
        (b"prVt", b"anything"),
        (b"tRNS", bytes(6)),
        (b"eXIf", b"II*\0"),
        (b"pHYs", b"\0"),
    ],
)
def test_a_chunk_of_a_wrong_checksum_is_left_out(kind: bytes, body: bytes) -> None:
    data = beside(damaged(kind, body))
    assert (decoded(data) == UPRIGHT).all()
    assert told(data) == [DAMAGED_CHUNK]


def test_a_damaged_orientation_turns_nothing() -> None:
    exif = Image.Exif()
    exif[274] = 6
    header = inspect(
        io.BytesIO(beside(damaged(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))),
        max_pixels=LIMIT,
    )
    assert (header.width, header.height, header.exif) == (320, 240, None)


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE"])
def test_what_pixels_depend_on_may_not_be_damaged(kind: bytes) -> None:
    data = saved(quadrants().quantize(8), "PNG")
    at = data.index(kind)
    length = int.from_bytes(data[at - 4 : at], "big")
    end = at + 4 + length
    broken = data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :]
    with pytest.raises(UndecodableImage):
        decoded(broken)


@pytest.mark.parametrize(
    "text",
    [
        chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"a" * 1_100_000)),
        chunk(b"iTXt", b"Title\0\1\0\0\0" + zlib.compress(b"a" * 1_100_000)),
        chunk(b"zTXt", b"Title\0\7" + zlib.compress(b"a")),
    ],
    ids=["zTXt", "iTXt", "packed in an unknown way"],
)
def test_a_text_that_cannot_be_kept_is_left_out(text: bytes) -> None:
    data = beside(text, chunk(b"tEXt", b"Author\0Somebody"))
    assert (decoded(data) == UPRIGHT).all()
    assert told(data) == [LONG_TEXT]


def test_behind_the_pixels_it_is_left_out_as_well() -> None:
    text = chunk(b"zTXt", b"Title\0\0" + zlib.compress(b"a" * 1_100_000))
    data = PLAIN[:-12] + text + damaged(b"tEXt", b"Title\0A picture") + PLAIN[-12:]
    assert (decoded(data) == UPRIGHT).all()


def test_no_more_texts_are_unpacked_than_may_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 1_000)
    unpacked = 0
    unpack = PngImagePlugin._safe_zlib_decompress

    def counted(packed: bytes) -> bytes:
        nonlocal unpacked
        unpacked += 1
        return unpack(packed)

    monkeypatch.setattr(PngImagePlugin, "_safe_zlib_decompress", counted)
    texts = [chunk(b"zTXt", b"%d\0\0" % each + zlib.compress(bytes(400))) for each in range(50)]
    assert told(beside(*texts)) == [LONG_TEXT]
    assert unpacked == 3


def test_a_whole_picture_has_no_notes() -> None:
    data = beside(chunk(b"tEXt", b"Title\0A picture"), chunk(b"prVt", b"anything"))
    assert told(data) == told(PLAIN) == []
    assert difference(decoded(data), UPRIGHT) == 0


def test_an_animation_is_read_as_before() -> None:
    frames = {"save_all": True, "append_images": [Image.new("RGB", (320, 240))]}
    data = saved(quadrants(), "PNG", **frames)
    assert b"fdAT" in data
    assert (decoded(data) == UPRIGHT).all()


def test_a_file_may_end_in_a_chunk_behind_the_pixels() -> None:
    text = chunk(b"tEXt", b"Title\0A picture")
    pixels = PLAIN[: -len(chunk(b"IEND", b""))]
    for end in (text[:-1], text[:12], text[:6], b"", chunk(b"IDAT", bytes(99))[:20]):
        assert (decoded(pixels + end) == UPRIGHT).all()
    with pytest.raises(UndecodableImage):
        decoded(pixels[:-200])


def test_frames_that_nobody_looks_at_may_be_out_of_order() -> None:
    control = chunk(b"acTL", (2).to_bytes(4, "big") + bytes(4))
    later = chunk(b"fdAT", (7).to_bytes(4, "big") + b"any pixels")
    end = len(chunk(b"IEND", b""))
    data = beside(control)
    assert (decoded(data[:-end] + later + data[-end:]) == UPRIGHT).all()


def profile(unpacked: int, *, packing: bytes = b"\0") -> bytes:
    """Return the chunk of a profile that makes grey lighter, and is padded to so many bytes."""
    whole = grey_profile(1.0).ljust(unpacked, b"\0")
    return chunk(b"iCCP", b"any\0" + packing + zlib.compress(whole))


def grey_of(*chunks: bytes) -> int:
    data = saved(Image.new("L", (64, 64), 100), "PNG")
    return int(decoded(data[:HEADER_BYTES] + b"".join(chunks) + data[HEADER_BYTES:])[9, 9, 0])


@pytest.mark.parametrize("unpacked", [0, 1_100_000, LARGEST_PROFILE])
def test_a_profile_is_used_up_to_the_length_that_is_told(unpacked: int) -> None:
    assert abs(grey_of(profile(unpacked)) - 167) <= 1
    assert told(beside(profile(unpacked))) == []


@pytest.mark.parametrize("unpacked", [LARGEST_PROFILE + 1, 5_000_000])
def test_a_longer_profile_is_passed_over(unpacked: int) -> None:
    assert grey_of(profile(unpacked)) == 100
    assert told(beside(profile(unpacked))) == []


def test_the_first_profile_counts_and_no_other_is_unpacked() -> None:
    assert abs(grey_of(profile(0), profile(5_000_000)) - 167) <= 1
    assert grey_of(profile(5_000_000), profile(0)) == 100


@pytest.mark.parametrize(
    "damaged",
    [
        profile(0, packing=b"\7"),
        chunk(b"iCCP", b"any\0\0what no profile is packed into"),
        chunk(b"iCCP", b"any\0"),
        chunk(b"iCCP", b"any"),
        chunk(b"iCCP", b""),
    ],
    ids=["packed in an unknown way", "not packed", "no way of packing", "a name", "nothing"],
)
def test_a_profile_that_cannot_be_unpacked_is_left_out(damaged: bytes) -> None:
    assert grey_of(damaged) == 100
    assert told(beside(damaged)) == [DAMAGED_CHUNK]


SHORT = {
    b"gAMA": 3,
    b"cHRM": 31,
    b"sRGB": 0,
    b"pHYs": 8,
    b"tRNS": 5,
    b"acTL": 7,
    b"iCCP": 2,
    b"cICP": 3,
}


@pytest.mark.parametrize("kind", SHORT)
def test_a_chunk_that_is_too_short_is_left_out(kind: bytes) -> None:
    for length in {0, SHORT[kind]}:
        data = beside(chunk(kind, b"\1" * length))
        assert (decoded(data) == UPRIGHT).all()
        assert told(data) == [DAMAGED_CHUNK]


@pytest.mark.parametrize("kind", [*SHORT, b"fcTL"])
def test_behind_the_pixels_it_is_too(kind: bytes) -> None:
    data = PLAIN[:-12] + chunk(kind, b"\1" * SHORT.get(kind, 25)) + PLAIN[-12:]
    assert (decoded(data) == UPRIGHT).all()


@pytest.mark.parametrize("entries", [0, 9, 300])
def test_transparency_of_another_number_of_colours_is_no_damage(entries: int) -> None:
    data = saved(quadrants().quantize(8), "PNG")
    at = data.index(b"IDAT") - 4
    opaque = chunk(b"tRNS", b"\xff" * entries)
    assert (decoded(data[:at] + opaque + data[at:]) == decoded(data)).all()


def test_where_the_pixels_belong_may_not_be_damaged() -> None:
    with pytest.raises(UndecodableImage):
        decoded(beside(chunk(b"fcTL", b"\1" * 25)))
