"""Networks of one's own, run by OpenVINO: what they must be, and what is said of others."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.features.engines import open_engine
from deeplens_streams.features.engines.onnx import read_onnx
from deeplens_streams.features.models import choose_model
from deeplens_streams.features.weights import have_weights
from tests.support.onnx_files import ROW, onnx_file


def test_one_is_converted_and_makes_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "tiny.toml").write_text(ROW)
    (tmp_path / "tiny.onnx").write_bytes(onnx_file(batch=1))
    settings = Settings(models_dir=tmp_path, model="tiny", device="cpu", data_dir=tmp_path / "var")
    model = choose_model(settings)
    weights = have_weights(settings, model)
    assert weights is not None
    engine = open_engine(settings, model, weights)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)
    vectors = engine(pixels)
    assert vectors.shape == (3, 8)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    normalised = (pixels / 255 - model.mean) / model.std
    expected = run(onnx_file(), tmp_path, normalised.transpose(0, 3, 1, 2).astype(np.float32))
    cosines = (vectors * expected / np.linalg.norm(expected, axis=1, keepdims=True)).sum(axis=1)
    assert cosines.min() > 0.99999
    torch = settings.model_copy(update={"engine": "torch"})
    with pytest.raises(ConfigurationError, match="is an ONNX file, which OpenVINO alone runs"):
        open_engine(torch, model, weights)


def run(content: bytes, folder: Path, pictures: np.ndarray) -> np.ndarray:
    """Return what the file itself makes of pictures, without our row."""
    from deeplens_streams.features.engines.runtime import openvino  # noqa: PLC0415

    network = openvino.Core().read_model(content)
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.asarray(compiled([pictures])[0])


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ({"opset": 99}, "it is of opset 99; 7 to 23 are taken"),
        ({"channels": 1}, r"its input is \[.*,1,32,32\] of f32; n x 3 x 32 x 32 numbers of 32"),
        ({"side": 64}, r"its input is \[.*,3,64,64\] of f32; n x 3 x 32 x 32"),
        ({"inputs": 2}, "it has 2 inputs; one is wanted, of n x 3 x 32 x 32"),
        ({"outputs": ("a", "b")}, "it has 2 outputs; one is wanted, of n x 8"),
        ({"dimension": 9}, r"its output is \[.*,9\]; n x 8 are wanted"),
        ({"infinite": True}, "what it makes of a picture is not finite"),
        ({"constant": True}, "what it makes of a picture is constant"),
    ],
)
def test_each_fault_is_one_sentence(tmp_path: Path, made: dict[str, Any], sentence: str) -> None:
    path = tmp_path / "tiny.onnx"
    path.write_bytes(onnx_file(**made))
    with pytest.raises(ConfigurationError, match=rf"tiny\.onnx: {sentence}") as caught:
        read_onnx(path, side=32, dimension=8)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("kept", [0, 100, 1000])
def test_a_file_that_is_cut_short_or_none_is_one_sentence(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "tiny.onnx"
    for content in (onnx_file()[:kept], b"nonsense" * (kept // 8)):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match="it is no ONNX file, or cut short"):
            read_onnx(path, side=32, dimension=8)
