"""compose.yaml as Docker Compose reads it, held against the code that it starts."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import pytest

from deeplens_streams.broker.topology import EXTRACTION, INDEXING, UPLOADED
from deeplens_streams.config import Role, Settings
from deeplens_streams.tenancy.api_keys import operator_key
from tests.deploy.tools import DOCKER, SECRETS, compose_config

Services = dict[str, dict[str, Any]]
Read = Callable[[Mapping[str, str]], Settings]

PARTITIONS = {"process": UPLOADED, "extract": EXTRACTION, "index": INDEXING}
WORKERS = [role.value for role in Role]
EXTRACTORS = ["extractor-1", "extractor-2"]
BROKERS = ["kafka-1", "kafka-2", "kafka-3"]
WITH_GPU = ("compose.yaml", "compose.gpu.yaml")
SECRET_NAME = re.compile(r"KEY|SECRET|PASSWORD|TOKEN")


def test_there_is_a_service_for_each_role_and_each_dependency(services: Services) -> None:
    assert set(services) == {*WORKERS, *EXTRACTORS, *BROKERS, "proxy", "qdrant", "s3", "bucket"}


@pytest.mark.parametrize("role", WORKERS)
def test_workers_have_settings_that_can_be_used(
    role: str, services: Services, settings_of: Read
) -> None:
    settings = settings_of(services[role]["environment"])
    assert [each.value for each in settings.roles] == [role]
    assert settings.bootstrap_servers == [f"{name}:9092" for name in BROKERS]
    assert settings.replication == len(BROKERS)
    assert settings.extractor_url == tuple(f"http://{name}:8001" for name in EXTRACTORS)
    assert settings.qdrant_api_key is not None
    assert settings.qdrant_api_key.get_secret_value() == SECRETS["QDRANT_API_KEY"]
    assert operator_key(settings) is not None, "the port can be reached by others"
    assert urlsplit(settings.qdrant_url).hostname == "qdrant"
    # Others reach it by its container's name: the settings must not say otherwise for all of them.
    assert settings.advertised_url is None
    assert settings.state_dir is None


@pytest.mark.parametrize("name", EXTRACTORS)
def test_extractors_fit_their_callers(name: str, services: Services, settings_of: Read) -> None:
    caller = settings_of(services["extract"]["environment"])
    settings = settings_of(services[name]["environment"])
    assert services[name]["command"] == ["extractor"]
    assert settings.extractor_url == ()  # a service that calls another one does not start
    assert settings.extractor_port == 8001
    assert settings.insecure, "it can be reached by others, and asks for no keys"
    assert not caller.insecure
    assert settings.weights == caller.weights
    assert settings.max_pixels == caller.max_pixels
    assert settings.max_upload_bytes == caller.max_upload_bytes
    assert settings.threads == services[name]["deploy"]["resources"]["limits"]["cpus"]


def test_no_stage_has_more_workers_than_its_topic_has_partitions(services: Services) -> None:
    for role, topic in PARTITIONS.items():
        assert 2 <= services[role]["deploy"]["replicas"] <= topic.partitions
    assert services["api"]["deploy"]["replicas"] >= 2


def test_state_is_no_ones_but_the_workers_own(services: Services) -> None:
    """A volume without a name is each container's own; one state folder belongs to one process."""
    [volume] = services["api"]["volumes"]
    assert (volume["type"], volume["target"], volume.get("source")) == ("volume", "/data", None)
    for stage in PARTITIONS:
        assert "volumes" not in services[stage]
        assert any(each.startswith("/data:uid=10001") for each in services[stage]["tmpfs"])


def test_kafka_survives_one_broker(services: Services) -> None:
    environments = [dict(services[name]["environment"]) for name in BROKERS]
    assert [each.pop("KAFKA_NODE_ID") for each in environments] == ["1", "2", "3"]
    advertised = [each.pop("KAFKA_ADVERTISED_LISTENERS") for each in environments]
    assert advertised == [f"PLAINTEXT://{name}:9092" for name in BROKERS]
    assert environments[0] == environments[1] == environments[2]
    common = environments[0]
    voters = ",".join(f"{number}@{name}:9093" for number, name in enumerate(BROKERS, start=1))
    assert common["KAFKA_CONTROLLER_QUORUM_VOTERS"] == voters
    assert common["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"
    replicas = [value for name, value in common.items() if name.endswith("REPLICATION_FACTOR")]
    assert replicas == ["3"] * 4
    in_sync = [value for name, value in common.items() if re.search("MIN_(ISR|INSYNC)", name)]
    assert in_sync == ["2"] * 3
    volumes = {services[name]["volumes"][0]["source"] for name in BROKERS}
    assert len(volumes) == len(BROKERS)
    for name in BROKERS:
        assert services[name]["volumes"][0]["target"] == common["KAFKA_LOG_DIRS"]


def test_images_have_a_bucket(services: Services, settings_of: Read) -> None:
    environment = services["api"]["environment"]
    url = urlsplit(settings_of(environment).storage_url)
    assert url.scheme == "s3"
    assert f"/data/buckets/{url.hostname}" in services["bucket"]["entrypoint"]
    assert services["s3"]["depends_on"]["bucket"]["condition"] == "service_completed_successfully"
    assert environment["AWS_ENDPOINT_URL"] == "http://s3:7070"
    command = services["s3"]["command"]
    assert command[:2] == ["--port", ":7070"]
    assert command[-2:] == ["posix", "/data/buckets"]
    keys = [environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]]
    served = services["s3"]["environment"]
    assert keys == [served["ROOT_ACCESS_KEY"], served["ROOT_SECRET_KEY"]]


def test_nothing_runs_as_root(services: Services) -> None:
    for name, service in services.items():
        assert service["user"].partition(":")[0] not in {"", "0", "root"}, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        if service["image"].startswith("deeplens:"):
            assert service["user"] == "10001:10001", name
            assert service["read_only"] is True, name


def test_everything_is_limited_and_pinned(services: Services) -> None:
    for name, service in services.items():
        assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"]), name
        if "build" not in service:
            assert re.fullmatch(r"[a-z/]+:v?\d+\.\d+\.\d+(-[a-z]+)?", service["image"]), name


def test_only_the_proxy_is_reached_and_only_from_this_machine(services: Services) -> None:
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    [port] = services["proxy"]["ports"]
    assert (port["host_ip"], port["published"], port["target"]) == ("127.0.0.1", "8080", 8080)


@pytest.mark.needs("docker-compose")
def test_no_secret_is_literal() -> None:
    for name, service in compose_config("--no-interpolate")["services"].items():
        for variable, value in service.get("environment", {}).items():
            if SECRET_NAME.search(variable):
                assert re.match(r"\$\{[A-Z0-9_]+:\?", value), f"{name}: {variable}"


def test_the_example_names_what_is_needed_and_holds_no_secret() -> None:
    example = (DOCKER / ".env.example").read_text("utf-8")
    known = dict(re.findall(r"^#?([A-Z0-9_]+)=(.*)$", example, re.MULTILINE))
    files = "".join((DOCKER / name).read_text("utf-8") for name in WITH_GPU)
    asked = re.findall(r"\$\{([A-Z0-9_]+)(:[-?])([^}]*)\}", files)
    assert {name for name, _, _ in asked} == set(known)
    for name, how, default in asked:
        assert known[name] == ("" if how == ":?" else default), name
    assert "/.env" in (DOCKER / ".gitignore").read_text("utf-8").split()


def test_the_gpu_variant_changes_the_extractors_alone(
    services: Services, settings_of: Read
) -> None:
    with_gpu = compose_config(files=WITH_GPU)["services"]
    assert {name for name in services if services[name] != with_gpu[name]} == set(EXTRACTORS)
    for name in EXTRACTORS:
        assert settings_of(with_gpu[name]["environment"]).device == "cuda"
        assert with_gpu[name]["image"].endswith("-cuda")
        assert with_gpu[name]["build"]["args"] == {"FLAVOUR": "cuda"}
        [device] = with_gpu[name]["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", 1, ["gpu"])
