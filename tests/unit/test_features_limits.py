"""How much memory a container has left, and a limit that holds for one process."""

import subprocess
import sys
from pathlib import Path

import pytest

from deeplens_streams.host.cgroup_memory import container_room

V1, V2 = "4:memory:/kubepods/pod/box\n3:cpu:/\n0::/\n", "0::/kubepods/pod/box\n"
STAT = "anon 1\nactive_file 150\ninactive_file 50\ntotal_active_file 150\ntotal_inactive_file 50\n"
#: As version 1 says that there is none.
NO_LIMIT = 9223372036854771712


def machine(root: Path, groups: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    return root


def group(root: Path, path: str, limit: object, used: int, stat: str = STAT) -> None:
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    old = path.startswith("memory")
    (folder / ("memory.limit_in_bytes" if old else "memory.max")).write_text(f"{limit}\n")
    (folder / ("memory.usage_in_bytes" if old else "memory.current")).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(stat)


@pytest.mark.parametrize(("groups", "mount"), [(V1, "memory"), (V2, "")])
def test_what_is_used_and_a_part_for_the_worker_are_taken_off(
    groups: str, mount: str, tmp_path: Path
) -> None:
    machine(tmp_path, groups)
    group(tmp_path, f"{mount}/kubepods/pod/box".strip("/"), 8000, 3000)
    assert container_room(tmp_path) == 8000 - 1000 - (3000 - 200)


@pytest.mark.parametrize(("groups", "mount"), [(V1, "memory"), (V2, "")])
def test_the_narrowest_group_counts(groups: str, mount: str, tmp_path: Path) -> None:
    machine(tmp_path, groups)
    group(tmp_path, f"{mount}/kubepods/pod/box".strip("/"), NO_LIMIT if mount else "max", 3000)
    group(tmp_path, f"{mount}/kubepods/pod".strip("/"), 16000, 3000)
    group(tmp_path, f"{mount}/kubepods".strip("/"), 16000, 13000)
    assert container_room(tmp_path) == 16000 - 2000 - (13000 - 200)


@pytest.mark.parametrize(("groups", "mount"), [(V1, "memory"), (V2, "")])
def test_a_container_may_see_its_own_group_as_the_root(
    groups: str, mount: str, tmp_path: Path
) -> None:
    machine(tmp_path, groups)
    group(tmp_path, mount, 8000, 3000)
    assert container_room(tmp_path) == 8000 - 1000 - (3000 - 200)


def test_what_is_known_of_files_is_cache(tmp_path: Path) -> None:
    machine(tmp_path, V2)
    group(tmp_path, "kubepods/pod/box", 8000, 7000, STAT + "slab_reclaimable 4000\n")
    assert container_room(tmp_path) == 8000 - 1000 - (7000 - 4200)


def test_no_limit_is_none(tmp_path: Path) -> None:
    assert container_room(tmp_path / "no Linux") is None
    machine(tmp_path, V1)
    assert container_room(tmp_path) is None
    group(tmp_path, "memory", NO_LIMIT, 3000)
    assert container_room(tmp_path) is None


LIMITED = """
import resource
from deeplens_streams.host.cgroup_memory import limit_memory, memory_left

assert memory_left() is None
assert limit_memory(100_000_000) == 100_000_000
bytearray(80_000_000)
try:
    bytearray(150_000_000)
except MemoryError:
    print("refused")
assert 0 < memory_left() <= 100_000_000
before = resource.getrlimit(resource.RLIMIT_DATA)
limit_memory(10_000_000_000)
assert resource.getrlimit(resource.RLIMIT_DATA) == before, "a limit that was there is kept"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such limits")
def test_a_process_gets_what_it_has_and_its_room() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True
    )
    assert ran.stdout == "refused\n"
