"""Which model ``deeplens up`` runs, and what it says of it."""

from pathlib import Path
from typing import Any

import pytest

from deeplens_streams.cli import model_choice
from deeplens_streams.cli.model_choice import Choice, choose, used_model
from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError, WeightsUnavailable
from deeplens_streams.features.base import ModelSpec
from deeplens_streams.features.kept_model import keep_model
from deeplens_streams.features.models import RESNET50, UNTRAINED
from deeplens_streams.storage import object_keys

OFFLINE = "The weights cannot be downloaded from https://example.org (no route); set DEEPLENS_X."


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


async def chosen(folder: Path, *, online: bool = False, **settings: Any) -> Choice:
    async def fetch(_model: ModelSpec) -> str | None:
        return None if online else OFFLINE

    return await choose(Settings(data_dir=folder / "var", **settings), fetch)


def kept(folder: Path, name: str) -> None:
    (folder / "var").mkdir(exist_ok=True)
    keep_model(folder / "var", name)


async def test_a_new_folder_takes_the_first_that_can_be_had(tmp_path: Path) -> None:
    assert await chosen(tmp_path, online=True) == Choice("resnet50", "resnet50")
    assert await chosen(tmp_path) == Choice(
        "efficientnet-lite0",
        "efficientnet-lite0, since resnet50 cannot be had: The weights cannot be downloaded from "
        "https://example.org (no route)",
    )


async def test_where_none_can_be_had_it_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_choice, "TRAINED", (RESNET50,))
    with pytest.raises(WeightsUnavailable) as caught:
        await chosen(tmp_path)
    assert caught.value.message == (
        "There is no trained model, since resnet50 cannot be had: The weights cannot be downloaded "
        "from https://example.org (no route); set DEEPLENS_MODEL=resnet50-untrained to go on "
        "without one."
    )


async def test_a_model_that_is_named_is_taken_or_refused(tmp_path: Path) -> None:
    ways: list[dict[str, Any]] = [{"weights": "untrained"}, {"model": UNTRAINED.name}]
    for named in ways:
        assert (await chosen(tmp_path, **named)).name == UNTRAINED.name
    choice = await chosen(tmp_path, online=True, model="resnet50")
    assert choice.why == "resnet50, as DEEPLENS_MODEL says"
    with pytest.raises(WeightsUnavailable, match="cannot be downloaded"):
        await chosen(tmp_path, model="resnet50")


async def test_a_folder_goes_on_with_its_model(tmp_path: Path) -> None:
    kept(tmp_path, UNTRAINED.name)
    choice = await chosen(tmp_path, online=True)
    assert choice.name == UNTRAINED.name
    assert choice.why == (
        "resnet50-untrained, which this data folder has; for another set DEEPLENS_MODEL and "
        "--data-dir"
    )
    changed = await chosen(tmp_path, online=True, model="resnet50")
    assert "until now this data folder had resnet50-untrained" in changed.why


async def test_a_folder_whose_model_cannot_be_had_takes_no_other(tmp_path: Path) -> None:
    kept(tmp_path, "resnet50")
    with pytest.raises(WeightsUnavailable, match="cannot be downloaded"):
        await chosen(tmp_path)
    kept(tmp_path, "resnet50-1234abcd")
    with pytest.raises(ConfigurationError, match="has the model resnet50-1234abcd, of weights of"):
        await chosen(tmp_path, online=True)


async def test_the_model_of_a_service_is_the_services(tmp_path: Path) -> None:
    url = ("http://127.0.0.1:8001",)
    assert (await chosen(tmp_path, extractor_url=url)).name == "resnet50"
    kept(tmp_path, "resnet50-untrained")
    assert (await chosen(tmp_path, extractor_url=url)).name == "resnet50-untrained"


async def test_a_folder_of_an_earlier_version_is_searched_by_what_it_holds(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "var")
    vectors = settings.vectors_path
    assert used_model(settings) is None
    for name in ("tenant_acme_resnet50-untrained_vectors", "tenant_b_other_things", ".aside"):
        (vectors / name).mkdir(parents=True)
    (vectors / ".lock").touch()
    assert (await chosen(tmp_path, online=True)).name == UNTRAINED.name
    (vectors / "shared_resnet50_vectors").mkdir()
    assert used_model(settings) == "resnet50"


async def test_a_restored_folder_has_the_model_of_its_images(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "var")
    key = object_keys.metadata_key(
        tenant="acme", image_id="img_9133c649-4aba-4136-a7eb-4f363254cc3c", ms=0
    )
    path = settings.images_path / key
    path.parent.mkdir(parents=True)
    path.write_bytes(b"damaged")
    assert used_model(settings) is None
    path.write_text('{"processingOptions": {"models": ["resnet50-untrained"]}}')
    assert (await chosen(tmp_path, online=True)).name == "resnet50-untrained"
