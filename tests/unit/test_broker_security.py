"""From settings to what Kafka's clients need; mixes that cannot be meant; secrets stay secret."""

import ssl
from pathlib import Path
from typing import Any, cast

import pytest
from faust.auth import SASLCredentials, SSLCredentials
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth
from structlog.testing import capture_logs

from deeplens_streams.broker.security import broker_security, client_options, faust_credentials
from deeplens_streams.cli.up import up
from deeplens_streams.config import Settings, load_settings
from deeplens_streams.errors import ConfigurationError
from deeplens_streams.runtime.apps import build_apps
from tests.support.certificates import Authority, Pair, openssl

PASSWORD = "a-very-secret-password"
LOGIN = {
    "kafka_sasl_mechanism": "SCRAM-SHA-512",
    "kafka_user": "deeplens",
    "kafka_password": PASSWORD,
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def client(authority: Authority) -> Pair:
    return authority.issue("client")


def settings(**values: Any) -> Settings:
    return Settings(broker="kafka://kafka-1:9093;kafka://kafka-2:9093", **values)


def test_nothing_set_is_a_plain_connection() -> None:
    assert client_options(settings()) == {
        "bootstrap_servers": ["kafka-1:9093", "kafka-2:9093"],
        "security_protocol": "PLAINTEXT",
        "ssl_context": None,
    }
    assert faust_credentials(settings()) is None


def test_tls_alone_trusts_the_system() -> None:
    options = client_options(settings(kafka_tls=True))
    context = options["ssl_context"]
    assert options["security_protocol"] == "SSL"
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context is client_options(settings(kafka_tls=True))["ssl_context"]


def test_an_authority_means_tls_and_is_all_that_is_trusted(authority: Authority) -> None:
    context = broker_security(settings(kafka_ca=authority.certificate)).tls
    assert context is not None
    (trusted,) = context.get_ca_certs()
    assert trusted["subject"] == ((("commonName", "authority"),),)


def test_a_certificate_of_ones_own_means_tls(client: Pair) -> None:
    security = broker_security(settings(kafka_certificate=client.certificate, kafka_key=client.key))
    assert security.protocol == "SSL"


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
@pytest.mark.parametrize("tls", [True, False])
def test_faust_and_our_clients_get_the_same(mechanism: str, tls: bool) -> None:
    given = settings(kafka_tls=tls, **{**LOGIN, "kafka_sasl_mechanism": mechanism})
    ours = client_options(given)
    assert ours.pop("bootstrap_servers")
    assert ours == credentials_to_aiokafka_auth(faust_credentials(given))
    assert ours == {
        "security_protocol": "SASL_SSL" if tls else "SASL_PLAINTEXT",
        "ssl_context": broker_security(given).tls,
        "sasl_mechanism": mechanism,
        "sasl_plain_username": "deeplens",
        "sasl_plain_password": PASSWORD,
    }


def test_faust_gets_a_context_where_there_is_no_login() -> None:
    credentials = faust_credentials(settings(kafka_tls=True))
    assert isinstance(credentials, SSLCredentials)
    assert credentials.context is broker_security(settings(kafka_tls=True)).tls


def test_every_app_has_them(tmp_path: Path, authority: Authority) -> None:
    given = settings(
        data_dir=tmp_path,
        kafka_ca=authority.certificate,
        extractor_url="http://127.0.0.1:9",
        weights="untrained",
        **LOGIN,
    )
    for app in build_apps(given).process_apps:
        for credentials in (app.conf.broker_credentials, cast(Any, app.producer).credentials):
            assert isinstance(credentials, SASLCredentials)
            assert credentials.password == PASSWORD
            assert credentials.ssl_context is broker_security(given).tls


def test_plain_without_tls_is_one_warning() -> None:
    given = settings(**{**LOGIN, "kafka_sasl_mechanism": "PLAIN", "kafka_user": "warned"})
    with capture_logs() as logs:
        client_options(given)
        faust_credentials(given)
    (line,) = logs
    assert "in the clear" in line["event"]
    assert PASSWORD not in repr(logs)


def test_the_password_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f" {PASSWORD} ü\n")
    login = broker_security(settings(**{**LOGIN, "kafka_password": None}, kafka_password_file=file))
    assert login.login is not None
    assert login.login.password == f" {PASSWORD} ü"


def without(*names: str) -> dict[str, Any]:
    return {name: value for name, value in LOGIN.items() if name not in names}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (without("kafka_user"), "KAFKA_SASL_MECHANISM is set and DEEPLENS_KAFKA_USER is not"),
        (
            without("kafka_password"),
            "KAFKA_SASL_MECHANISM is set and DEEPLENS_KAFKA_PASSWORD is not",
        ),
        (without("kafka_sasl_mechanism"), "KAFKA_USER is set and .*SASL_MECHANISM is not"),
        (
            without("kafka_sasl_mechanism", "kafka_user"),
            "KAFKA_PASSWORD is set and .*SASL_MECHANISM is not",
        ),
        (
            {**LOGIN, "kafka_password_file": "/run/secrets/password"},
            "KAFKA_PASSWORD and DEEPLENS_KAFKA_PASSWORD_FILE are both set",
        ),
        (
            {**without("kafka_password"), "kafka_password_file": "/does/not/exist"},
            "KAFKA_PASSWORD_FILE: /does/not/exist cannot be read",
        ),
        ({"kafka_certificate": "/x"}, "KAFKA_CERTIFICATE is set and DEEPLENS_KAFKA_KEY is not"),
        ({"kafka_key": "/x"}, "KAFKA_KEY is set and DEEPLENS_KAFKA_CERTIFICATE is not"),
        ({"kafka_tls": False, "kafka_ca": "/x"}, "KAFKA_TLS is false and DEEPLENS_KAFKA_CA is set"),
        ({"kafka_ca": "/does/not/exist"}, "KAFKA_CA: /does/not/exist cannot be read"),
        ({"kafka_ca": "/"}, "KAFKA_CA: / cannot be read"),
    ],
)
def test_mixes_that_cannot_be_meant_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"DEEPLENS_{message}") as caught:
        broker_security(settings(**values))
    assert PASSWORD not in caught.value.message


def test_a_user_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="DEEPLENS_BROKER holds a user") as caught:
        broker_security(Settings(broker=f"kafka://deeplens:{PASSWORD}@kafka-1:9093"))
    assert PASSWORD not in caught.value.message


def test_files_that_are_something_else_are_named(
    authority: Authority, client: Pair, tmp_path: Path
) -> None:
    other, empty, locked = authority.issue("other"), tmp_path / "empty", tmp_path / "locked.key"
    empty.touch()
    openssl("pkcs8", "-topk8", "-in", client.key, "-out", locked, "-passout", f"pass:{PASSWORD}")

    def refused(**values: Any) -> str:
        with pytest.raises(ConfigurationError) as caught:
            broker_security(settings(**values))
        return caught.value.message

    assert refused(kafka_ca=client.key).startswith("DEEPLENS_KAFKA_CA: ")
    assert refused(kafka_ca=empty).startswith("DEEPLENS_KAFKA_CA: ")
    no_password = {**without("kafka_password"), "kafka_password_file": empty}
    assert refused(**no_password) == f"DEEPLENS_KAFKA_PASSWORD_FILE: {empty} is empty."
    assert refused(kafka_certificate=empty, kafka_key=client.key).startswith(
        "DEEPLENS_KAFKA_CERTIFICATE: "
    )
    for key in (other.key, empty, locked, tmp_path / "missing"):
        said = refused(kafka_certificate=client.certificate, kafka_key=key)
        assert said.startswith("DEEPLENS_KAFKA_KEY: ")


def test_a_wrong_mechanism_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPLENS_KAFKA_SASL_MECHANISM", "GSSAPI")
    with pytest.raises(ConfigurationError, match=r"DEEPLENS_KAFKA_SASL_MECHANISM: .*'PLAIN'"):
        load_settings()


def test_up_has_a_kafka_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DEEPLENS_KAFKA_USER", "deeplens")
    with pytest.raises(ConfigurationError, match="DEEPLENS_KAFKA_USER is set and deeplens up"):
        up.main(["--data-dir", str(tmp_path / "data")], standalone_mode=False)
    assert not (tmp_path / "data").exists()


def test_secrets_are_in_no_representation() -> None:
    given = settings(qdrant_api_key=PASSWORD, **LOGIN)
    for each in (given, broker_security(given), faust_credentials(given)):
        assert PASSWORD not in f"{each!r} {each}"
    assert PASSWORD not in str(given.model_dump())
    assert PASSWORD not in given.model_dump_json()
