"""Which settings of a topic are as they must be, and what is wrong with the others."""

from collections.abc import Mapping

import pytest

from deeplens_streams.broker.described import Described
from deeplens_streams.broker.partitions import count_fault
from deeplens_streams.broker.provisioning import DECLARED
from deeplens_streams.broker.topic_settings import corrected, deviations
from deeplens_streams.broker.topics import Topic
from deeplens_streams.broker.topology import EXTRACTION, FAILED, PROGRESS, STATUS, TENANTS, UPLOADED
from deeplens_streams.config import Settings

DAY = 86_400_000
#: What Kafka says of a topic that was made without any settings.
KAFKAS = {
    "cleanup.policy": "delete",
    "retention.ms": str(7 * DAY),
    "retention.bytes": "-1",
    "max.message.bytes": "1048588",
    "min.insync.replicas": "1",
    "unclean.leader.election.enable": "false",
    "delete.retention.ms": str(DAY),
    "segment.ms": str(7 * DAY),
    "segment.bytes": "1073741824",
    "min.cleanable.dirty.ratio": "0.5",
}
ONE, THREE = Settings(), Settings(replication=3)


def found(
    topic: Topic,
    settings: Settings = ONE,
    *,
    replicas: int | None = None,
    own: Mapping[str, str] | None = None,
) -> Described:
    """Return the topic as it must be, but for `own`."""
    overrides = topic.config(settings) | dict(own or {})
    return Described(
        topic.partitions,
        settings.replication if replicas is None else replicas,
        KAFKAS | overrides,
        overrides,
    )


def names(topic: Topic, described: Described, settings: Settings = ONE) -> dict[str, str]:
    return {each.setting: each.must_be for each in deviations(topic, described, settings)}


@pytest.mark.parametrize("settings", [ONE, THREE])
def test_a_topic_that_we_made_is_as_it_must_be(settings: Settings) -> None:
    for topic in DECLARED:
        assert deviations(topic, found(topic, settings), settings) == []


@pytest.mark.parametrize(
    ("setting", "value", "must_be"),
    [
        ("retention.ms", str(DAY), str(7 * DAY)),
        ("retention.ms", str(8 * DAY), None),
        ("retention.ms", "-1", None),
        ("retention.bytes", "1000000", "-1"),
        ("max.message.bytes", "1000", "1048588"),
        ("max.message.bytes", "9000000", None),
        ("cleanup.policy", "compact", "delete"),
        ("cleanup.policy", "delete,compact", "delete"),
        ("unclean.leader.election.enable", "true", "false"),
        ("compression.type", "zstd", None),
        ("segment.ms", "9", None),
    ],
)
def test_of_events(setting: str, value: str, must_be: str | None) -> None:
    wanted = {} if must_be is None else {setting: must_be}
    assert names(UPLOADED, found(UPLOADED, own={setting: value})) == wanted


@pytest.mark.parametrize(
    ("topic", "policy", "own", "loses"),
    [
        (TENANTS, "delete", {}, True),
        (TENANTS, "compact,delete", {}, True),
        (TENANTS, "compact, delete", {"retention.ms": "-1"}, False),
        (TENANTS, "compact,delete", {"retention.ms": "-1", "retention.bytes": "9"}, True),
        (TENANTS, "", {}, False),
        (PROGRESS, "compact", {}, True),
        (PROGRESS, "compact,delete", {}, True),
        (PROGRESS, "", {}, False),
    ],
)
def test_a_policy_that_removes_what_must_be_kept(
    topic: Topic, policy: str, own: dict[str, str], loses: bool
) -> None:
    described = found(topic, own={**own, "cleanup.policy": policy})
    faults = {each.setting: each.loses for each in deviations(topic, described, ONE)}
    assert faults["cleanup.policy"] == loses


def test_a_topic_that_was_made_without_settings() -> None:
    bare = Described(1, 1, KAFKAS, {})
    assert names(TENANTS, bare) == {
        "cleanup.policy": "compact",
        "segment.ms": "3600000",
        "segment.bytes": "67108864",
        "min.cleanable.dirty.ratio": "0.1",
    } | {
        each: value for each, value in TENANTS.config(ONE).items() if each == "delete.retention.ms"
    }
    assert names(FAILED, bare) == {
        "retention.ms": str(30 * DAY),
        "max.message.bytes": "8388608",
    }


@pytest.mark.parametrize(
    ("replicas", "in_sync", "expected"),
    [
        (3, "1", {"min.insync.replicas": "2"}),
        (3, "3", {}),
        (5, "1", {"min.insync.replicas": "2"}),
        # More than there are replicas would refuse every write.
        (1, "1", {"replicas": "3"}),
        (1, "2", {"replicas": "3", "min.insync.replicas": "1"}),
        (2, "1", {"replicas": "3", "min.insync.replicas": "2"}),
    ],
)
def test_replicas(replicas: int, in_sync: str, expected: dict[str, str]) -> None:
    described = found(STATUS, THREE, replicas=replicas, own={"min.insync.replicas": in_sync})
    assert names(STATUS, described, THREE) == expected


def test_more_in_sync_than_replicas_refuses_writes_also_where_one_is_enough() -> None:
    assert names(STATUS, found(STATUS, own={"min.insync.replicas": "2"})) == {
        "min.insync.replicas": "1"
    }


def test_what_is_put_right_keeps_what_an_operator_set() -> None:
    described = found(
        TENANTS, THREE, replicas=1, own={"cleanup.policy": "delete", "compression.type": "zstd"}
    )
    faults = deviations(TENANTS, described, THREE)
    fixed = corrected(described, faults)
    assert fixed["cleanup.policy"] == "compact"
    assert fixed["compression.type"] == "zstd"
    assert "replicas" not in fixed
    (replicas,) = [each for each in faults if each.setting == "replicas"]
    assert "kafka-reassign-partitions" in str(replicas.cure)


def test_settings_that_are_not_shown_are_not_judged() -> None:
    assert deviations(TENANTS, Described(1, 1, None, {}), ONE) == []


def test_counts() -> None:
    for topic in DECLARED:
        assert count_fault(topic, topic.partitions, "") is None
        assert count_fault(topic, topic.partitions - 1, "")
        more = count_fault(topic, topic.partitions + 2, "some")
        assert bool(more) == topic.is_fixed
        if more:
            assert topic.name("some") in more
            assert "deeplens topics --mend" in more
    assert not EXTRACTION.is_fixed
