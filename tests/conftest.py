"""What is missing on a machine is asked before anything is set up."""

import pytest

from tests.support.programs import ask_for, needs_of


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give `-m needs` every test that needs something, however it says so."""
    for item in items:
        for name in needs_of(item):
            item.add_marker(pytest.mark.needs(name))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    ask_for(item)
