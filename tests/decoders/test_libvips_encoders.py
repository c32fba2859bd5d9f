"""What libvips' encoders write is read as libvips reads it: Pillow's cannot write much of it."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.decoders.comparison import both_read, found_in
from tests.support.programs import ROOT

#: A kind that no decoder here knows.
_UNKNOWN = "greya16"


@pytest.mark.timeout(300)
def test_what_libvips_writes_is_read_as_libvips_reads_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.decoders.making", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    paths = sorted(tmp_path.iterdir())
    both = dict(zip([path.name for path in paths], both_read(paths), strict=True))
    differ = {name: what for name, each in both.items() if (what := found_in(*each))}
    unknown = {name for name in both if name.startswith(_UNKNOWN) and name.endswith(".tif")}
    assert differ == dict.fromkeys(unknown, "taken by libvips")
    assert all(both[name][0]["refused"].startswith("UNSUPPORTED_KIND") for name in unknown)
    taken = Counter(ours["format"] for ours, _ in both.values() if "pixels" in ours)
    assert taken == {"TIFF": 64, "PNG": 28, "AVIF": 13, "JPEG": 9, "WEBP": 7, "GIF": 4}
