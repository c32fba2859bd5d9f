"""A release of another package without a method that is replaced ends at import, and says so."""

import configparser
import importlib
import re
from pathlib import Path

import pytest
from aiokafka.producer.message_accumulator import MessageAccumulator
from faust.transport.drivers import aiokafka

from deeplens_streams.broker import faust_transport, gathering
from deeplens_streams.broker.replaced_methods import EXPECTED, require


class Base:
    def _seek(self, partition: int, offset: int) -> None: ...


class Derived(Base):
    pass


def test_what_is_as_expected_passes_also_where_a_base_has_it() -> None:
    require("aiokafka", Derived, _seek=("partition", "offset"))


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("_drain", (), r"Derived\._drain, which is replaced, is missing in aiokafka \d"),
        ("_seek", ("tp",), r"Derived\._seek, .* takes \(partition, offset\) .* \(tp\) is expected"),
    ],
)
def test_what_is_not_names_the_release_that_is_expected(
    name: str, parameters: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ImportError, match=said) as caught:
        require("aiokafka", Derived, **{name: parameters})
    assert str(caught.value).endswith(f"install aiokafka{EXPECTED['aiokafka']}.")


def test_the_transport_is_not_imported_without_a_method_that_it_replaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as another_release:
        owner = next(each for each in aiokafka.Consumer.__mro__ if "_new_offset" in vars(each))
        another_release.delattr(owner, "_new_offset")
        with pytest.raises(ImportError, match=r"Consumer\._new_offset.*faust-streaming==0\.15"):
            importlib.reload(faust_transport)
    with monkeypatch.context() as another_release:
        another_release.delattr(MessageAccumulator, "_append_batch")
        with pytest.raises(ImportError, match=r"_append_batch.*aiokafka>=0\.14"):
            importlib.reload(gathering)


def test_the_releases_are_those_that_are_installed() -> None:
    setup = configparser.ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    lines = setup["options"]["install_requires"].splitlines()
    wanted = {re.sub(r" ", "", line) for line in lines if line and not line.startswith("#")}
    assert {f"{package}{release}" for package, release in EXPECTED.items()} <= wanted
