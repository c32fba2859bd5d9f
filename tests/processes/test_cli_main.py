"""The command itself: its help, its exit codes, how fast it is there."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deeplens_streams import __version__
from deeplens_streams.cli.commands import OUR_COMMANDS, load_command
from tests.support.signals import heeding_ctrl_c

Ended = subprocess.CompletedProcess[str]


def deeplens(*arguments: str, env: dict[str, str] | None = None) -> Ended:
    return _run("deeplens_streams.cli.main", *arguments, env=env)


def faust(*arguments: str, env: dict[str, str] | None = None) -> Ended:
    return _run("faust", "-A", "deeplens_streams", *arguments, env=env)


def _run(module: str, *arguments: str, env: dict[str, str] | None) -> Ended:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **(env or {})},
    )


def test_help_has_ours_and_fausts() -> None:
    ended = deeplens("--help")

    assert ended.returncode == 0
    ours, fausts = ended.stdout.split("Faust's own commands:")
    for name in OUR_COMMANDS:
        assert f"\n  {name} " in ours
    for name in ("worker", "agents", "tables"):
        assert f"\n  {name} " in fausts


def test_version() -> None:
    ended = deeplens("--version")

    assert (ended.returncode, ended.stdout) == (0, f"deeplens, version {__version__}\n")


@pytest.mark.parametrize("name", OUR_COMMANDS)
def test_every_command_explains_itself(name: str) -> None:
    command = load_command(name)

    assert command.name == name
    assert command.help
    assert command.get_short_help_str(100).endswith(".")


def test_our_commands_start_without_the_heavy_libraries() -> None:
    code = (
        "import sys; from deeplens_streams.cli.commands import load_command; "
        "[load_command(n) for n in ('status', 'upload', 'search', 'extractor', 'up')]; "
        "print([n for n in ('faust', 'torch', 'rocksdict', 'qdrant_edge') if n in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ended.stdout == "[]\n"


def test_fausts_commands_find_the_app() -> None:
    ended = deeplens("agents", env={"DEEPLENS_WEIGHTS": "untrained"})

    assert ended.returncode == 0
    assert "deeplens.images.progress" in ended.stdout


def test_fausts_own_program_has_our_commands() -> None:
    ended = faust("--help")
    assert ended.returncode == 0
    for name in (*OUR_COMMANDS, "worker", "agents", "tables"):
        assert f"\n  {name} " in ended.stdout

    ended = faust("status", "--help")
    assert ended.returncode == 0
    assert "--follow" in ended.stdout

    ended = faust("topics", "--broker", "kafka://127.0.0.1:9")
    assert ended.returncode == 3
    assert ended.stderr.startswith("deeplens: No Kafka answers at kafka://127.0.0.1:9")
    assert ended.stderr.count("\n") == 1

    ended = faust("status", "img_1")
    assert ended.returncode == 2
    assert "Usage: deeplens status [OPTIONS] ID" in ended.stderr


def test_a_wrong_setting_is_one_sentence_from_fausts_own_program() -> None:
    ended = faust("worker", env={"DEEPLENS_WEB_PORT": "many"})
    assert ended.returncode == 1
    assert ended.stderr.startswith("deeplens: DEEPLENS_WEB_PORT: ")
    assert ended.stderr.count("\n") == 1


def test_a_wrong_setting_is_one_sentence_for_fausts_commands_too() -> None:
    for command in ("agents", "topics", "up"):
        ended = deeplens(command, env={"DEEPLENS_WEB_PORT": "many"})
        assert ended.returncode == 1
        assert ended.stderr.startswith("deeplens: DEEPLENS_WEB_PORT: ")
        assert ended.stderr.count("\n") == 1


def test_an_address_that_nothing_checks_is_refused(tmp_path: Path) -> None:
    env = {"DEEPLENS_WEIGHTS": "untrained", "DEEPLENS_DATA_DIR": str(tmp_path)}
    ended = faust("worker", "--web-bind", "0.0.0.0", env=env)
    assert ended.returncode == 1
    (said,) = [line for line in ended.stderr.splitlines() if line.startswith("deeplens: ")]
    assert "set DEEPLENS_WEB_HOST" in said
    assert "Traceback" not in ended.stderr


def test_an_unknown_command_is_wrong_usage() -> None:
    ended = deeplens("uplaod")

    assert ended.returncode == 2
    assert "No such command" in ended.stderr


def test_no_broker_is_3() -> None:
    ended = deeplens("topics", "--broker", "kafka://127.0.0.1:9")

    assert ended.returncode == 3
    assert ended.stderr.startswith("deeplens: No Kafka answers at kafka://127.0.0.1:9")
    assert ended.stderr.count("\n") == 1


def test_doctor_names_what_fails_and_leaves_no_trace(tmp_path: Path) -> None:
    data = tmp_path / "data"
    env = {"DEEPLENS_DATA_DIR": str(data), "DEEPLENS_BROKER": "kafka://127.0.0.1:9"}
    ended = deeplens("doctor", env=env)

    assert ended.returncode == 1
    states = {line[:16].strip(): line[16:].split()[0] for line in ended.stdout.splitlines()}
    assert states["python"] == "ok"
    assert states["broker"] == "fail"
    assert states["topics"] == "warn"
    assert not data.exists()


def test_a_closed_pipe_is_quiet() -> None:
    command = [sys.executable, "-m", "deeplens_streams.cli.main", "--help"]
    read, write = os.pipe()
    os.close(read)
    with subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, text=True) as process:
        os.close(write)
        _, err = process.communicate(timeout=60)

    assert process.returncode == 1
    assert err == ""


def test_ctrl_c_is_130(tmp_path: Path) -> None:
    """Interrupted while it waits for a folder whose last user is dead and not yet gone."""
    code = (
        "import os, subprocess, sys; from pathlib import Path; "
        "from deeplens_streams.host.folder_lock import FolderLock; "
        "lock = FolderLock(Path(sys.argv[1])); lock.acquire(); "
        "print(subprocess.Popen(['sleep', '600'], pass_fds=[lock.fileno()], "
        "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).pid, flush=True)"
    )
    holder = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    command = [sys.executable, "-m", "deeplens_streams.cli.main", "up", "--data-dir", str(tmp_path)]
    try:
        with heeding_ctrl_c():
            process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        with process:
            assert process.stderr is not None
            said = process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
    finally:
        os.kill(int(holder.stdout), signal.SIGKILL)

    assert process.returncode == 130
    assert said.startswith(f"deeplens: {tmp_path} was in use by process ")
    assert err.strip() == ""
