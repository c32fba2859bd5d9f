"""What is put aside of a topic comes back as it was, in the order of each key."""

from pathlib import Path

from deeplens_streams.broker.aside import Aside, Manifest, Record


def record(partition: int, at: int, value: bytes | None = b"\x00\xff", key: bytes = b"k") -> Record:
    return Record(partition, at, key, value, (("name", b"\xfe"), ("empty", b"")))


def test_records_come_back_by_time_and_partition(tmp_path: Path) -> None:
    aside = Aside(tmp_path / "topic")
    aside.begin()
    zero = [record(0, 5), record(0, 3), record(0, 9, None)]  # a clock that went back
    one = [record(10, 4), Record(10, 6, None, b"", ())]
    aside.append(0, zero[:2])
    aside.append(10, one)
    aside.append(0, zero[2:])
    assert aside.manifest() is None
    manifest = Manifest("topic", {0: 7, 10: 2}, 5, 3, {"cleanup.policy": "compact"})
    aside.finish(manifest)
    assert Aside(tmp_path / "topic").manifest() == manifest
    found = list(aside.records())
    assert [each for each in found if each.partition == 0] == zero
    assert [each for each in found if each.partition == 10] == one
    assert [each.timestamp for each in found] == [4, 5, 3, 6, 9]


def test_what_is_done_stays_as_a_copy_and_what_is_not_whole_is_begun_anew(tmp_path: Path) -> None:
    aside = Aside(tmp_path / "topic")
    for number in (1, 2):
        aside.begin()
        aside.append(0, [record(0, number)])
        aside.begin()
        aside.append(0, [record(0, number)])
        aside.finish(Manifest("topic", {0: 1}, 1, 1, {}))
        done = aside.close()
        assert done == tmp_path / f"topic.done-{number}"
        assert aside.manifest() is None
        assert list(Aside(done).records()) == [record(0, number)]
    assert (tmp_path / "topic.done-1").stat().st_mode & 0o077 == 0
