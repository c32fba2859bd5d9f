"""Another commit beside this one: a work tree of its own, with what its own lock installs."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


def commit_of(name: str) -> str:
    """Return the short hash of a commit; end with git's own sentence where there is none."""
    found = git("rev-parse", "--verify", "--short", f"{name}^{{commit}}")
    return found.strip()


def git(*arguments: str) -> str:
    """Return what git says; end with its words where it fails."""
    command = ["git", "-C", str(HERE), *arguments]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SystemExit(f"git {arguments[0]}: {answer.stderr.strip()}")
    return answer.stdout


@contextmanager
def checked_out(commit: str, keep: Path | None) -> Iterator[Path]:
    """Yield a folder with `commit` and its `.venv`.

    Parameters
    ----------
    keep : where it is made and stays, to be taken again the next time. Default: it is removed.
    """
    with tempfile.TemporaryDirectory(prefix="deeplens-base-") as name:
        folder = keep.absolute() if keep else Path(name) / commit
        if not (folder / ".git").exists():
            git("worktree", "add", "--detach", str(folder), commit)
        try:
            there = git("-C", str(folder), "rev-parse", "--short", "HEAD").strip()
            if there != commit:
                raise SystemExit(f"{folder} holds {there}, not {commit}; name another folder.")
            # What uv has in its cache is not downloaded again.
            command = ["make", "--no-print-directory", ".venv/.run"]
            subprocess.run(command, cwd=folder, check=True)
            yield folder
        finally:
            if keep is None:
                git("worktree", "remove", "--force", str(folder))
