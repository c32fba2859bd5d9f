"""The chart's objects, held against the code that they start."""

import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import pytest

from deeplens_streams.broker.topology import READERS
from deeplens_streams.config import Settings, load_settings
from deeplens_streams.runtime.apps import build_apps
from deeplens_streams.web import HEALTH_ROUTES, ROUTES
from tests.deploy.manifests import (
    COMPONENTS,
    EVERYTHING,
    STAGES,
    WORKERS,
    Manifests,
    container,
    environment,
    of_kind,
    pod,
    secrets,
    workloads,
)

Render = Callable[..., Manifests]
Read = Callable[[Mapping[str, str]], Settings]

TOPICS = {
    role: [topic for topic, reader in READERS.items() if reader.role.value == role]
    for role in STAGES
}


def test_there_is_a_workload_for_each_component(render: Render) -> None:
    found = workloads(render())
    assert set(found) == set(COMPONENTS)
    stateful = {name for name, each in found.items() if each["kind"] == "StatefulSet"}
    assert stateful == {"api", "extractor"}


@pytest.mark.parametrize("role", WORKERS)
def test_workers_have_settings_that_can_be_used(
    role: str, render: Render, settings_of: Read
) -> None:
    manifests = render()
    settings = settings_of(environment(workloads(manifests)[role], manifests))
    assert [each.value for each in settings.roles] == [role]
    assert settings.replication == 3
    assert settings.qdrant_url
    assert settings.storage_url


def test_an_api_worker_is_reached_by_a_name_that_stays(render: Render, settings_of: Read) -> None:
    manifests = render()
    workload = workloads(manifests)["api"]
    url = urlsplit(settings_of(environment(workload, manifests)).advertised_url)
    name, service = workload["metadata"]["name"], workload["spec"]["serviceName"]
    assert url.netloc == f"{name}-0.{service}:8080"
    [headless] = [
        each for each in of_kind(manifests, "Service") if each["metadata"]["name"] == service
    ]
    assert headless["spec"]["clusterIP"] == "None"
    assert headless["spec"]["publishNotReadyAddresses"] is True
    [claim] = workload["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "data"
    assert {"name": "data", "mountPath": "/data"} in container(workload)["volumeMounts"]


@pytest.mark.parametrize("values", [{}, EVERYTHING])
def test_extractors_fit_their_callers(
    values: dict[str, object], render: Render, settings_of: Read
) -> None:
    manifests = render(values)
    found = workloads(manifests)
    caller = settings_of(environment(found["extract"], manifests))
    settings = settings_of(environment(found["extractor"], manifests))
    name, spec = found["extractor"]["metadata"]["name"], found["extractor"]["spec"]
    assert caller.extractor_url == tuple(
        f"http://{name}-{i}.{spec['serviceName']}:8001" for i in range(spec["replicas"])
    )
    assert settings.extractor_url == ()  # a service that calls another one does not start
    assert container(found["extractor"])["args"] == ["extractor"]
    assert settings.insecure, "it can be reached by others, and asks for no keys"
    assert not caller.insecure
    assert (settings.weights, settings.max_pixels) == (caller.weights, caller.max_pixels)
    assert not list(secrets(found["extractor"]))


def test_a_gpu_is_asked_for_where_it_is_wanted(render: Render, settings_of: Read) -> None:
    plain, with_gpu = render(), render(EVERYTHING)
    on_cpu, on_gpu = (workloads(each)["extractor"] for each in (plain, with_gpu))
    assert settings_of(environment(on_cpu, plain)).device == "cpu"
    assert settings_of(environment(on_gpu, with_gpu)).device == "cuda"
    assert container(on_cpu)["image"].endswith("-cpu")
    assert container(on_gpu)["image"].endswith("-cuda")
    assert "nvidia.com/gpu" not in container(on_cpu)["resources"]["limits"]
    assert container(on_gpu)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod(on_gpu)["nodeSelector"] == {"gpu": "h200"}
    assert pod(on_gpu)["tolerations"][0]["key"] == "nvidia.com/gpu"


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("values", [{}, EVERYTHING])
def test_nothing_runs_as_root_or_may_become_it(
    component: str, values: dict[str, object], render: Render
) -> None:
    workload = workloads(render(values))[component]
    spec, only = pod(workload), container(workload)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    writable = {each["mountPath"] for each in only["volumeMounts"] if not each.get("readOnly")}
    assert writable == {"/data", "/tmp"}
    assert spec["automountServiceAccountToken"] is False
    # A Service named deeplens-extractor would otherwise set DEEPLENS_EXTRACTOR_PORT.
    assert spec["enableServiceLinks"] is False
    assert {"memory"} <= set(only["resources"]["limits"])
    assert {"cpu", "memory"} <= set(only["resources"]["requests"])
    assert spec["terminationGracePeriodSeconds"] >= 30


def test_secrets_are_named_and_never_held(render: Render) -> None:
    manifests = render(EVERYTHING)
    assert not of_kind(manifests, "Secret")
    found = workloads(manifests)
    for role in WORKERS:
        assert list(secrets(found[role])) == ["deeplens-secret"]
        assert not list(secrets(workloads(render())[role]))
        for name in environment(found[role], manifests):
            assert not re.search(r"PASSWORD$|SECRET|API_KEY$|ACCESS_KEY", name)


@pytest.mark.parametrize("component", COMPONENTS)
def test_probes_ask_what_there_is(component: str, render: Render) -> None:
    only = container(workloads(render())[component])
    ports = {each["name"]: each["containerPort"] for each in only["ports"]}
    assert ports == {"http": 8001 if component == "extractor" else 8080}
    answered = {"/health"} if component == "extractor" else {each.path for each in HEALTH_ROUTES}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        url = urlsplit(only[probe]["httpGet"]["path"])
        assert only[probe]["httpGet"]["port"] == "http"
        assert url.path in answered
        if url.query:
            checks = url.query.removeprefix("only=").split(",")
            assert set(checks) <= {"broker", "tables", "storage", "vectors", "extractor"}


@pytest.mark.parametrize("role", WORKERS)
def test_what_all_share_takes_no_pod_out(role: str, render: Render) -> None:
    """A worker whose Kafka or storage is away answers for itself, and goes on with the rest."""
    only = container(workloads(render())[role])
    assert only["readinessProbe"]["httpGet"]["path"] == "/health/live"
    # An update waits for partitions and tables all the same.
    assert only["startupProbe"]["httpGet"]["path"] == "/health/ready?only=broker,tables"


def test_a_stage_never_has_less_workers_during_an_update(render: Render) -> None:
    for stage in STAGES:
        strategy = workloads(render())[stage]["spec"]["strategy"]
        assert strategy["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


def test_new_settings_make_new_pods(render: Render) -> None:
    def checksums(level: str) -> set[str]:
        manifests = render({"settings": {"DEEPLENS_LOG_FORMAT": level}})
        return {
            each["spec"]["template"]["metadata"]["annotations"]["checksum/settings"]
            for each in workloads(manifests).values()
        }

    assert len(checksums("json")) == 1
    assert checksums("json") != checksums("text")


def test_selectors_find_their_pods(render: Render) -> None:
    manifests = render(EVERYTHING)
    labels = {
        name: each["spec"]["template"]["metadata"]["labels"]
        for name, each in workloads(manifests).items()
    }

    def selected(selector: dict[str, str]) -> list[str]:
        return [name for name in labels if selector.items() <= labels[name].items()]

    for name, workload in workloads(manifests).items():
        assert selected(workload["spec"]["selector"]["matchLabels"]) == [name]
    for service in of_kind(manifests, "Service"):
        assert len(selected(service["spec"]["selector"])) == 1
    budgets = of_kind(manifests, "PodDisruptionBudget")
    guarded = [selected(each["spec"]["selector"]["matchLabels"]) for each in budgets]
    assert sorted(guarded) == sorted([name] for name in COMPONENTS)


@pytest.mark.parametrize("namespace", ["", "blue"])
def test_autoscaling_looks_at_the_right_lag(namespace: str, render: Render) -> None:
    values = EVERYTHING | {"settings": {"DEEPLENS_NAMESPACE": namespace}}
    manifests = render(values)
    apps = build_apps(load_settings(namespace=namespace)).process_apps
    groups = {app.role.value: app.conf.id for app in apps}
    scaled = {each["metadata"]["name"]: each["spec"] for each in of_kind(manifests, "ScaledObject")}
    for stage, topics in TOPICS.items():
        name = workloads(manifests)[stage]["metadata"]["name"]
        spec = scaled.pop(name)
        assert spec["scaleTargetRef"] == {"name": name}
        partitions = max(topic.partitions for topic in topics)
        assert spec["maxReplicaCount"] == partitions
        triggers = [each["metadata"] for each in spec["triggers"]]
        assert [each["topic"] for each in triggers] == [topic.name(namespace) for topic in topics]
        for trigger in triggers:
            assert trigger["consumerGroup"] == groups[stage]
            assert trigger["bootstrapServers"] == "kafka-0.kafka:9092,kafka-1.kafka:9092"
        assert [each["authenticationRef"] for each in spec["triggers"]] == [
            {"name": "kafka-login"} for _ in topics
        ]
        # Helm would set the number back at each upgrade.
        assert "replicas" not in workloads(manifests)[stage]["spec"]
        assert workloads(render())[stage]["spec"]["replicas"] <= partitions
    assert not scaled


def test_metrics_of_all_workers_are_scraped_with_the_operators_key(render: Render) -> None:
    assert not of_kind(render(), "PodMonitor")
    manifests = render(EVERYTHING)
    [monitor] = of_kind(manifests, "PodMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    selector = monitor["spec"]["selector"]
    [expression] = selector["matchExpressions"]
    assert expression["operator"] == "In"
    found = {}
    for name, workload in workloads(manifests).items():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        is_ours = selector["matchLabels"].items() <= labels.items()
        if is_ours and labels[expression["key"]] in expression["values"]:
            found[name] = workload
    assert set(found) == set(WORKERS)
    [endpoint] = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["path"] in {each.path for each in HEALTH_ROUTES}
    for workload in found.values():
        assert endpoint["port"] in {each["name"] for each in container(workload)["ports"]}
        assert list(secrets(workload)) == [endpoint["authorization"]["credentials"]["name"]]
    assert endpoint["authorization"]["type"] == "Bearer"
    assert endpoint["authorization"]["credentials"]["key"] == "DEEPLENS_ADMIN_KEY"


def test_the_metrics_key_is_where_the_values_say(render: Render) -> None:
    def authorization(**values: object) -> object:
        [monitor] = of_kind(render(values), "PodMonitor")
        [endpoint] = monitor["spec"]["podMetricsEndpoints"]
        return endpoint.get("authorization")

    enabled: dict[str, object] = {"enabled": True}
    insecure = {"DEEPLENS_INSECURE": "true"}
    other = {"existingSecret": "others"}
    assert authorization(podMonitor=enabled, settings=insecure, credentials=other) is None
    named = enabled | {"keySecret": {"name": "operator", "key": "token"}}
    for settings in ({}, insecure):
        assert authorization(podMonitor=named, settings=settings, credentials=other) == {
            "type": "Bearer",
            "credentials": {"name": "operator", "key": "token"},
        }


def test_the_ingress_shows_clients_what_they_need_and_nothing_else(render: Render) -> None:
    [ingress] = of_kind(render(EVERYTHING), "Ingress")
    [rule] = ingress["spec"]["rules"]
    paths = rule["http"]["paths"]

    def shown(path: str) -> bool:
        return any(
            path == each["path"]
            or (each["pathType"] == "Prefix" and path.startswith(each["path"] + "/"))
            for each in paths
        )

    inside = ("/internal", "/tables", "/metrics")
    for route in ROUTES:
        assert shown(route.path) is not route.path.startswith(inside), route.path
