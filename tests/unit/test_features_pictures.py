"""Opening and decoding pictures: every format, every mode, and what strangers send instead."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import orjson
import pytest
from PIL import ExifTags, Image, ImageCms
from pillow_heif import register_heif_opener

from deeplens_streams.errors import TooManyPixels, UndecodableImage, UnsupportedFormat
from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.imaging.decode import decode
from deeplens_streams.imaging.formats import FORMATS, identify
from deeplens_streams.imaging.header import inspect
from tests.support.pictures import LIMIT, decoded, difference, quadrants, saved

register_heif_opener()


UPRIGHT = decoded(saved(quadrants(), "PNG"))
_LOSSLESS, _LOSSY = 1.5, 4.0

VARIANTS = {
    "jpeg": (saved(quadrants(), "JPEG", quality=95), "JPEG"),
    "jpeg progressive": (saved(quadrants(), "JPEG", quality=95, progressive=True), "JPEG"),
    "jpeg cmyk": (saved(quadrants().convert("CMYK"), "JPEG", quality=95), "JPEG"),
    "png": (saved(quadrants(), "PNG"), "PNG"),
    "png palette": (saved(quadrants().quantize(8), "PNG"), "PNG"),
    "webp": (saved(quadrants(), "WEBP", quality=95), "WEBP"),
    "webp lossless": (saved(quadrants(), "WEBP", lossless=True), "WEBP"),
    "bmp": (saved(quadrants(), "BMP"), "BMP"),
    "tiff": (saved(quadrants(), "TIFF"), "TIFF"),
    "tiff lzw": (saved(quadrants(), "TIFF", compression="tiff_lzw"), "TIFF"),
    "tiff cmyk": (saved(quadrants().convert("CMYK"), "TIFF"), "TIFF"),
    "gif": (saved(quadrants(), "GIF"), "GIF"),
    "avif": (saved(quadrants(), "AVIF", quality=95), "AVIF"),
    "heic": (saved(quadrants(), "HEIF", quality=95), "HEIF"),
    "jpeg 2000": (saved(quadrants(), "JPEG2000"), "JPEG2000"),
}
ANIMATED = {
    name: saved(
        quadrants(),
        name,
        save_all=True,
        append_images=[Image.new("RGB", (320, 240), "black")],
        **({"lossless": True} if name == "WEBP" else {}),
    )
    for name in ("GIF", "WEBP", "PNG", "TIFF", "AVIF")
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_format_decodes_to_the_same_picture(variant: str) -> None:
    data, name = VARIANTS[variant]
    found = decode(data, UNTRAINED, max_pixels=LIMIT, thumbnail_px=64)
    assert (found.format, found.width, found.height) == (name, 320, 240)
    assert found.pixels.shape == (224, 224, 3)
    assert found.pixels.dtype == np.uint8
    lossless = any(word in variant for word in ("png", "bmp", "tiff", "gif", "lossless"))
    assert difference(found.pixels, UPRIGHT) < (_LOSSLESS if lossless else _LOSSY)
    with Image.open(io.BytesIO(found.thumbnail or b"")) as thumbnail:
        assert (thumbnail.format, thumbnail.size) == ("JPEG", (64, 48))


@pytest.mark.parametrize("variant", VARIANTS)
def test_headers_say_what_decoding_finds(variant: str, tmp_path: Path) -> None:
    data, name = VARIANTS[variant]
    path = tmp_path / "spooled"  # no suffix: only the content counts
    path.write_bytes(data)
    header = inspect(path, max_pixels=LIMIT)
    assert (header.format, header.width, header.height) == (name, 320, 240)
    assert header.content_type in {each.content_type for each in FORMATS}
    assert header == inspect(io.BytesIO(data), max_pixels=LIMIT)


@pytest.mark.parametrize("name", ANIMATED)
def test_of_animations_the_first_frame_counts(name: str) -> None:
    assert difference(decoded(ANIMATED[name]), UPRIGHT) < _LOSSY


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256 * 256).reshape(256, 256)
    expected = decoded(saved(Image.fromarray((ramp / 257).astype(np.uint8)), "PNG"))
    for name in ("PNG", "TIFF"):
        sixteen = Image.fromarray(ramp.astype(np.uint16))
        assert difference(decoded(saved(sixteen, name)), expected) < _LOSSLESS


def test_float_and_32_bit_samples_are_stretched() -> None:
    ramp = np.linspace(-3, 5, 256 * 256).reshape(256, 256)
    expected = decoded(saved(Image.fromarray(((ramp + 3) * 255 / 8).astype(np.uint8)), "PNG"))
    for samples in (ramp.astype(np.float32), (ramp * 1e6).astype(np.int32)):
        assert difference(decoded(saved(Image.fromarray(samples), "TIFF")), expected) < _LOSSLESS


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode: str) -> None:
    image = Image.new("RGBA", (300, 300), (255, 0, 0, 0))
    if mode == "P":
        palette = Image.new("P", (300, 300), 0)
        palette.putpalette([255, 0, 0] * 256)
        data = saved(palette, "PNG", transparency=0)
    else:
        data = saved(image.convert(mode), "PNG")
    assert decoded(data).min() == 255


def test_grey_and_black_and_white_have_three_channels() -> None:
    for mode in ("L", "1"):
        pixels = decoded(saved(Image.new(mode, (300, 300), 255), "PNG"))
        assert pixels.shape == (224, 224, 3)
        assert pixels.min() == 255


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation_comes_first(format: str, turn: int) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    turned = quadrants().transpose(undo[turn]) if turn in undo else quadrants()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = turn
    data = saved(turned, format, exif=exif.tobytes())
    found = decode(data, UNTRAINED, max_pixels=LIMIT, thumbnail_px=64)
    header = inspect(io.BytesIO(data), max_pixels=LIMIT)
    assert (found.width, found.height) == (header.width, header.height) == (320, 240)
    assert difference(found.pixels, UPRIGHT) < _LOSSY
    with Image.open(io.BytesIO(found.thumbnail or b"")) as thumbnail:
        assert thumbnail.size == (64, 48)
        assert not thumbnail.getexif()


def test_orientation_counts_when_a_jpeg_is_decoded_at_reduced_scale() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    large = quadrants((3200, 2400)).transpose(Image.Transpose.ROTATE_90)
    found = decode(saved(large, "JPEG", exif=exif), UNTRAINED, max_pixels=LIMIT, thumbnail_px=256)
    assert (found.width, found.height) == (3200, 2400)
    assert difference(found.pixels, UPRIGHT) < _LOSSY


def test_tags_are_named_plain_and_without_places() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Maker\0\n" + "x" * 500
    exif[ExifTags.Base.XResolution] = 72.5
    exif[ExifTags.Base.PrintImageMatching] = b"\x00" * 50
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FNumber] = 2.8
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.MakerNote] = b"secret"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (48.0, 8.0, 1.0)
    header = inspect(io.BytesIO(saved(quadrants(), "JPEG", exif=exif)), max_pixels=LIMIT)
    assert header.exif is not None
    assert header.exif["Make"].startswith("Makerx")
    assert len(header.exif["Make"]) == 200
    assert header.exif["FNumber"] == pytest.approx(2.8)
    assert header.exif["XResolution"] == pytest.approx(72.5)
    assert not {"GPSInfo", "MakerNote", "PrintImageMatching"} & header.exif.keys()
    assert orjson.loads(orjson.dumps(header.exif)) == header.exif


def test_the_colour_profile_is_named_and_thumbnails_are_srgb() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    data = saved(quadrants(), "JPEG", icc_profile=profile.tobytes())
    assert "sRGB" in (inspect(io.BytesIO(data), max_pixels=LIMIT).color_profile or "")
    made = decode(data, UNTRAINED, max_pixels=LIMIT, thumbnail_px=64).thumbnail
    with Image.open(io.BytesIO(made or b"")) as thumbnail:
        assert "icc_profile" not in thumbnail.info


def test_a_damaged_profile_is_no_damage_to_the_picture() -> None:
    data = saved(quadrants(), "JPEG", icc_profile=b"nonsense" * 20)
    assert inspect(io.BytesIO(data), max_pixels=LIMIT).color_profile is None
    assert decode(data, UNTRAINED, max_pixels=LIMIT, thumbnail_px=64).thumbnail


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"BM is how this text begins, and it is no bitmap",
        b"<!DOCTYPE html><html><body>not a picture</body></html>",
        b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>',
        b"%PDF-1.7\n",
        b"\0\0\0\x18ftypisom\0\0\x02\0isomiso2mp41",
        b"\0\0\1\0\1\0 an icon",
        b"\x76\x2f\x31\x01 an EXR",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ],
)
def test_what_is_none_of_the_formats_is_refused(data: bytes) -> None:
    with pytest.raises(UnsupportedFormat):
        inspect(io.BytesIO(data), max_pixels=LIMIT)
    with pytest.raises(UnsupportedFormat):
        decoded(data)


@pytest.mark.parametrize("variant", [each for each in VARIANTS if each != "bmp"])
def test_what_is_cut_short_is_undecodable(variant: str) -> None:
    data, _ = VARIANTS[variant]
    for keep in (len(data) * 2 // 3, 70):
        with pytest.raises(UndecodableImage):
            decoded(data[:keep])


def test_noise_after_a_good_beginning_is_undecodable() -> None:
    noise = bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8))
    for data, _ in VARIANTS.values():
        if identify(data[:12] + noise) is not None:
            with pytest.raises(UndecodableImage):
                decoded(data[:12] + noise)


def test_a_mislabelled_file_is_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(VARIANTS["png"][0])
    assert inspect(path, max_pixels=LIMIT).content_type == "image/png"


def huge_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99))


def test_too_many_pixels_are_refused_before_decoding() -> None:
    for look in (lambda data: inspect(io.BytesIO(data), max_pixels=LIMIT), decoded):
        with pytest.raises(TooManyPixels, match=r"20,000 x 20,000 .* 400\.0 megapixels"):
            look(huge_png(20_000, 20_000))


def test_the_limit_is_the_settings_and_not_pillows() -> None:
    just_right = saved(Image.new("1", (15_000, 12_000)), "PNG")  # Pillow itself would refuse
    assert decode(just_right, UNTRAINED, max_pixels=180_000_000).width == 15_000


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (3000, 2), (223, 225)])
def test_odd_sizes_decode(size: tuple[int, int]) -> None:
    for name in ("PNG", "JPEG"):
        data = saved(Image.new("RGB", size, "red"), name)
        found = decode(data, UNTRAINED, max_pixels=LIMIT, thumbnail_px=256)
        assert found.pixels.shape == (224, 224, 3)
        with Image.open(io.BytesIO(found.thumbnail or b"")) as thumbnail:
            assert max(thumbnail.size) == min(256, max(size))


@pytest.mark.parametrize(("side", "most"), [(16, 12), (64, 12), (128, 12)])
def test_a_small_thumbnail_keeps_the_colour_of_each_pixel(side: int, most: int) -> None:
    stripes = np.zeros((side, side, 3), np.uint8)
    stripes[:, ::2] = (255, 0, 0)
    stripes[:, 1::2] = (0, 0, 255)
    made = decode(
        saved(Image.fromarray(stripes), "PNG"), UNTRAINED, max_pixels=LIMIT, thumbnail_px=256
    ).thumbnail
    with Image.open(io.BytesIO(made or b"")) as thumbnail:
        assert difference(np.asarray(thumbnail), stripes) < most
