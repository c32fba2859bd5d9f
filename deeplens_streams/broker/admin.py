"""Asking Kafka about the cluster; and why it cannot be asked, in one sentence."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from deeplens_streams.broker.security import client_options
from deeplens_streams.config import Settings
from deeplens_streams.errors import BrokerUnavailable, ConfigurationError, DeepLensError

_PROBE_MS = 5000


@asynccontextmanager
async def admin_client(
    settings: Settings, *, timeout_ms: int = 40_000
) -> AsyncIterator[AIOKafkaAdminClient]:
    """Connect to Kafka.

    Raises
    ------
    BrokerUnavailable
        No broker answers.
    ConfigurationError
        One does, and does not let us in or cannot be trusted: waiting would not help.
    """
    options = client_options(settings)
    admin = AIOKafkaAdminClient(**options, request_timeout_ms=timeout_ms)
    try:
        try:
            await admin.start()
        except (KafkaError, OSError):
            raise await _why(settings, options) from None
        yield admin
    finally:
        await admin.close()


async def _why(settings: Settings, options: dict[str, Any]) -> DeepLensError:
    """Connect once more to learn what the client has only logged."""
    said: DeepLensError | None = None
    for host, port, _ in collect_hosts(settings.bootstrap_servers):
        fault = await _fault(host, port, options)
        if isinstance(fault, ConfigurationError):
            return fault
        said = said or fault
    return said or BrokerUnavailable(
        f"No Kafka answers at {settings.broker}; start one, or set DEEPLENS_BROKER."
    )


async def _fault(host: str, port: int, options: dict[str, Any]) -> DeepLensError | None:
    """Return what a broker has against us, or None where nobody answers."""
    how = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    broker = f"Kafka at {host}:{port}"
    try:
        connection = await create_conn(host, port, request_timeout_ms=_PROBE_MS, **how)
    except SaslAuthenticationFailed as error:
        return ConfigurationError(
            f"{broker} does not let {how['sasl_plain_username']} in ({error.args[0]}); correct "
            "DEEPLENS_KAFKA_USER or DEEPLENS_KAFKA_PASSWORD."
        )
    except UnsupportedSaslMechanismError:
        return ConfigurationError(
            f"{broker} takes no login by {how['sasl_mechanism']}; correct "
            "DEEPLENS_KAFKA_SASL_MECHANISM."
        )
    except IllegalSaslStateError:
        return ConfigurationError(
            f"{broker} asks for no login; unset DEEPLENS_KAFKA_SASL_MECHANISM, or correct "
            "DEEPLENS_BROKER."
        )
    except ssl.SSLCertVerificationError as error:
        return ConfigurationError(
            f"{broker} cannot be trusted ({error.verify_message}); correct DEEPLENS_KAFKA_CA or "
            "DEEPLENS_BROKER."
        )
    except (KafkaConnectionError, ssl.SSLError, ConnectionResetError):
        pass  # someone was there
    except (KafkaError, OSError):
        return None
    else:
        connection.close()
    # As a proxy does, too, whose Kafka is away: so this may pass.
    return BrokerUnavailable(
        f"What listens at {host}:{port} hangs up on {how['security_protocol']}, as Kafka does when "
        "it wants TLS, a certificate or a login; see docs/securing-connections.md."
    )
