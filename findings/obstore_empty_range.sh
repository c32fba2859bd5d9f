#!/usr/bin/env bash
# obstore 0.12.1. `get` with a range that says only where to begin (`{"offset": N}`) is what one resumes with: "the rest,
# behind the N bytes that I have". At the end of an object the rest is nothing, but that is an error, and its class is the
# one for whatever is unforeseen. So an empty object, whose whole is at offset 0, is read without a range and not with one.
# The other way round, `{"suffix": N}`, takes an empty object and a suffix that is longer than all there is.
#
# Seen in a MemoryStore and in a LocalStore: whole and suffix give b"", offset 0 of 0 bytes and offset 5 of 5 GenericError.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check obstore==0.12.1
"$folder/venv/bin/python" - "$folder" <<'PY'
import asyncio
import sys
from pathlib import Path

import obstore
from obstore.exceptions import GenericError
from obstore.store import LocalStore, MemoryStore

ASKED = {"whole": None, "suffix 9": {"suffix": 9}, "offset at the end": "end"}


async def read(store, key, size, asked):
    options = None if asked is None else {"range": {"offset": size} if asked == "end" else asked}
    try:
        found = await obstore.get_async(store, key, options=options)
        return b"".join([bytes(chunk) async for chunk in found.stream()])
    except GenericError:
        return "GenericError"


async def main():
    disk = Path(sys.argv[1], "objects")
    disk.mkdir()
    as_seen = True
    for name, store in (("memory", MemoryStore()), ("local", LocalStore(disk))):
        for body in (b"", b"12345"):
            key = f"of-{len(body)}-bytes"
            await obstore.put_async(store, key, body)
            got = {words: await read(store, key, len(body), asked) for words, asked in ASKED.items()}
            print(f"{name}, {len(body)} bytes: {got}")
            as_seen &= list(got.values()) == [body, body, "GenericError"]
    return as_seen


sys.exit(0 if asyncio.run(main()) else 1)
PY
