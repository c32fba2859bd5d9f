#!/usr/bin/env bash
# import-linter 2.17. `root_packages` takes top-level packages. A package below one, which can be imported just as well, ends
# `lint-imports` with exit code 1 and not a word on either stream beyond its logo, because the error of grimp behind it has
# no text; `--verbose` says no more. Only `--debug` shows a stack trace, which ends with the name of the error. A package
# that cannot be imported at all is told in a sentence.
#
# Seen: package: "kept", 0. package.below: 1 and nothing said. absent: 1 and a sentence.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check import-linter==2.17 grimp==3.20
mkdir -p "$folder/project/package/below"
cd "$folder/project"
touch package/__init__.py package/upper.py package/below/__init__.py

said() {  # the exit code of lint-imports for a root package, and the lines that have a letter
    printf '[importlinter]\nroot_packages =\n    %s\n[importlinter:contract:one]\nname = one\ntype = layers\nlayers =\n    package.upper\n    package.below\n' \
        "$1" > .importlinter
    code=0
    "$folder/venv/bin/lint-imports" > out 2>&1 || code=$?
    echo "$code: $(grep '[A-Za-z]' out | tr '\n' ';' || true)"
}

top=$(said package); below=$(said package.below); absent=$(said absent)
echo "package       $top"
echo "package.below $below"
echo "absent        $absent"
[[ $top == 0:*"1 kept"* && $below == "1: " && $absent == "1: Could not find package"* ]]
