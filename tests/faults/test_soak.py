"""Twelve thousand pictures, as fast as they are processed: nothing is held at the end that was
not held in between."""

import pytest

from tests.support.soak import soak
from tests.support.system import System

pytestmark = [pytest.mark.faults, pytest.mark.alone, pytest.mark.timeout(1200)]

PICTURES = 12_000


async def test_memory_files_threads_and_sockets_stay(system: System) -> None:
    soaked = await soak(system, PICTURES, in_step=True)
    for each in soaked.held:
        print(f"{soaked.took_s:.0f} s; {each.name}: {each.quarter(2)}, {each.quarter(4)}")  # noqa: T201
    assert soaked.faults(PICTURES) == []
