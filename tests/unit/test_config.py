"""Settings are read once, frozen, and wrong ones are refused with a sentence."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from deeplens_streams.broker.topology import TABLE_PARTITIONS, TOPICS
from deeplens_streams.config import ALL_ROLES, Role, load_settings
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.ingest.timings import Timings
from deeplens_streams.storage import open_blobs
from deeplens_streams.storage.blobs.local import LocalBlobs


def test_defaults_run_everything_on_this_machine() -> None:
    settings = load_settings()
    assert settings.roles == ALL_ROLES
    assert settings.is_loopback
    assert settings.canonical_url == "http://127.0.0.1:8080"
    assert settings.images_url.startswith("file:///")
    assert settings.bootstrap_servers == ["127.0.0.1:9092"]


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPLENS_BROKER", "kafka://a:1;kafka://b:2")
    monkeypatch.setenv("DEEPLENS_ROLES", "index, api")
    monkeypatch.setenv("DEEPLENS_EXTRACTOR_URL", "http://x:8001/, http://y:8001")
    settings = load_settings()
    assert settings.bootstrap_servers == ["a:1", "b:2"]
    assert settings.roles == (Role.API, Role.INDEX)
    assert settings.extractor_url == ("http://x:8001", "http://y:8001")
    with pytest.raises(ValidationError):
        settings.broker = "other"  # frozen: that is the point


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ROLES", "api,cook", "'cook' is no role"),
        ("ROLES", " , ", "roles is empty"),
        ("WEB_PORT", "0", "DEEPLENS_WEB_PORT"),
        ("WEB_PORT", "http", "DEEPLENS_WEB_PORT"),
        ("DEVICE", "tpu", "DEEPLENS_DEVICE"),
        ("NAMESPACE", "../x", "DEEPLENS_NAMESPACE"),
        # Storing may have taken the other half of that.
        ("PRODUCE_TIMEOUT_S", str(Timings().pending_s / 2), "DEEPLENS_PRODUCE_TIMEOUT_S"),
    ],
)
def test_a_wrong_setting_is_named(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"DEEPLENS_{name}", value)
    with pytest.raises(ConfigurationError, match=message):
        load_settings()


def test_topics_are_the_contracts() -> None:
    partitions = {topic.base: topic.partitions for topic in TOPICS}
    assert partitions == {
        "deeplens.images.uploaded": 6,
        "deeplens.features.extraction": 4,
        "deeplens.vectors.indexing": 4,
        "deeplens.images.deleted": 4,
        "deeplens.images.progress": TABLE_PARTITIONS,
        "deeplens.images.status": TABLE_PARTITIONS,
        "deeplens.processing.completed": 2,
        "deeplens.processing.failed": 2,
        "deeplens.tenants.changes": 2,
        "deeplens.tenants": 1,
    }
    settings = load_settings(replication=3)
    for topic in TOPICS:
        config = topic.config(settings)
        assert config["min.insync.replicas"] == "2"
        assert ("retention.ms" in config) is (config["cleanup.policy"] == "delete")


def test_a_folder_may_be_called_anything_that_is_utf8(tmp_path: Path) -> None:
    for name in (" Ré, né ", "a:b", "100%", "~nobody-at-all"):
        assert load_settings(data_dir=tmp_path / name).data_dir == tmp_path / name
    assert load_settings(data_dir="~nobody-at-all").data_dir == Path("~nobody-at-all").absolute()
    with pytest.raises(ConfigurationError, match="DEEPLENS_DATA_DIR: the name is not UTF-8"):
        load_settings(data_dir=os.fsdecode(b"/tmp/\xff"))


def test_the_folder_of_images_is_the_one_that_is_written(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path / "Ré né, x: #?%20&;=")
    blobs = open_blobs(settings)
    assert isinstance(blobs, LocalBlobs)
    assert blobs._folder == settings.images_path == settings.data_dir / "images"
    assert settings.images_path.is_dir()
