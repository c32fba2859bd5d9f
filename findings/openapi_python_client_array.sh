#!/usr/bin/env bash
# openapi-python-client 0.29.1. An array that says nothing of its items is a whole schema: JSON Schema 2020-12, which OpenAPI
# 3.1 takes as it is, has `items` as optional, and `maxItems: 0` leaves nothing to say of them. One such field has the
# generator write no class for the object that it is in, with whatever else that has. It says so in a warning, and ends with
# 0, so a build that looks at exit codes never knows. With `items: {}` beside it, which says the same, all is there. So the
# arrays of a document have `items`, and who generates looks for warnings.
#
# Seen: exit code 0 both times; without `items` the class of the 409 is not written, with `items: {}` it is.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openapi-python-client==0.29.1
cd "$folder"
for items in without with; do
    python3 - "$items" <<'PY'
import json
import sys

images = {"type": "array", "maxItems": 0} | ({"items": {}} if sys.argv[1] == "with" else {})
refusal = {"type": "object", "properties": {"reason": {"type": "string"}, "images": images}}


def answer(schema):
    return {"description": "An answer.", "content": {"application/json": {"schema": schema}}}


document = {
    "openapi": "3.1.0",
    "info": {"title": "Images", "version": "1"},
    "paths": {
        "/images": {
            "get": {
                "operationId": "list_images",
                "responses": {
                    "200": answer({"type": "object", "properties": {"count": {"type": "integer"}}}),
                    "409": answer({"$ref": "#/components/schemas/Refusal"}),
                },
            }
        }
    },
    "components": {"schemas": {"Refusal": refusal}},
}
with open(f"{sys.argv[1]}.json", "w") as file:
    json.dump(document, file)
PY
    code=0
    PATH="$folder/venv/bin:$PATH" "$folder/venv/bin/openapi-python-client" generate --path "$items.json" \
        --output-path "$items" --meta none >"$items.log" 2>&1 || code=$?
    model=no; [ -e "$items/models/refusal.py" ] && model=yes
    echo "$items items: exit code $code, a class for the refusal: $model"
    echo "$items $code $model" >>seen
done
[ "$(cat seen)" = "$(printf 'without 0 no\nwith 0 yes')" ] || { cat ./*.log; exit 1; }
