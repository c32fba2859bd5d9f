"""How Kafka is reached: by TLS or not, and as whom. Every client of Kafka asks here."""

import ssl
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from deeplens_streams.config import Settings
from deeplens_streams.credentials import faults_of, secret, tls_context
from deeplens_streams.errors import ConfigurationError

if TYPE_CHECKING:
    from faust.types.auth import CredentialsT

log = structlog.get_logger()

_MECHANISMS = "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in at Kafka, and how."""

    mechanism: str
    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class BrokerSecurity:
    """What every connection to Kafka needs.

    Attributes
    ----------
    tls : None for plain connections.
    login : None where Kafka asks for none, or knows us by our certificate.
    """

    tls: ssl.SSLContext | None
    login: Login | None

    @property
    def protocol(self) -> str:
        """Kafka's own name for it."""
        layer = "SSL" if self.tls else "PLAINTEXT"
        return f"SASL_{layer}" if self.login else layer


@lru_cache(maxsize=8)
def broker_security(settings: Settings) -> BrokerSecurity:
    """Read the files and check that the settings fit together, once a process.

    Raises
    ------
    ConfigurationError
        They do not; the message names the variable.
    """
    if "@" in settings.broker:
        raise ConfigurationError(
            "DEEPLENS_BROKER holds a user; use DEEPLENS_KAFKA_USER and DEEPLENS_KAFKA_PASSWORD."
        )
    security = BrokerSecurity(_tls(settings), _login(settings))
    if security.login and security.login.mechanism == "PLAIN" and not security.tls:
        log.warning("the password goes to Kafka in the clear; set DEEPLENS_KAFKA_TLS")
    return security


def client_options(settings: Settings) -> dict[str, Any]:
    """Return what every client of aiokafka is constructed with."""
    security = broker_security(settings)
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "security_protocol": security.protocol,
        "ssl_context": security.tls,
    }
    if security.login:
        options |= {
            "sasl_mechanism": security.login.mechanism,
            "sasl_plain_username": security.login.user,
            "sasl_plain_password": security.login.password,
        }
    return options


def faust_credentials(settings: Settings) -> "CredentialsT | None":
    """Return the same for Faust's ``broker_credentials``."""
    from faust.auth import SASLCredentials, SSLCredentials  # noqa: PLC0415 - commands do without

    security = broker_security(settings)
    if security.login:
        return SASLCredentials(
            mechanism=security.login.mechanism,
            username=security.login.user,
            password=security.login.password,
            ssl_context=security.tls,
        )
    return SSLCredentials(security.tls) if security.tls else None


def _tls(settings: Settings) -> ssl.SSLContext | None:
    files = ("kafka_ca", "kafka_certificate", "kafka_key")
    named = [_variable(name) for name in files if getattr(settings, name)]
    wanted = settings.kafka_tls
    if wanted is False and named:
        raise ConfigurationError(f"DEEPLENS_KAFKA_TLS is false and {named[0]} is set; unset one.")
    if not (wanted or named):
        return None
    context = tls_context(settings.kafka_ca, "DEEPLENS_KAFKA_CA")
    certificate, key = settings.kafka_certificate, settings.kafka_key
    if (certificate is None) != (key is None):
        missing = "kafka_key" if certificate else "kafka_certificate"
        raise ConfigurationError(
            f"{named[-1]} is set and {_variable(missing)} is not; a certificate needs its key."
        )
    if certificate and key:
        _show(context, certificate, key)
    return context


def _show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    """Have the client show its certificate."""
    tls_context(certificate, "DEEPLENS_KAFKA_CERTIFICATE")
    wanted = f"key (PEM, without a passphrase) of {certificate}"
    with faults_of(key, "DEEPLENS_KAFKA_KEY", wanted=wanted):
        # Without an answer of ours, OpenSSL asks the terminal for a passphrase.
        context.load_cert_chain(certificate, key, password=lambda: "")


def _login(settings: Settings) -> Login | None:
    mechanism, user = settings.kafka_sasl_mechanism, settings.kafka_user
    password = secret(settings, "kafka_password")
    if mechanism is None:
        for name, value in (("kafka_user", user), ("kafka_password", password)):
            if value is not None:
                raise ConfigurationError(
                    f"{_variable(name)} is set and DEEPLENS_KAFKA_SASL_MECHANISM is not; set it "
                    f"to {_MECHANISMS}."
                )
        return None
    if user is None or password is None:
        missing = "kafka_user" if user is None else "kafka_password"
        raise ConfigurationError(
            f"DEEPLENS_KAFKA_SASL_MECHANISM is set and {_variable(missing)} is not."
        )
    return Login(mechanism, user, password)


def _variable(name: str) -> str:
    return f"DEEPLENS_{name.upper()}"
