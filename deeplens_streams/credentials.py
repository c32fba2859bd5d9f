"""Secrets and certificates in files that settings name."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import SecretStr

from deeplens_streams.config import Settings
from deeplens_streams.errors import ConfigurationError


def secret(settings: Settings, name: str) -> str | None:
    """Return the secret of the setting `name`, or of the file that ``{name}_file`` names.

    Raises
    ------
    ConfigurationError
        Both are set, or the file cannot be used.
    """
    variable = f"DEEPLENS_{name.upper()}"
    value: SecretStr | None = getattr(settings, name)
    file: Path | None = getattr(settings, f"{name}_file")
    if file is None:
        return value.get_secret_value() if value else None
    if value is not None:
        raise ConfigurationError(f"{variable} and {variable}_FILE are both set; unset one.")
    with faults_of(file, f"{variable}_FILE", wanted="text"):
        # What wrote the file may have ended it with a newline, which is not meant.
        text = file.read_text("utf-8").rstrip("\r\n")
    if not text:
        raise ConfigurationError(f"{variable}_FILE: {file} is empty.")
    return text


def tls_context(ca: Path | None, variable: str) -> ssl.SSLContext:
    """Return a client's TLS, which trusts the certificates in `ca`, or those of the system.

    Raises
    ------
    ConfigurationError
        The file cannot be used; the message names `variable`.
    """
    with faults_of(ca, variable, wanted="certificate (PEM)"):
        return ssl.create_default_context(cafile=ca)


@contextmanager
def faults_of(file: Path | None, variable: str, *, wanted: str) -> Iterator[None]:
    """Raise `ConfigurationError` for what is wrong with the file that `variable` names."""
    try:
        yield
    except (ssl.SSLError, UnicodeError):
        raise ConfigurationError(f"{variable}: {file} holds no {wanted}.") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ConfigurationError(f"{variable}: {file} cannot be read ({reason}).") from None
