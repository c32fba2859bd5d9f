"""Finding one's way in what Helm renders."""

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]
Manifests = list[Object]

STAGES = ["process", "extract", "index"]
WORKERS = ["api", *STAGES]
COMPONENTS = [*WORKERS, "extractor"]

#: Values that make every part of the chart appear.
EVERYTHING: dict[str, Any] = {
    "settings": {"DEEPLENS_NAMESPACE": "blue", "DEEPLENS_WEIGHTS": "/weights/resnet50.pth"},
    "image": {"repository": "registry.example.com/deeplens", "pullSecrets": [{"name": "pull"}]},
    "credentials": {
        "existingSecret": "deeplens-secret",
        "files": [{"secret": "kafka-ca", "mountPath": "/etc/deeplens/kafka"}],
    },
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}},
    "weights": {"existingClaim": "weights"},
    "api": {
        "podAnnotations": {"example.com/team": "pictures"},
        "nodeSelector": {"pool": "web"},
        "tolerations": [{"key": "web", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "service": {"type": "LoadBalancer", "annotations": {"a/b": "c"}},
        "persistence": {"storageClass": "fast"},
    },
    "extractor": {
        "replicas": 3,
        "gpu": {"enabled": True, "runtimeClassName": "nvidia", "nodeSelector": {"gpu": "h200"}},
        "persistence": {"enabled": False},
    },
    "autoscaling": {"enabled": True, "authenticationRef": "kafka-login"},
    "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "ingress": {
        "enabled": True,
        "className": "nginx",
        "host": "pictures.example.com",
        "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "12m"},
        "tls": [{"secretName": "tls", "hosts": ["pictures.example.com"]}],
    },
}


def of_kind(manifests: Manifests, *kinds: str) -> Manifests:
    return [each for each in manifests if each["kind"] in kinds]


def workloads(manifests: Manifests) -> dict[str, Object]:
    """Return Deployments and StatefulSets by their component."""
    found = of_kind(manifests, "Deployment", "StatefulSet")
    return {each["metadata"]["labels"]["app.kubernetes.io/component"]: each for each in found}


def pod(workload: Object) -> Object:
    spec: Object = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Object) -> Object:
    [only] = pod(workload)["containers"]
    found: Object = only
    return found


def environment(workload: Object, manifests: Manifests) -> dict[str, str]:
    """Return the container's variables, but for those from Secrets."""
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(manifests, "ConfigMap")}
    found: dict[str, str] = {}
    for source in container(workload)["envFrom"]:
        if "configMapRef" in source:
            found |= maps[source["configMapRef"]["name"]]
    own = {"POD_NAME": f"{workload['metadata']['name']}-0"}
    for each in container(workload)["env"]:
        if each["name"] not in own:
            found[each["name"]] = each["value"].replace("$(POD_NAME)", own["POD_NAME"])
    return found


def secrets(workload: Object) -> Iterator[str]:
    for source in container(workload)["envFrom"]:
        if "secretRef" in source:
            yield source["secretRef"]["name"]
