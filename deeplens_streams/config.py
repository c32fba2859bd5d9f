"""Every setting, read once from ``DEEPLENS_*`` and frozen.

The docstring under a field is its documentation; docs/configuration.md is generated from it.
"""

import re
import socket
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from deeplens_streams.errors import ConfigurationError

Port = Annotated[int, Field(ge=1, le=65535)]


class Role(StrEnum):
    """What a worker process can run; `ROLE_PURPOSES` says what that is."""

    API = "api"
    PROCESS = "process"
    EXTRACT = "extract"
    INDEX = "index"


ALL_ROLES = tuple(Role)

#: Of ``DEEPLENS_MODEL`` and ``DEEPLENS_WEIGHTS``.
AUTO: Final = "auto"
#: Of ``DEEPLENS_WEIGHTS`` alone.
UNTRAINED_WEIGHTS: Final = "untrained"

#: What each role runs, as docs/configuration.md shows it.
ROLE_PURPOSES = {
    Role.API: "HTTP, websockets, the status table, tenants, notifications and dead letters",
    Role.PROCESS: "from an upload to one extraction request for each model",
    Role.EXTRACT: "decoding, thumbnails and feature vectors",
    Role.INDEX: "vectors into the vector engine, and the removal of deleted pictures",
}


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
    compression: Literal["none", "lz4", "zstd"] = "none"
    """How what this worker sends to Kafka is compressed. ``zstd`` takes 60 % less disk and network
    for vectors, and 0.15 ms of CPU for each. Workers of before this setting end where they read a
    record of either: set it when none of them runs any more."""

    kafka_tls: bool | None = None
    """Whether Kafka is reached by TLS.
    Default: yes where ``DEEPLENS_KAFKA_CA`` or ``DEEPLENS_KAFKA_CERTIFICATE`` is set."""
    kafka_ca: Path | None = None
    """A file of the certificates (PEM) that vouch for Kafka's. Default: the system's."""
    kafka_certificate: Path | None = None
    """A file with the certificate (PEM) by which Kafka knows this client."""
    kafka_key: Path | None = None
    """A file with that certificate's private key (PEM), without a passphrase."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    """How to log in at Kafka: ``PLAIN``, ``SCRAM-SHA-256`` or ``SCRAM-SHA-512``.
    Default: there is no login."""
    kafka_user: str | None = None
    """Who logs in at Kafka."""
    kafka_password: SecretStr | None = None
    """That user's password."""
    kafka_password_file: Path | None = None
    """A file with that user's password, instead of ``DEEPLENS_KAFKA_PASSWORD``."""

    standby_replicas: int = Field(default=0, ge=0, le=6)
    """Other api workers that keep a copy of each partition of the status table, so that one of them
    takes over without reading its changelog. It takes as many more api workers."""

    data_dir: Path = Path("var")
    """Where everything that is kept on this machine lives."""
    state_dir: Path | None = None
    """Where this process keeps its tables and spool, one folder a process.
    Default: ``state`` in the data folder."""
    storage_url: str | None = None
    """Where images are kept: ``s3://bucket/prefix``, ``gs://…``, ``az://…``, ``file:///…`` or
    ``memory://``. Default: ``images`` in the data folder."""
    sync: bool = True
    """Whether what is written to a local folder, and to the Kafka of ``deeplens up``, is on the
    disk before it counts, so that a power cut takes nothing that was answered. Off is for who has
    it elsewhere, too: on a replicated file system, or behind a battery. S3, GCS, Azure and a Kafka
    of one's own see to it themselves."""
    storage_ca: Path | None = None
    """A file of certificates (PEM) that vouch for the storage's, beside the system's."""

    qdrant_url: str | None = None
    """A Qdrant server. Default: Qdrant Edge, embedded, in the data folder."""
    qdrant_api_key: SecretStr | None = None
    """The Qdrant server's key."""
    qdrant_api_key_file: Path | None = None
    """A file with the Qdrant server's key, instead of ``DEEPLENS_QDRANT_API_KEY``."""
    qdrant_ca: Path | None = None
    """A file of the certificates (PEM) that vouch for the Qdrant server's.
    Default: those that Python's httpx trusts."""
    edge_max_open: int = Field(default=8, ge=1, le=256)
    """Edge collections open at once; each takes 8 threads and some memory."""
    tenancy: Literal["collection", "shared"] = "collection"
    """Where tenants' vectors are: each tenant in a collection of its own for each model, or all in
    one for each model, told apart by an indexed field, for thousands of tenants. Vectors are not
    moved from one to the other: ``deeplens audit --repair`` makes them anew."""
    tenant_max_collections: int = Field(default=5, ge=1)
    """Collections that one tenant may make over HTTP."""

    web_host: str = "127.0.0.1"
    """The address that HTTP listens on."""
    web_port: int = Field(default=8080, ge=1, le=65535)
    """The port that HTTP listens on."""
    advertised_url: str | None = None
    """What other workers call this one, and, where no keys are asked for, clients may, too.
    Default: the loopback address or the host name, with the port."""

    admin_key: SecretStr | None = None
    """The operator's key, 32 characters or more. With it every request needs an API key, and this
    one may do everything; workers of one system share it. Without it no keys are asked for, which
    is for a loopback address alone."""
    admin_key_file: Path | None = None
    """A file with the operator's key, instead of ``DEEPLENS_ADMIN_KEY``."""
    insecure: bool = False
    """Listen on other addresses than loopback without asking for keys: everybody who reaches the
    port may do everything. An extraction service asks for none, so there it takes this."""

    tenant_max_images: int | None = Field(default=None, ge=0)
    """Pictures that a tenant may have, where its own limits do not say. Default: no limit."""
    tenant_max_bytes: int | None = Field(default=None, ge=0)
    """Bytes of pictures that a tenant may have, where its own limits do not say.
    Default: no limit."""
    tenant_uploads_per_minute: int | None = Field(default=None, ge=1)
    """Uploads of a tenant in a minute, where its own limits do not say. Default: no limit."""
    tenant_searches_per_minute: int | None = Field(default=None, ge=1)
    """Searches of a tenant in a minute, where its own limits do not say. Default: no limit."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins whose pages may call ``/api/`` from a browser, comma-separated and exact:
    ``https://shop.example,http://localhost:3000``. Default: none."""

    extractor_url: Annotated[tuple[str, ...], NoDecode] = ()
    """Extraction services to call instead of loading a model, comma-separated."""
    extractor_host: str = "127.0.0.1"
    """The address that the extraction service listens on."""
    extractor_port: int = Field(default=8001, ge=1, le=65535)
    """The port that the extraction service listens on."""

    model: str = AUTO
    """The model that makes vectors: ``resnet50``, ``efficientnet-lite0``, ``resnet50-untrained`` or
    ``auto``. With ``auto`` a worker and the extraction service take ``resnet50``; ``deeplens up``
    takes what its data folder has, and for a new one the first whose weights can be had."""
    models_dir: Path | None = None
    """A folder of networks of one's own: for each a file ``NAME.onnx`` and a row ``NAME.toml``.
    ``DEEPLENS_MODEL`` is its NAME then; the model's own ends in 8 digits of the file's checksum."""
    weights: str = AUTO
    """The model's weights: ``auto`` (where the model's are: torch's cache, else a download, or an
    installed package), a path, or ``untrained``, which is the model ``resnet50-untrained``. A file
    says which model it is; where ``DEEPLENS_MODEL`` names another, nothing starts."""
    engine: Literal["auto", "openvino", "torch"] = "auto"
    """What runs the model: ``openvino``, on the CPU, ``torch``, on CUDA or the CPU, or ``auto``:
    torch where there is a CUDA device or no OpenVINO, else OpenVINO."""
    precision: Literal["auto", "f32", "bf16"] = "auto"
    """In which numbers the model computes: ``auto`` is the lowest precision that the model bears
    and the machine has instructions for; ``f32`` and ``bf16`` are just that, in every layer."""
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
    """Pixels of one picture, at the most, and of all that one process decodes at once; checked
    before decoding, which takes up to 4 bytes for each. Where a kind of picture takes more (WebP
    16, AVIF 10, HEIC and PNG with transparency 8, progressive JPEG 8, JPEG 2000 21 and more), fewer
    are let in."""
    max_uploads: int = Field(default=256, ge=1)
    """Uploads that one process has in hand at once, from their first byte to their answer, and
    bodies of searches that it reads. Where there are more, the slowest body makes room if it is
    slow; otherwise the newest is told when to come again. As many searches by picture may wait for
    the model beside them. An extraction service has as many pictures in hand."""
    max_uploads_per_address: int | None = Field(default=None, ge=1)
    """The same for each client address. Set it only where clients connect directly: behind a
    proxy all of them have the proxy's address. Default: no limit of its own."""
    min_upload_rate: int = Field(default=4096, ge=1)
    """Bytes a second that a client has to send, on average over each ten seconds that it is waited
    for; one that is slower is dropped."""
    max_downloads: int = Field(default=256, ge=1)
    """Pictures that one process sends at once; who asks for another is told to come again."""
    max_websockets: int = Field(default=1024, ge=1)
    """Clients that follow a status by websocket at one process; further ones are told to come
    again, and may ask for the status instead."""
    idle_timeout_s: float = Field(default=75.0, gt=0)
    """How long a connection may be silent between requests, and how long the line and the headers
    of a request may take. Longer than a proxy in front keeps its own."""
    url_import: bool = False
    """Whether an upload may name a picture's address instead of sending it. Only addresses of the
    public internet are fetched; no more is needed to keep a network's own servers from clients,
    but whoever can should let the api workers reach nothing else, too."""
    url_import_ports: Annotated[tuple[Port, ...], NoDecode] = (80, 443)
    """Ports that pictures are fetched from, comma-separated."""
    url_import_timeout_s: float = Field(default=30.0, gt=0)
    """How long fetching one picture may take, redirects and all."""
    max_backlog: int = Field(default=100_000, ge=1)
    """Pictures that may wait to be processed; further uploads are told when to come again."""
    disk_reserve_bytes: int = Field(default=512 * 1024 * 1024, ge=0)
    """Free space on the disks of images and state below which uploads are refused, so that what
    was accepted can be processed."""
    thumbnail_px: int = Field(default=256, ge=16, le=2048)
    """The longer side of a thumbnail."""
    produce_timeout_s: float = Field(default=5.0, gt=0, le=5)
    """How long an upload waits for Kafka before it is refused; 5 at the most, because another one
    of the same bytes takes it for dead soon after that."""

    retention_days: int = Field(default=7, ge=1)
    """How long topics of events are kept."""
    # tests/unit/test_vector_event.py measures one.
    vector_retention_days: int = Field(default=2, ge=1)
    """How long vectors stay on their topic; 25 KB a picture."""
    failed_retention_days: int = Field(default=30, ge=1)
    """How long dead letters stay on their topic; in storage they stay."""
    tombstone_days: int = Field(default=90, ge=2, le=3650)
    """How long it is known of a deleted picture that it was; then its row, its pointer and its
    tombstone go. Longer than every topic's retention."""

    trash_days: int = Field(default=30, ge=1)
    """How long what an audit's repair took away is kept in storage, below ``.trash/``."""

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

    @field_validator("url_import_ports", mode="before")
    @classmethod
    def _split_ports(cls, value: Any) -> Any:
        return value.split(",") if isinstance(value, str) else value

    @field_validator("tombstone_days", mode="after")
    @classmethod
    def _outlives_events(cls, value: int, info: ValidationInfo) -> int:
        for name in ("retention_days", "vector_retention_days", "failed_retention_days"):
            days = info.data.get(name)
            if days is not None and value <= days:
                raise ValueError(
                    f"{value} days are not longer than the {days} of DEEPLENS_{name.upper()}, so "
                    "events would be there still of pictures that are forgotten"
                )
        return value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        origins = tuple(each.strip() for each in value.split(",") if each.strip())
        for origin in origins:
            if not re.fullmatch(r"https?://[a-z0-9.:\[\]-]+", origin):
                raise ValueError(
                    f"{origin!r} is no origin; write https://host or https://host:port"
                )
        return origins

    @field_validator(
        *("data_dir", "state_dir", "models_dir", "storage_ca", "qdrant_ca", "qdrant_api_key_file"),
        *("kafka_ca", "kafka_certificate", "kafka_key", "kafka_password_file", "admin_key_file"),
        mode="after",
    )
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise ValueError("the name is not UTF-8; choose another") from None
        try:
            return value.expanduser().absolute()
        except RuntimeError:  # there is no such user
            return value.absolute()

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
    def images_path(self) -> Path:
        """The folder of images, where they are kept in one."""
        if self.storage_url is None:
            return self.data_dir / "images"
        return Path(url2pathname(urlsplit(self.storage_url).path))

    @property
    def vectors_path(self) -> Path:
        return self.data_dir / "vectors"

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.web_host)

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


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches what listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


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
