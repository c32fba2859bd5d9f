"""Networks of one's own: their rows are checked, and each fault is one sentence."""

import hashlib
from pathlib import Path

import pytest

from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError, WeightsUnavailable
from deeplens_streams.features.base import OwnFile
from deeplens_streams.features.models import choose_model
from deeplens_streams.features.weights import find_weights, have_weights
from tests.support.onnx_files import ROW

BODY = b"a network"
DIGEST = hashlib.sha256(BODY).hexdigest()


def settings(folder: Path, model: str = "tiny") -> Settings:
    return Settings(models_dir=folder, model=model, data_dir=folder / "var")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tiny.toml").write_text(ROW)
    (tmp_path / "tiny.onnx").write_bytes(BODY)
    return tmp_path


def test_a_name_stands_for_the_file(folder: Path) -> None:
    found = choose_model(settings(folder))
    assert found.name == f"tiny-{DIGEST[:8]}"
    assert (found.dimension, found.input_size, found.resize_size) == (8, 32, 40)
    assert (found.mean, found.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 1.0))
    assert found.weights == OwnFile(DIGEST, str(folder / "tiny.onnx"))
    assert find_weights(settings(folder), found) == folder / "tiny.onnx"
    assert choose_model(settings(folder, found.name)) == found, "as a data folder keeps it"
    (folder / "tiny.onnx").write_bytes(b"another")
    with pytest.raises(WeightsUnavailable, match="holds other weights; start again"):
        have_weights(settings(folder), found)
    with pytest.raises(ConfigurationError, match=f"DEEPLENS_MODEL is {found.name}, and .* by its"):
        choose_model(settings(folder, found.name))


@pytest.mark.parametrize(
    ("was", "now", "sentence"),
    [
        ("dimension = 8", "", "dimension is missing"),
        ("dimension = 8", "dimension = 0", "dimension is a whole number from 2 to 4096"),
        ("dimension = 8", "dimension = 8.0", "dimension is a whole number"),
        ("dimension = 8", "dimension = true", "dimension is a whole number"),
        ("input_size = 32", "input_size = 48", "resize_size is input_size or more"),
        ("[0.5, 0.5, 0.5]", "[127, 127, 127]", "mean is a list of three numbers, .* from 0 to 1"),
        ("[0.5, 0.5, 0.5]", "[0.5, nan, 0.5]", "mean is a list of three numbers"),
        ("[0.5, 0.5, 0.5]", "0.5", "mean is a list of three numbers"),
        ("[0.25, 0.25, 1]", "[0, 0, 0]", "std is a list of three numbers, .* above 0, to 1"),
        ('"Apache-2.0"', '""', "licence is a text"),
        ("dimension = 8", "dimension = 8\nlayers = 3", "nobody knows 'layers'; there are dim"),
        ("dimension = 8", "dimension = ", "it is no TOML"),
    ],
)
def test_a_fault_of_a_row_is_one_sentence(folder: Path, was: str, now: str, sentence: str) -> None:
    (folder / "tiny.toml").write_text(ROW.replace(was, now))
    with pytest.raises(ConfigurationError, match=rf"tiny\.toml: {sentence}") as caught:
        choose_model(settings(folder))
    assert caught.value.message.count("\n") == 0


def test_a_row_needs_a_file_and_a_name(folder: Path) -> None:
    (folder / "tiny.onnx").rename(folder / "resnet50.onnx")
    with pytest.raises(ConfigurationError, match=r"there is no tiny\.onnx beside it"):
        choose_model(settings(folder))
    (folder / "tiny.toml").rename(folder / "Tiny_1.toml")
    with pytest.raises(ConfigurationError, match="use 1 to 48 of a-z, 0-9 and -"):
        choose_model(settings(folder, "Tiny_1"))
    with pytest.raises(ConfigurationError, match=r"no model 'other', there are resnet50, .*Tiny_1"):
        choose_model(settings(folder, "other"))


def test_no_network_takes_the_name_of_the_catalogues(folder: Path) -> None:
    for kind in ("toml", "onnx"):
        (folder / f"tiny.{kind}").rename(folder / f"resnet50.{kind}")
    assert choose_model(settings(folder, "resnet50")).dimension == 2048
    with pytest.raises(ConfigurationError, match="resnet50 is a model of the catalogue"):
        choose_model(settings(folder, f"resnet50-{DIGEST[:8]}"))
