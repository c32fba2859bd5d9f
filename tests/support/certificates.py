"""A private authority and certificates of it, made by openssl for one test run."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support.programs import program

_AUTHORITY = """
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
"""
_SIGNED = """
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {names}
"""


@dataclass(frozen=True)
class Pair:
    """Two files in PEM; the key is PKCS 8 and has no passphrase."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates for 127.0.0.1 and localhost; `certificate` is what clients trust."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
        self._request(name, self._pair.key)
        self._sign(name, _AUTHORITY, "-signkey", self._pair.key)

    @property
    def certificate(self) -> Path:
        return self._pair.certificate

    def issue(self, name: str, *, names: str = "IP:127.0.0.1, DNS:localhost") -> Pair:
        """Return a new certificate, for a server or a client, and its key."""
        made = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        self._request(name, made.key)
        signer = ("-CA", self._pair.certificate, "-CAkey", self._pair.key, "-CAcreateserial")
        self._sign(name, _SIGNED.format(names=names), *signer)
        return made

    def _request(self, name: str, key: Path) -> None:
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        request = self._folder / f"{name}.csr"
        openssl("req", "-new", *curve, "-subj", f"/CN={name}", "-keyout", key, "-out", request)

    def _sign(self, name: str, extensions: str, *signer: str | Path) -> None:
        (self._folder / "extensions").write_text(extensions)
        extended = ("-extfile", self._folder / "extensions")
        request, made = self._folder / f"{name}.csr", self._folder / f"{name}.pem"
        openssl("x509", "-req", "-days", "2", *extended, *signer, "-in", request, "-out", made)


def openssl(*arguments: str | Path) -> None:
    subprocess.run([program("openssl"), *arguments], check=True, capture_output=True)
