"""A whole worker on a Kafka with TLS and logins; and what it says when it is not let in."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from deeplens_streams.embedded_kafka import KafkaServer
from deeplens_streams.embedded_kafka.jars import kafka_jars
from deeplens_streams.embedded_kafka.java import find_java
from deeplens_streams.host.ports import free_port
from tests.support.certificates import Authority
from tests.support.photographs import as_jpeg, photograph
from tests.support.system import Extractor, System

pytestmark = pytest.mark.kafka

USER, SCRAM_PASSWORD, PLAIN_PASSWORD = "deeplens", "secret-of-scram", "secret-of-plain"
SECRETS = (SCRAM_PASSWORD, PLAIN_PASSWORD, "a-wrong-one")


@dataclass(frozen=True)
class SecureKafka:
    """Apache Kafka with a listener that asks for logins, and one that asks for certificates.

    Attributes
    ----------
    login, mutual, plain : what DEEPLENS_BROKER is for each of its listeners.
    scram, password_file, certificate : the settings of three clients that are let in.
    """

    plain: str
    login: str
    mutual: str
    scram: dict[str, str]
    password_file: dict[str, str]
    certificate: dict[str, str]


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureKafka]:
    folder = tmp_path_factory.mktemp("secure-kafka")
    server = KafkaServer(folder / "kafka")
    server.prepare()
    authority = Authority(folder / "certificates")
    client = authority.issue("client")
    login, mutual = (f"127.0.0.1:{free_port()}" for _ in range(2))
    _secure(server, authority, login=login, mutual=mutual)
    _format_with_user(server)
    password = folder / "password"
    password.write_text(f"{PLAIN_PASSWORD}\n")
    trust = {"KAFKA_CA": str(authority.certificate)}
    with server:
        yield SecureKafka(
            plain=f"kafka://{server.bootstrap}",
            login=f"kafka://{login}",
            mutual=f"kafka://{mutual}",
            scram={
                **trust,
                "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
                "KAFKA_USER": USER,
                "KAFKA_PASSWORD": SCRAM_PASSWORD,
            },
            password_file={
                **trust,
                "KAFKA_SASL_MECHANISM": "PLAIN",
                "KAFKA_USER": USER,
                "KAFKA_PASSWORD_FILE": str(password),
            },
            certificate={
                **trust,
                "KAFKA_CERTIFICATE": str(client.certificate),
                "KAFKA_KEY": str(client.key),
            },
        )


def _secure(server: KafkaServer, authority: Authority, *, login: str, mutual: str) -> None:
    """Give the server that was prepared two listeners more."""
    pair = authority.issue("kafka")
    keystore = server.folder / "keystore.pem"
    keystore.write_text(pair.key.read_text() + pair.certificate.read_text())
    controller = json.loads((server.folder / "ports.json").read_text())["controller"]
    clients = f"PLAINTEXT://{server.bootstrap},LOGIN://{login},MUTUAL://{mutual}"
    modules = "org.apache.kafka.common.security"
    protocols = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,LOGIN:SASL_SSL,MUTUAL:SSL"
    added = {
        "listeners": f"{clients},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": clients,
        "listener.security.protocol.map": protocols,
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": keystore,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": authority.certificate,
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.login.sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
        "listener.name.login.scram-sha-512.sasl.jaas.config": (
            f"{modules}.scram.ScramLoginModule required;"
        ),
        "listener.name.login.plain.sasl.jaas.config": (
            f'{modules}.plain.PlainLoginModule required user_{USER}="{PLAIN_PASSWORD}";'
        ),
    }
    with (server.folder / "server.properties").open("a") as properties:  # the last one counts
        properties.writelines(f"{name}={value}\n" for name, value in added.items())


def _format_with_user(server: KafkaServer) -> None:
    """Prepare the data folder with a SCRAM user, as Kafka's own tool does."""
    subprocess.run(
        [
            *(find_java().path, "-cp", os.pathsep.join(map(str, kafka_jars()))),
            *("kafka.tools.StorageTool", "format", "--cluster-id=MkU3OEVBNTcwNTJENDM2Qk"),
            *("--config", server.folder / "server.properties", "--add-scram"),
            f'SCRAM-SHA-512=[name="{USER}",password="{SCRAM_PASSWORD}"]',
        ],
        cwd=server.folder,  # where its properties' paths begin
        check=True,
        capture_output=True,
    )


@pytest.fixture
async def system(
    secure: SecureKafka, extractor: Extractor, tmp_path: Path
) -> AsyncIterator[System]:
    system = System(secure.login, f"t{uuid.uuid4().hex[:10]}", tmp_path, extractor.url)
    try:
        yield system
    finally:
        await system.close()


@pytest.mark.parametrize("way", ["scram", "password_file", "certificate"])
async def test_pictures_come_through(secure: SecureKafka, system: System, way: str) -> None:
    if way == "certificate":
        system.broker = secure.mutual
    # It is ready when the status feed, a client of its own, has an answer from Kafka.
    worker = await system.started(**getattr(secure, way))
    client = system.client(worker)
    picture = as_jpeg(photograph("coffee").data, pixels=40_000)
    ids = [await client.upload(picture) for _ in range(3)]
    assert set((await client.until_final(ids)).values()) == {"completed"}
    for secret in SECRETS:
        assert secret not in worker.log()


async def test_a_wrong_password_ends_the_worker_with_a_sentence(
    secure: SecureKafka, system: System
) -> None:
    said = refused(system, **{**secure.scram, "KAFKA_PASSWORD": "a-wrong-one"})
    assert f"does not let {USER} in" in said
    assert "DEEPLENS_KAFKA_PASSWORD" in said


async def test_a_kafka_that_nobody_vouches_for_ends_the_worker_with_a_sentence(
    secure: SecureKafka, system: System, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other").certificate
    said = refused(system, **{**secure.scram, "KAFKA_CA": str(other)})
    assert "cannot be trusted" in said
    assert "DEEPLENS_KAFKA_CA" in said


async def test_a_mechanism_that_is_not_there_ends_the_worker_with_a_sentence(
    secure: SecureKafka, system: System
) -> None:
    said = refused(system, **{**secure.scram, "KAFKA_SASL_MECHANISM": "SCRAM-SHA-256"})
    assert "takes no login by SCRAM-SHA-256" in said


async def test_a_login_that_nobody_asked_for_ends_the_worker_with_a_sentence(
    secure: SecureKafka, system: System
) -> None:
    system.broker = secure.mutual
    said = refused(system, **{**secure.scram, **secure.certificate})
    assert "asks for no login" in said


async def test_a_setting_that_is_missing_ends_the_worker_with_a_sentence(
    secure: SecureKafka, system: System
) -> None:
    said = refused(system, **{**secure.scram, "KAFKA_USER": ""})
    assert "DEEPLENS_KAFKA_USER is not" in said


def refused(system: System, **settings: str) -> str:
    """Return the last line of a worker that ends by itself, at its start."""
    worker = system.worker(**settings)
    worker.start()
    assert worker.process is not None
    assert worker.process.wait() == 1, worker.log()
    lines = worker.log().splitlines()
    assert "Traceback" not in worker.log()
    for secret in SECRETS:
        assert secret not in worker.log()
    assert lines[-1].startswith("deeplens: ")
    return lines[-1]


def test_the_topics_command_logs_in(secure: SecureKafka) -> None:
    namespace = {"NAMESPACE": "command"}
    made = command("topics", "--create", BROKER=secure.login, **secure.scram, **namespace)
    assert made.returncode == 0, made.stderr
    seen = command("topics", "--json", BROKER=secure.mutual, **secure.certificate, **namespace)
    assert seen.returncode == 0, seen.stderr
    assert {topic["state"] for topic in json.loads(seen.stdout)["topics"]} == {"ok"}


def test_the_doctor_names_a_wrong_password(secure: SecureKafka) -> None:
    wrong = {**secure.scram, "KAFKA_PASSWORD": "a-wrong-one"}
    ended = command("doctor", "--json", BROKER=secure.login, WEIGHTS="untrained", **wrong)
    details = {each["check"]: each["detail"] for each in json.loads(ended.stdout)}
    assert f"does not let {USER} in" in details["broker"]
    assert "a-wrong-one" not in ended.stdout + ended.stderr


@pytest.mark.parametrize(
    ("listener", "way", "protocol"),
    [
        ("login", "nothing", "PLAINTEXT"),
        ("login", "certificate", "SSL"),  # without the login
        ("mutual", "nothing", "PLAINTEXT"),
        ("plain", "certificate", "SSL"),
    ],
)
def test_who_comes_in_another_way_is_told_what_may_be_wanted(
    secure: SecureKafka, listener: str, way: str, protocol: str
) -> None:
    settings = {} if way == "nothing" else getattr(secure, way)
    ended = command("topics", BROKER=getattr(secure, listener), **settings)
    assert ended.returncode == 3
    assert f"hangs up on {protocol}, as Kafka does when" in ended.stderr


def command(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("DEEPLENS_")}
    return subprocess.run(
        [sys.executable, "-m", "deeplens_streams.cli.main", *arguments],
        env={**clean, **{f"DEEPLENS_{name}": value for name, value in settings.items()}},
        capture_output=True,
        text=True,
        check=False,
    )
