"""Every setting, read once from ``DEEPLENS_*`` and frozen.

The docstring under a field is its documentation; docs/configuration.md is generated from it.
"""

import socket
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from deeplens_streams.errors import ConfigurationError


class Role(StrEnum):
    """What a worker process can run."""

    API = "api"
    """HTTP, websockets, the status table, notifications and dead letters."""
    PROCESS = "process"
    """From an upload to one extraction request for each model."""
    EXTRACT = "extract"
    """Decoding, thumbnails and feature vectors."""
    INDEX = "index"
    """Vectors into the vector engine."""


ALL_ROLES = tuple(Role)


class Settings(BaseSettings):
    """The process's configuration."""

    model_config = SettingsConfigDict(
        env_prefix="DEEPLENS_",
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
        env_ignore_empty=True,
    )

    broker: str = "kafka://127.0.0.1:9092"
    """Kafka's bootstrap servers: ``kafka://a:9092;kafka://b:9092``."""
    roles: Annotated[tuple[Role, ...], NoDecode] = ALL_ROLES
    """What this worker runs: some of ``api,process,extract,index``, or ``all``."""
    namespace: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9-]{0,40})?$")
    """Put before every topic and consumer group, so that systems can share one Kafka."""
    replication: int = Field(default=1, ge=1, le=7)
    """Replicas of each topic; 3 in production."""

    data_dir: Path = Path("var")
    """Where everything that is kept on this machine lives."""
    state_dir: Path | None = None
    """Where this process keeps its tables and spool, one folder a process.
    Default: ``state`` in the data folder."""
    storage_url: str | None = None
    """Where images are kept: ``s3://bucket/prefix``, ``gs://…``, ``az://…``, ``file:///…`` or
    ``memory://``. Default: ``images`` in the data folder."""

    qdrant_url: str | None = None
    """A Qdrant server. Default: Qdrant Edge, embedded, in the data folder."""
    qdrant_api_key: SecretStr | None = None
    """The Qdrant server's key."""
    edge_max_open: int = Field(default=8, ge=1, le=256)
    """Edge collections open at once; each takes 8 threads and some memory."""

    web_host: str = "127.0.0.1"
    """The address that HTTP listens on."""
    web_port: int = Field(default=8080, ge=1, le=65535)
    """The port that HTTP listens on."""
    advertised_url: str | None = None
    """What other workers call this one.
    Default: the loopback address or the host name, with the port."""

    extractor_url: Annotated[tuple[str, ...], NoDecode] = ()
    """Extraction services to call instead of loading a model, comma-separated."""
    extractor_host: str = "127.0.0.1"
    """The address that the extraction service listens on."""
    extractor_port: int = Field(default=8001, ge=1, le=65535)
    """The port that the extraction service listens on."""

    weights: str = "auto"
    """The model's weights: ``auto`` (torch's cache, else a download), a path, or ``untrained``."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs."""
    batch_size: int = Field(default=8, ge=1, le=512)
    """Pictures in one forward pass, at the most."""
    batch_wait_ms: float = Field(default=4.0, ge=0, le=1000)
    """How long an idle model waits for a batch to fill."""
    threads: int | None = Field(default=None, ge=1)
    """Threads that run the model on the CPU, each with a batch of its own. Default: one a core."""
    extract_concurrency: int = Field(default=24, ge=1, le=512)
    """Pictures that one extract worker has in hand at once."""

    max_upload_bytes: int = Field(default=10_000_000, ge=1)
    """Bytes of one picture, at the most."""
    max_pixels: int = Field(default=100_000_000, ge=1)
    """Pixels of one picture, at the most; checked before decoding."""
    thumbnail_px: int = Field(default=256, ge=16, le=2048)
    """The longer side of a thumbnail."""
    produce_timeout_s: float = Field(default=5.0, gt=0)
    """How long an upload waits for Kafka before it is refused."""

    retention_days: int = Field(default=7, ge=1)
    """How long topics of events are kept."""
    vector_retention_days: int = Field(default=2, ge=1)
    """How long vectors stay on their topic; 44 KB a picture."""
    failed_retention_days: int = Field(default=30, ge=1)
    """How long dead letters are kept."""

    log_format: Literal["auto", "json", "text"] = "auto"
    """``auto`` is text on a terminal and JSON lines elsewhere."""

    @field_validator("roles", mode="before")
    @classmethod
    def _split_roles(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        names = [name.strip() for name in value.split(",") if name.strip()]
        if names == ["all"]:
            return ALL_ROLES
        known = [role.value for role in Role]
        for name in names:
            if name not in known:
                raise ValueError(f"{name!r} is no role; use some of {', '.join(known)}, or all")
        return tuple(role for role in Role if role.value in names)

    @field_validator("extractor_url", mode="before")
    @classmethod
    def _split_urls(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(url.strip().rstrip("/") for url in value.split(",") if url.strip())
        return value

    @field_validator("data_dir", "state_dir", mode="after")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        return value.expanduser().absolute() if value else value

    @model_validator(mode="after")
    def _needs_roles(self) -> Self:
        if not self.roles:
            raise ValueError("roles is empty; use some of api, process, extract, index, or all")
        return self

    @property
    def state_path(self) -> Path:
        return self.state_dir or self.data_dir / "state"

    @property
    def spool_path(self) -> Path:
        """Where uploads lie until they are checked."""
        return self.state_path / "spool"

    @property
    def images_url(self) -> str:
        return self.storage_url or (self.data_dir / "images").as_uri()

    @property
    def vectors_path(self) -> Path:
        return self.data_dir / "vectors"

    @property
    def is_loopback(self) -> bool:
        if self.web_host == "localhost":
            return True
        try:
            return ip_address(self.web_host).is_loopback
        except ValueError:
            return False

    @property
    def canonical_url(self) -> str:
        """The URL by which other workers reach this one."""
        if self.advertised_url:
            return self.advertised_url.rstrip("/")
        host = "127.0.0.1" if self.is_loopback else socket.gethostname()
        return f"http://{host}:{self.web_port}"

    @property
    def bootstrap_servers(self) -> list[str]:
        """The broker setting as ``host:port`` for clients other than Faust."""
        return [
            urlsplit(url).netloc if "://" in url else url for url in self.broker.split(";") if url
        ]

    @property
    def untrained(self) -> bool:
        return self.weights == "untrained"


def load_settings(**overrides: Any) -> Settings:
    """Read the environment, with `overrides` on top.

    Raises
    ------
    ConfigurationError
        A value cannot be used; the message names the variable.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = "DEEPLENS_" + "_".join(str(part) for part in first["loc"]).upper()
        if not first["loc"]:
            name = "DEEPLENS_ROLES"
        message = str(first["msg"]).removeprefix("Value error, ")
        raise ConfigurationError(f"{name}: {message}.") from None
