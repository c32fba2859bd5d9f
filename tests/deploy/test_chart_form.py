"""The chart's form: what Helm and Kubernetes' own schemas say of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from deeplens_streams import __version__
from tests.deploy.manifests import EVERYTHING, Manifests, of_kind
from tests.deploy.tools import CHART, KUBERNETES, NEEDED, run
from tests.support.programs import program

Render = Callable[..., Manifests]

SCHEMAS = Path(__file__).parent / "schemas"
#: The oldest that Chart.yaml allows, and the newest whose schemas are there.
VERSIONS = ["1.27", KUBERNETES, "1.37"]
#: Kinds that Kubernetes does not bring, with schemas after their makers' documentation.
EXTENSIONS = {"ScaledObject": "scaledobject.json", "PodMonitor": "podmonitor.json"}
VARIANTS = {
    "plain": {},
    "everything": EVERYTHING,
    "one of each": {name: {"replicas": 1} for name in ("api", "process", "extract", "index")},
}


@pytest.mark.needs("helm")
def test_helm_finds_no_fault() -> None:
    given = ",".join(f"settings.{name}={value}" for name, value in NEEDED.items())
    run(program("helm"), "lint", "--strict", str(CHART), "--set", given)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_has_the_schema_of_its_kind(
    variant: str, version: str, render: Render
) -> None:
    manifests = render(VARIANTS[variant])
    for each in manifests:
        if each["kind"] not in EXTENSIONS:
            kubernetes_validate.validate(each, version, strict=True)
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests]
    assert len(names) == len(set(names))


def test_the_schemas_refuse_what_they_should(render: Render) -> None:
    [settings] = of_kind(render(), "ConfigMap")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(settings | {"dataa": {}}, KUBERNETES, strict=True)


@pytest.mark.parametrize(("kind", "count"), [("ScaledObject", 3), ("PodMonitor", 1)])
def test_extensions_are_as_their_makers_document_them(
    kind: str, count: int, render: Render
) -> None:
    schema = json.loads((SCHEMAS / EXTENSIONS[kind]).read_text("utf-8"))
    found = of_kind(render(EVERYTHING), kind)
    assert len(found) == count
    for each in found:
        jsonschema.validate(each, schema)


def test_the_chart_has_the_packages_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == __version__


@pytest.mark.needs("helm")
@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"DEEPLENS_BROKER": ""}, "settings.DEEPLENS_BROKER is needed"),
        ({"DEEPLENS_STORAGE_URL": ""}, "settings.DEEPLENS_STORAGE_URL is needed"),
        ({"DEEPLENS_QDRANT_URL": ""}, "settings.DEEPLENS_QDRANT_URL is needed"),
        ({"DEEPLENS_ROLES": "api"}, "settings.DEEPLENS_ROLES is set by the chart itself"),
        ({"DEEPLENS_KAFKA_PASSWORD": "x"}, "DEEPLENS_KAFKA_PASSWORD is a secret"),
        ({"DEEPLENS_QDRANT_API_KEY": "x"}, "DEEPLENS_QDRANT_API_KEY is a secret"),
        ({"DEEPLENS_ADMIN_KEY": "x"}, "DEEPLENS_ADMIN_KEY is a secret"),
        ({"AWS_SECRET_ACCESS_KEY": "x"}, "AWS_SECRET_ACCESS_KEY is a secret"),
        ({"AWS_SESSION_TOKEN": "x"}, "AWS_SESSION_TOKEN is a secret"),
        ({"DEEPLENS_MAX_PIXELS": 50000000}, "got number, want string"),
    ],
)
def test_wrong_values_are_refused_with_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    said = run(
        *(program("helm"), "template", "x", str(CHART), "--kube-version", f"{KUBERNETES}.0"),
        *("--set-json", "settings=" + json.dumps(NEEDED | settings)),
        ok=False,
    )
    assert sentence in said


@pytest.mark.needs("helm")
def test_metrics_without_a_key_for_them_are_refused_with_a_sentence() -> None:
    said = run(
        *(program("helm"), "template", "x", str(CHART), "--kube-version", f"{KUBERNETES}.0"),
        *("--set-json", "settings=" + json.dumps(NEEDED), "--set", "podMonitor.enabled=true"),
        ok=False,
    )
    assert "podMonitor.keySecret.name is needed" in said


@pytest.mark.needs("helm")
def test_a_values_name_that_does_not_exist_is_refused() -> None:
    said = run(
        *(program("helm"), "template", "x", str(CHART), "--kube-version", f"{KUBERNETES}.0"),
        *("--set-json", "settings=" + json.dumps(NEEDED), "--set", "extract.replica=3"),
        ok=False,
    )
    assert "replica" in said
