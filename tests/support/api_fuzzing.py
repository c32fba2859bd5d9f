"""The whole HTTP interface, called with what its own document allows and what it does not."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import hypothesis
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from deeplens_streams.web.openapi.operation import FORM
from tests.support.dead_letters import fail
from tests.support.openapi_answers import described
from tests.support.photographs import photograph
from tests.support.web_server import TENANT, Web, running

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
_DOOMED = "doomed"
_PICTURES = ("rocket", "coffee", "astronaut")

schemathesis.openapi.format(
    "binary",
    st.one_of(
        st.sampled_from(_PICTURES).map(lambda name: photograph(name).data), st.binary(max_size=500)
    ),
)


@dataclass(frozen=True, slots=True)
class Served:
    """A system that is called, and what it has: IDs that are somebody's.

    Attributes
    ----------
    known : real values of the address's and the query's parameters.
    doomed : images and tenants that may be deleted.
    """

    url: str
    known: dict[str, list[str]]
    doomed: dict[str, list[str]]


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """Serve the web layer on a thread of its own, with some pictures and dead letters in it."""
    found: list[tuple[Served, asyncio.AbstractEventLoop, asyncio.Event]] = []
    started = threading.Event()

    async def serve() -> None:
        try:
            async with running(folder) as web:
                filled = await _filled(web)
                stop = asyncio.Event()
                found.append((filled, asyncio.get_running_loop(), stop))
                started.set()
                await stop.wait()
                web.breaches.clear()  # they were said by the calls themselves
        finally:
            started.set()

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    started.wait()
    system, loop, stop = found[0]
    try:
        yield system
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


async def _filled(web: Web) -> Served:
    letters = [await fail(web) for _ in range(4)]
    web.indexes = web.purges = True
    images = [image_id for image_id, _ in letters]
    images += [(await web.upload(photograph(name).data))["imageId"] for name in _PICTURES]
    doomed = [
        (await web.upload(photograph(name).data, tenantId=_DOOMED))["imageId"] for name in _PICTURES
    ]
    return Served(
        url=str(web.client.make_url("")).rstrip("/"),
        known={
            "image_id": images,
            "imageId": images,
            "letter_id": [letter_id for _, letter_id in letters],
            "tenantId": [TENANT],
        },
        doomed={
            "image_id": doomed,
            "tenant_id": [_DOOMED],
            "tenantId": [_DOOMED],
            "confirm": [_DOOMED],
        },
    )


def call_everything(system: Served, *, cases: int, seed: int) -> Counter[int]:
    """Call every operation up to `cases` times with valid and as often with invalid values.

    Returns how often each status was answered. Raises all that schemathesis found.
    """
    statuses: Counter[int] = Counter()
    faults: list[Exception] = []
    schema = schemathesis.openapi.from_dict(described())
    with requests.Session() as session:
        for result in schema.get_all_operations():
            for mode in GenerationMode:
                call = _caller(cast(Any, result).ok(), mode, system, session, statuses)
                explore = hypothesis.seed(seed)(_settings(cases)(call))
                try:
                    explore()
                except hypothesis.errors.Unsatisfiable:
                    continue  # nothing of it can be invalid
                except Exception as error:
                    faults.append(error)
    if faults:
        raise ExceptionGroup("the document and the answers differ", faults)
    return statuses


def _settings(cases: int) -> hypothesis.settings:
    return hypothesis.settings(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def _caller(
    operation: Any,
    mode: GenerationMode,
    system: Served,
    session: requests.Session,
    statuses: Counter[int],
) -> Callable[[], None]:
    """Return a test of one operation, to be given its settings."""
    is_valid = mode is GenerationMode.POSITIVE

    @hypothesis.given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def call(case: Case[Any], data: st.DataObject) -> None:
        if is_valid:
            known = system.doomed if case.method == "DELETE" else system.known
            _put_known(case, known, data)
        # In a form all is text: what is null or a number to a schema is a fine name there.
        is_said_wrong = not is_valid and case.media_type != FORM
        checks = [*CHECKS, negative_data_rejection] if is_said_wrong else CHECKS
        response = case.call_and_validate(
            base_url=system.url, session=session, checks=checks, timeout=30
        )
        statuses[response.status_code] += 1

    return call


def _put_known(case: Case[Any], known: dict[str, list[str]], data: st.DataObject) -> None:
    """Name what there is instead of what there is not, most of the time."""
    for values in (case.path_parameters, case.query):
        for name in sorted(known.keys() & values.keys()):
            if data.draw(st.integers(0, 3)):
                values[name] = data.draw(st.sampled_from(known[name]))
    body = case.body
    if isinstance(body, dict):
        for name in sorted(known.keys() & body.keys()):
            if data.draw(st.integers(0, 3)):
                body[name] = data.draw(st.sampled_from(known[name]))
        if "ids" in body and data.draw(st.booleans()):
            body["ids"] = [data.draw(st.sampled_from(known["letter_id"]))]
