"""What is missing on a machine is asked before anything is set up; what takes long goes first."""

import pytest

from tests.support.programs import ask_for, needs_of

#: Folders of few tests that take long: were one of them the last, all other cores would be idle.
FIRST = ("integration", "processes", "model", "deploy", "decoders")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give `-m needs` every test that needs something, however it says so."""
    for item in items:
        for name in needs_of(item):
            item.add_marker(pytest.mark.needs(name))
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    folder = item.path.parent.name
    return FIRST.index(folder) if folder in FIRST else len(FIRST)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    ask_for(item)
