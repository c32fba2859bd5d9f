"""The programs that make TypeScript of the OpenAPI document, from npm's registry by a lock."""

import shutil
import subprocess
from pathlib import Path

#: A lock with the hashes of what is needed, and a program that uses the types.
FOLDER = Path(__file__).parents[1] / "contract" / "typescript"


def installed(npm: str, into: Path) -> Path:
    """Return the folder of the packages of the lock; what is there already is kept.

    Raises
    ------
    OSError
        The registry does not give them.
    """
    lock = "package-lock.json"
    made = into / lock
    if made.exists() and made.read_bytes() == (FOLDER / lock).read_bytes():
        return into / "node_modules"
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    shutil.copy(FOLDER / "package.json", into)
    shutil.copy(FOLDER / lock, into)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1"]
    ended = subprocess.run(
        [npm, "ci", *options], cwd=into, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        made.unlink()
        raise OSError(f"npm cannot install openapi-typescript: {ended.stderr.strip()[-200:]}")
    return into / "node_modules"
