"""OpenVINO against torch, conversions that are kept, and what an engine tells others: nothing."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError, DeepLensError, WeightsUnavailable
from deeplens_streams.features.base import ModelSpec, Precision
from deeplens_streams.features.engines import open_engine
from deeplens_streams.features.engines.kept import kept_path, read_converted
from deeplens_streams.features.engines.openvino_engine import OpenVinoEngine, find_converted
from deeplens_streams.features.engines.precision import choose_precision, cpu_multiplies_bfloat16
from deeplens_streams.features.engines.runtime import openvino
from deeplens_streams.features.engines.torch_engine import TorchEngine
from deeplens_streams.features.models import EFFICIENTNET_LITE0, RESNET50, UNTRAINED
from deeplens_streams.imaging.decode import decode
from tests.support.photographs import photographs
from tests.support.weights import efficientnet_lite0_weights

OPENVINO, TORCH = Settings(engine="openvino"), Settings(engine="torch", device="cpu")
MODELS = [
    pytest.param(UNTRAINED, None, id="resnet50"),
    pytest.param(EFFICIENTNET_LITE0, efficientnet_lite0_weights(), id="efficientnet-lite0"),
]
needs_bfloat16 = pytest.mark.skipif(
    not cpu_multiplies_bfloat16(), reason="this CPU has no instructions for bfloat16"
)


def pixels_of(model: ModelSpec) -> np.ndarray:
    return np.stack([pixels_of_one(each.data, model) for each in photographs()[::2]])


def pixels_of_one(picture: bytes, model: ModelSpec) -> np.ndarray:
    return decode(picture, model, max_pixels=100_000_000).pixels


def cuts(picture: bytes) -> Iterator[bytes]:
    """Yield two cuts of a picture, which show less than it does."""
    with Image.open(io.BytesIO(picture)) as opened:
        image = opened.convert("RGB")
    width, height = round(image.width * 0.4), round(image.height * 0.4)
    for left, top in ((0, 0), (image.width - width, image.height - height)):
        buffer = io.BytesIO()
        image.crop((left, top, left + width, top + height)).save(buffer, "PNG", compress_level=1)
        yield buffer.getvalue()


@pytest.mark.parametrize(("model", "weights"), MODELS)
def test_both_engines_give_the_same_vectors(model: ModelSpec, weights: Path | None) -> None:
    parts = [pixels_of_one(cut, model) for each in photographs()[::6] for cut in cuts(each.data)]
    pictures = np.concatenate([pixels_of(model)[::2], np.stack(parts)])
    exact = TorchEngine(model, weights)(pictures)
    for settings in (OPENVINO, OPENVINO.model_copy(update={"precision": "f32"})):
        found = open_engine(settings, model, weights)(pictures)
        assert found.dtype == np.float32
        assert found.shape == (len(pictures), model.dimension)
        assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
        assert 1 - (found * exact).sum(axis=1).min() <= 1e-3
    assert 1 - (found * exact).sum(axis=1).min() <= 1e-5


@pytest.mark.parametrize(("model", "weights"), MODELS)
def test_a_vector_is_the_same_alone_and_in_a_batch(model: ModelSpec, weights: Path | None) -> None:
    pixels = pixels_of(model)[:8]
    for threads in (1, 2):
        engine = open_engine(Settings(engine="openvino", threads=threads), model, weights)
        together = engine(pixels)
        assert all((engine(pixels[at : at + 1])[0] == together[at]).all() for at in range(8))
        assert (engine(pixels[3:6]) == together[3:6]).all()


def executed(model: ModelSpec, weights: Path | None, precision: Precision) -> dict[int, set[str]]:
    """Return what convolutions were run in, by the side of what they make."""
    converted = find_converted(model, weights, precision)
    engine = OpenVinoEngine(model, converted, precision=precision, threads=1)
    found = dict[int, set[str]]()
    for node in engine._compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) == "Convolution":
            side = node.get_output_partial_shape(0)[2].get_length()
            found.setdefault(side, set()).add(info["runtimePrecision"].astype(str))
    return found


@needs_bfloat16
def test_mixed_keeps_large_feature_maps_in_float32() -> None:
    found = executed(EFFICIENTNET_LITE0, efficientnet_lite0_weights(), "mixed")
    assert found == {112: {"f32"}, 56: {"f32"}, 28: {"f32"}, 14: {"bf16"}, 7: {"bf16"}}


@needs_bfloat16
def test_bf16_is_bfloat16_in_each_layer_and_f32_in_none() -> None:
    sides = {112, 56, 28, 14, 7}
    assert executed(UNTRAINED, None, "bf16") == {key: {"bf16"} for key in sides}
    assert executed(UNTRAINED, None, "f32") == {key: {"f32"} for key in sides}


def test_without_instructions_for_bfloat16_a_model_runs_in_float32(tmp_path: Path) -> None:
    with_amx, without = tmp_path / "with", tmp_path / "without"
    with_amx.write_text("processor : 0\nflags\t\t: fpu avx2 amx_bf16 amx_tile\n")
    without.write_text("processor : 0\nflags\t\t: fpu avx2 avx512f\n")
    assert cpu_multiplies_bfloat16(with_amx)
    assert not cpu_multiplies_bfloat16(without)
    assert not cpu_multiplies_bfloat16(tmp_path / "none")
    assert choose_precision(Settings(), RESNET50, native=True) == "bf16"
    assert choose_precision(Settings(), RESNET50, native=False) == "f32"
    assert choose_precision(Settings(precision="f32"), RESNET50, native=True) == "f32"
    with pytest.raises(ConfigurationError, match="no instructions for bfloat16; set it to auto"):
        choose_precision(Settings(precision="bf16"), RESNET50, native=False)


def run(program: str, home: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        env={**os.environ, "HOME": str(home), "XDG_CACHE_HOME": "", **environment},
        text=True,
    )


FIRST_VECTOR = """
import sys
import numpy as np
from pathlib import Path
from deeplens_streams.config import Settings
from deeplens_streams.features.engines import open_engine
from deeplens_streams.features.models import EFFICIENTNET_LITE0
from tests.support.weights import efficientnet_lite0_weights
engine = open_engine(Settings(), EFFICIENTNET_LITE0, efficientnet_lite0_weights())
vector = engine(np.zeros((1, 224, 224, 3), np.uint8))
print(engine.name, vector.tobytes().hex()[:64], "torch" in sys.modules)
"""


def test_two_that_convert_at_once_keep_one_conversion_and_torch_is_imported_by_neither(
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    first = [run(FIRST_VECTOR, tmp_path, TORCH_HOME=str(cache)) for _ in range(2)]
    said = {each.communicate()[0].splitlines()[-1] for each in first}
    assert len(said) == 1
    assert next(iter(said)).split()[::2] == ["openvino", "False"]
    (kept,) = (cache / "deeplens").iterdir()
    written = kept.stat()
    again = run(FIRST_VECTOR, tmp_path, TORCH_HOME=str(cache))
    assert again.communicate()[0].splitlines()[-1:] == list(said)
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)


def test_a_conversion_that_is_damaged_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, weights = EFFICIENTNET_LITE0, efficientnet_lite0_weights()
    whole = find_converted(model, weights, "f32")
    path = kept_path(model, weights, "f32", openvino.get_version())
    content = path.read_bytes()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    path = kept_path(model, weights, "f32", openvino.get_version())
    path.parent.mkdir()
    middle = len(content) // 2
    for damaged in (
        b"",
        content[:-1],
        content[:middle],
        content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        b"another file",
    ):
        path.write_bytes(damaged)
        assert read_converted(path) is None
    found = find_converted(model, weights, "f32")
    assert read_converted(path) is not None
    pixels = pixels_of(model)[:1]
    old, new = (
        OpenVinoEngine(model, each, precision="f32", threads=1)(pixels) for each in (whole, found)
    )
    assert (old == new).all()
    assert list(path.parent.iterdir()) == [path]


def test_a_conversion_is_that_of_its_weights_version_and_precision(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"1")
    other.write_bytes(b"2")
    paths = {
        kept_path(RESNET50, one, "bf16", "2026.4.1-22982-e2"),
        kept_path(RESNET50, other, "bf16", "2026.4.1-22982-e2"),
        kept_path(RESNET50, one, "mixed", "2026.4.1-22982-e2"),
        kept_path(RESNET50, one, "bf16", "2026.4.2-23000-e2"),
        kept_path(EFFICIENTNET_LITE0, one, "bf16", "2026.4.1-22982-e2"),
        kept_path(UNTRAINED, None, "bf16", "2026.4.1-22982-e2"),
    }
    assert len(paths) == 6
    # The same graph serves both.
    assert kept_path(RESNET50, one, "f32", "2026.4.1-22982-e2") in paths


def test_where_nothing_can_be_kept_it_is_converted_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    occupied = tmp_path / "file"
    occupied.touch()
    monkeypatch.setenv("TORCH_HOME", str(occupied))
    engine = open_engine(OPENVINO, EFFICIENTNET_LITE0, efficientnet_lite0_weights())
    assert engine(np.zeros((1, 224, 224, 3), np.uint8)).shape == (1, 1280)
    assert "cannot be kept, so each start makes it anew" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "missing", "sentence"),
    [
        (OPENVINO, ["openvino"], "DEEPLENS_ENGINE is openvino, which is not installed; install"),
        (TORCH, ["torch"], "torch is not installed"),
        (Settings(device="cpu"), ["openvino", "torch"], "torch is not installed"),
        (Settings(engine="openvino", device="cuda"), [], "set DEEPLENS_ENGINE to torch or"),
    ],
)
def test_an_engine_that_is_not_there_is_one_sentence(
    settings: Settings, missing: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
        for ours in ("torch_engine", "openvino_engine", "runtime"):
            monkeypatch.delitem(
                sys.modules, f"deeplens_streams.features.engines.{ours}", raising=False
            )
    with pytest.raises(ConfigurationError, match=sentence):
        open_engine(settings, UNTRAINED, None)


def test_without_openvino_torch_runs_the_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    engine = open_engine(Settings(device="cpu"), EFFICIENTNET_LITE0, efficientnet_lite0_weights())
    assert engine.name == "torch"
    assert "OpenVINO is not installed" in capsys.readouterr().out


def test_weights_that_are_no_such_weights_are_one_sentence(tmp_path: Path) -> None:
    missing, cut = tmp_path / "missing", tmp_path / "cut"
    cut.write_bytes(efficientnet_lite0_weights().read_bytes()[:1_000_000])
    foreign = efficientnet_lite0_weights()
    for model, path in (
        (EFFICIENTNET_LITE0, missing),
        (EFFICIENTNET_LITE0, cut),
        (replace(RESNET50, name="resnet50-other"), foreign),
    ):
        with pytest.raises(DeepLensError) as caught:
            open_engine(OPENVINO, model, path)
        assert isinstance(caught.value, WeightsUnavailable)
        assert str(path) in caught.value.message


NOBODY_IS_TOLD = """
import io
import os
import sys
from pathlib import Path

seen = []

def watch(event, arguments):
    if event.startswith("socket."):
        seen.append((event, str(arguments[1:])))
    elif event == "open" and isinstance(arguments[2], int):
        if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and arguments[0] != "/dev/null":
            seen.append((event, str(arguments[0])))
    elif event in {"os.mkdir", "os.rename", "subprocess.Popen"}:
        seen.append((event, str(arguments)))

sys.dont_write_bytecode = True
sys.addaudithook(watch)
from deeplens_streams.features.engines.runtime import openvino
openvino.Core()
print(seen, "torch" in sys.modules, "spy" in sys.modules)
"""


def test_importing_the_engine_tells_nobody_and_writes_nothing(tmp_path: Path) -> None:
    """Also where the package that would tell is installed."""
    home, spy = tmp_path / "home", tmp_path / "packages" / "openvino_telemetry"
    home.mkdir()
    spy.mkdir(parents=True)
    (spy / "__init__.py").write_text("import sys\nsys.modules['spy'] = sys\n")
    (spy / "backend.py").write_text("backend_ga4 = None\n")
    process = run(NOBODY_IS_TOLD, home, PYTHONPATH=str(spy.parent))
    assert process.communicate()[0].strip() == "[] False False"
    assert process.returncode == 0
    assert list(home.iterdir()) == []


def test_a_locked_install_leaves_the_telemetry_out() -> None:
    root = Path(__file__).parents[2]
    for lock in ("requirements.lock", "requirements-dev.lock"):
        lines = (root / lock).read_text().splitlines()
        assert any(each.startswith("openvino==") for each in lines)
        assert not any(each.startswith("openvino-telemetry") for each in lines)
