"""A system that has seen some days, kept as it is now and as it was before."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from deeplens_streams.audit.settled import GRACE_S
from deeplens_streams.host.ports import free_port
from tests.disasters.damage import copy
from tests.disasters.home import Home
from tests.disasters.past import Past
from tests.support.fault_injection import StubExtractor, cut_short, small_pictures

TENANTS = ("acme-corp", "other-corp")
#: Of each tenant, before and after the older copy.
IMAGES = 6


@pytest.fixture(scope="session")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubExtractor]:
    service = StubExtractor(tmp_path_factory.mktemp("stub"), free_port())
    service.start()
    asyncio.run(service.until_ready())
    yield service
    service.stop()


@pytest.fixture(scope="session")
def past(stub: StubExtractor, tmp_path_factory: pytest.TempPathFactory) -> Past:
    folder = tmp_path_factory.mktemp("past")
    home = Home(folder / "home", stub.url)
    past = Past(now=home.data, older=folder / "older", backup=folder / "backup", keys=home.keys)
    pictures = iter(small_pictures(4 * len(TENANTS) * IMAGES, seed=11))
    home.start()
    try:
        for tenant in TENANTS:
            home.make_tenant(tenant)
        _some_days(home, past, pictures)
        home.stop()
        copy(home.data, past.older)
        home.start()
        _some_days(home, past, pictures)
        _backup(home, past)
        said = home.run("audit", "--json")
        assert said.code == 0, said
        past.accepted = said.lines[-1]["accepted"]
    finally:
        home.stop()
    # What moved a moment ago might still be on its way: an audit waits for it.
    time.sleep(GRACE_S)
    return past


def _some_days(home: Home, past: Past, pictures: Iterator[bytes]) -> None:
    """Upload images, of which one of each tenant fails and one is deleted."""
    sent: dict[str, str] = {}
    for tenant in TENANTS:
        for number in range(IMAGES):
            picture = next(pictures)
            whole = number != 1
            image_id = home.upload(tenant, picture if whole else cut_short(picture))
            sent[image_id] = tenant
            if whole:
                past.images[image_id] = (tenant, picture)
            else:
                past.failed[image_id] = tenant
    home.until_final(sent)
    for tenant in TENANTS:
        # Of this time and of the one before.
        for images in (sent, past.images.keys() - sent.keys()):
            gone = next((i for i in images if _is_of(past, i, tenant)), None)
            if gone is not None:
                home.delete(tenant, gone)
                del past.images[gone]
                past.deleted[gone] = tenant


def _is_of(past: Past, image_id: str, tenant: str) -> bool:
    return image_id in past.images and past.images[image_id][0] == tenant


def _backup(home: Home, past: Past) -> None:
    said = home.run("backup", str(past.backup))
    assert said.code == 0, said
