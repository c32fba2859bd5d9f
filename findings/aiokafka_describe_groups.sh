#!/usr/bin/env bash
# aiokafka 0.14.0. `AIOKafkaAdminClient.describe_consumer_groups` asks brokers of today in version 3 of the request and
# reads the answer as version 2, which lacks the four bytes that stand behind each group. With one group nobody notices;
# asked for two that have the same coordinator, it reads the second from the middle of the first, and the connection ends.
#
# Seen: an answer in version 3 about two groups cannot be decoded with the class that the request names; one about one can.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check aiokafka==0.14.0
"$folder/venv/bin/python" - <<'PY'
import io
import sys

from aiokafka.protocol.admin import DescribeGroupsRequest_v3, DescribeGroupsResponse_v3


def read(count):
    """Return the names of the groups as the client reads them from a broker's bytes."""
    member = ("member", "client", "/127.0.0.1", b"", b"")
    groups = [(0, f"group-{n}", "Stable", "consumer", "range", [member], -1) for n in range(count)]
    data = DescribeGroupsResponse_v3(0, groups).encode()
    answer = DescribeGroupsRequest_v3.RESPONSE_TYPE.decode(io.BytesIO(data))
    return [group[1] for group in answer.groups]


one = read(1)
try:
    two = read(2)
except Exception as error:
    two = f"{type(error).__name__}: {error}"
print("version that the answer is read as:", DescribeGroupsRequest_v3.RESPONSE_TYPE.API_VERSION)
print("one group:", one)
print("two groups:", two)
sys.exit(0 if one == ["group-0"] and two != ["group-0", "group-1"] else 1)
PY
