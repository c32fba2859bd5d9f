"""Writes ``jars.lock`` anew: ``python -m deeplens_streams.embedded_kafka.relock``.

Run it after changing a version below, and read the difference before keeping it.
"""

import hashlib

import jgo

from deeplens_streams.embedded_kafka.jars import LOCK, Jar

_ROOTS = (
    "org.apache.kafka:kafka_2.13:4.1.1",
    # What carries Kafka's log lines to log4j; its own distribution adds it as well.
    "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3",
)


def resolve() -> list[Jar]:
    """Walk the dependencies, fetch every jar and take its checksum."""
    jars: dict[str, Jar] = {}
    for root in _ROOTS:
        for artifact in jgo.resolve(root):
            data = artifact.resolve().read_bytes()
            coordinate = f"{artifact.groupId}:{artifact.artifactId}:{artifact.version}"
            # The first version wins: the list follows Kafka's own.
            jars.setdefault(
                coordinate.rpartition(":")[0],
                Jar(coordinate, len(data), hashlib.sha256(data).hexdigest()),
            )
    return [jars[name] for name in sorted(jars)]


def main() -> None:
    lines = [f"{jar.coordinate} {jar.size} {jar.sha256}" for jar in resolve()]
    LOCK.write_text(
        "# Written by deeplens_streams.embedded_kafka.relock.\n" + "\n".join(lines) + "\n"
    )


if __name__ == "__main__":
    main()
