"""Raw files of cameras: the JPEG of full size in them, or a refusal, and never the stamp."""

import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from deeplens_streams.errors import UnsupportedFormat, UnsupportedKind
from deeplens_streams.features.models import UNTRAINED
from deeplens_streams.imaging.decode import decode
from deeplens_streams.imaging.header import inspect
from deeplens_streams.imaging.raw_files import raw_file
from deeplens_streams.imaging.tiff_directories import directories
from tests.support.pictures import LIMIT, decoded, difference, quadrants, saved, sizes

SHORT, LONG, ASCII, BYTE = 3, 4, 2, 1
_FORMS = {SHORT: "H", LONG: "I", BYTE: "B"}
FULL = quadrants((640, 480))
SENSOR = (656, 492)

Tags = dict[int, tuple[int, list[int] | bytes]]


class File:
    """A TIFF that is written piece by piece."""

    def __init__(self, order: str = "<", mark: bytes = b"") -> None:
        self.order = order
        magic = b"II*\0" if order == "<" else b"MM\0*"
        self.data = bytearray(magic + bytes(4) + mark)

    def put(self, piece: bytes) -> int:
        self.data += bytes(len(self.data) % 2)
        self.data += piece
        return len(self.data) - len(piece)

    def directory(self, tags: Tags, following: int = 0) -> int:
        entries = b""
        for tag, (kind, value) in sorted(tags.items()):
            told = value if isinstance(value, bytes) else b""
            if not isinstance(value, bytes):
                told = struct.pack(f"{self.order}{len(value)}{_FORMS[kind]}", *value)
            count = len(value)
            if len(told) > 4:
                told = struct.pack(f"{self.order}I", self.put(told))
            entries += struct.pack(f"{self.order}HHI", tag, kind, count) + told.ljust(4, b"\0")
        head = struct.pack(f"{self.order}H", len(tags))
        return self.put(head + entries + struct.pack(f"{self.order}I", following))

    def whole(self, first: int) -> bytes:
        self.data[4:8] = struct.pack(f"{self.order}I", first)
        return bytes(self.data)


def of_size(size: tuple[int, int], kind: int) -> Tags:
    return {254: (LONG, [kind]), 256: (LONG, [size[0]]), 257: (LONG, [size[1]])}


def stamp(file: File) -> Tags:
    """Return what tells of a stamp of 160 x 120 black pixels."""
    return of_size((160, 120), 1) | {
        258: (SHORT, [8, 8, 8]),
        259: (SHORT, [1]),
        262: (SHORT, [2]),
        273: (LONG, [file.put(bytes(160 * 120 * 3))]),
        277: (SHORT, [3]),
        279: (LONG, [160 * 120 * 3]),
    }


def sensor(compression: int = 1) -> Tags:
    return of_size(SENSOR, 0) | {
        258: (SHORT, [16]),
        259: (SHORT, [compression]),
        262: (SHORT, [32803]),
        273: (LONG, [8]),
        279: (LONG, [100]),
    }


def jpeg(file: File, image: Image.Image, place: int = 513, length: int = 514) -> Tags:
    data = saved(image, "JPEG", quality=95)
    at = file.put(data)
    return of_size(image.size, 1) | {
        259: (SHORT, [7]),
        262: (SHORT, [6]),
        place: (LONG, [at]),
        length: (LONG, [len(data)]),
    }


def camera(
    image: Image.Image | None,
    *,
    order: str = "<",
    strips: bool = False,
    dng: bool = False,
    turn: int = 1,
) -> bytes:
    """Return a file with a stamp, raw pixels below it, and perhaps a JPEG there."""
    file = File(order)
    below = [file.directory(sensor())]
    if image is not None:
        where = (273, 279) if strips else (513, 514)
        below.insert(0, file.directory(jpeg(file, image, *where)))
    tags = stamp(file) | {
        271: (ASCII, b"Maker\0"),
        272: (ASCII, b"Camera 1\0"),
        274: (SHORT, [turn]),
        330: (LONG, below),
    }
    if dng:
        tags[50706] = (BYTE, [1, 4, 0, 0])
    return file.whole(file.directory(tags))


def chain(image: Image.Image) -> bytes:
    """Return a file whose first directory has the sensor's pixels, and a later one a JPEG."""
    file = File()
    last = file.directory(jpeg(file, image))
    second = file.directory(stamp(file), last)
    return file.whole(file.directory(sensor(65535), second))


def canon(image: Image.Image) -> bytes:
    """Return a file whose first directory is a JPEG, and whose sensor has no size."""
    file = File(mark=b"CR\2\0" + bytes(4 + 200))
    last = file.directory({259: (SHORT, [6]), 273: (LONG, [8]), 279: (LONG, [100])})
    at = file.directory(jpeg(file, image, 273, 279), last)
    file.data[16 : 16 + len(file.data) - at] = file.data[at:]
    return file.whole(16)


@pytest.mark.parametrize(
    "data",
    [
        camera(FULL),
        camera(FULL, order=">"),
        camera(FULL, strips=True, dng=True),
        chain(FULL),
        canon(FULL),
    ],
    ids=["JPEG by its tags", "big-endian", "JPEG as a strip", "in the chain", "in the first"],
)
def test_of_a_raw_file_the_jpeg_of_full_size_is_shown(data: bytes) -> None:
    assert sizes(data) == ((640, 480), (640, 480))
    assert difference(decoded(data), decoded(saved(FULL, "PNG"))) < 4
    found = decode(data, UNTRAINED, max_pixels=LIMIT)
    assert found.format == "TIFF"


def test_it_is_turned_as_the_raw_file_says_and_its_camera_told() -> None:
    data = camera(FULL.rotate(90, expand=True), turn=6)
    assert sizes(data) == ((640, 480), (640, 480))
    assert difference(decoded(data), decoded(saved(FULL, "PNG"))) < 4
    header = inspect(io.BytesIO(data), max_pixels=LIMIT)
    assert header.exif == {"Make": "Maker", "Model": "Camera 1", "Orientation": 6}


@pytest.mark.parametrize(
    "data",
    [
        camera(None),
        camera(None, dng=True),
        camera(quadrants((320, 240))),
        chain(quadrants((160, 120))),
        File(mark=b"IIIITwaR").whole(8),
    ],
    ids=["no JPEG", "DNG", "a small JPEG", "a stamp in the chain", "Phase One"],
)
def test_a_raw_file_without_one_is_refused_with_a_sentence(data: bytes) -> None:
    for look in (lambda each: inspect(io.BytesIO(each), max_pixels=LIMIT), decoded):
        with pytest.raises(UnsupportedFormat, match="raw file of a camera") as found:
            look(data)
        assert not isinstance(found.value, UnsupportedKind)


def test_raw_pixels_that_are_a_lossless_jpeg_are_no_jpeg_of_full_size() -> None:
    data = saved(FULL, "JPEG")
    lossless = camera(FULL).replace(b"\xff\xc0", b"\xff\xc3")
    assert data.count(b"\xff\xc0") == 1
    with pytest.raises(UnsupportedFormat):
        decoded(lossless)


@pytest.mark.parametrize(
    "data",
    [
        saved(quadrants(), "TIFF"),
        saved(quadrants(), "TIFF", compression="jpeg"),
        saved(quadrants(), "TIFF", save_all=True, append_images=[quadrants((640, 480))]),
        saved(Image.new("L", (64, 64), 73), "TIFF"),
    ],
    ids=["plain", "JPEG", "pages", "bytes like a mark"],
)
def test_an_ordinary_tiff_is_none(data: bytes) -> None:
    assert raw_file(io.BytesIO(data)) is None


def test_a_pyramid_is_an_ordinary_tiff() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(np.asarray(FULL), photometric="rgb", subifds=1)
        file.write(np.asarray(FULL)[::2, ::2], photometric="rgb", subfiletype=1)
    assert raw_file(buffer) is None
    assert sizes(buffer.getvalue()) == ((640, 480), (640, 480))


def test_damage_anywhere_ends_in_one_of_our_errors() -> None:
    data = camera(FULL)
    for keep in range(0, len(data), 997):
        raw_file(io.BytesIO(data[:keep]))
    head = bytearray(data)
    for at in range(len(data) - 400, len(data)):
        head[at] ^= 0xFF
        raw_file(io.BytesIO(bytes(head)))
        head[at] ^= 0xFF


def test_directories_that_lead_to_themselves_are_read_once() -> None:
    file = File()
    at = len(file.data)
    data = file.whole(file.directory({330: (LONG, [at, at])}, at))
    assert len(directories(io.BytesIO(data))) == 1
