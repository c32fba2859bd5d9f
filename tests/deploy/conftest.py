"""Deployment files as the programs see them that read them for real."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import yaml

from deeplens_streams.broker.security import broker_security
from deeplens_streams.config import Settings, load_settings
from tests.deploy.tools import CHART, KUBERNETES, NEEDED, Compose, compose_config, run
from tests.support.programs import program

Manifests = list[dict[str, Any]]


@pytest.fixture(scope="session")
def compose() -> Compose:
    return compose_config()


@pytest.fixture(scope="session")
def services(compose: Compose) -> dict[str, Compose]:
    found: dict[str, Compose] = compose["services"]
    return found


@pytest.fixture(scope="session")
def render() -> Callable[..., Manifests]:
    """Return a function from the chart's values to the objects that Helm would create."""
    helm, known = program("helm"), dict[str, str]()

    def rendered(values: Mapping[str, Any] | None = None) -> Manifests:
        given = dict(values or {})
        given["settings"] = NEEDED | given.get("settings", {})
        asked = ",".join(f"{key}={json.dumps(value)}" for key, value in given.items())
        if asked not in known:
            command = (helm, "template", "pics", str(CHART), "--kube-version", f"{KUBERNETES}.0")
            known[asked] = run(*command, "--set-json", asked)
        return [each for each in yaml.safe_load_all(known[asked]) if each]

    return rendered


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, str]], Settings]:
    """Return a function that reads settings as a container with that environment would."""

    def read(environment: Mapping[str, str]) -> Settings:
        for name in [name for name in os.environ if name.startswith("DEEPLENS_")]:
            monkeypatch.delenv(name)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings = load_settings()
        broker_security(settings)
        return settings

    return read
