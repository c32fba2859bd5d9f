"""The Faust apps: one a role, however the roles are spread over processes.

A role keeps its consumer group, its changelogs and its folder wherever it runs, so moving from
one process to several, or back, rereads nothing.
"""

from typing import Any, cast

from aiohttp.web import Application, BaseSite, TCPSite
from faust.app.base import App
from faust.types import TP
from faust.web.base import BlueprintManager
from faust.web.drivers.aiohttp import Web
from mode import Service
from yarl import URL

import agents
from agents import AGENTS
from deeplens_streams import web
from deeplens_streams.broker.faust_transport import SESSION_TIMEOUT_S, Assignor, Transport
from deeplens_streams.broker.lag import LagReader
from deeplens_streams.broker.partitions import fixed_counts
from deeplens_streams.broker.publisher import Publisher
from deeplens_streams.broker.security import faust_credentials
from deeplens_streams.broker.topology import FAILED, TABLE_PARTITIONS, group_id
from deeplens_streams.config import Role, Settings, load_settings
from deeplens_streams.deletion.ageing import Ageing
from deeplens_streams.deletion.resume import PendingDeletions
from deeplens_streams.deletion.trash import EmptyingTrash
from deeplens_streams.interactive_queries.peers import Peers
from deeplens_streams.interactive_queries.recovered_partitions import RecoveredPartitions
from deeplens_streams.interactive_queries.rows import TableRows
from deeplens_streams.interactive_queries.table_pages import FaustTables
from deeplens_streams.logs import configure_structlog, logging_config
from deeplens_streams.runtime.health import stream_checks
from deeplens_streams.runtime.worker import DeepLensWorker
from deeplens_streams.services import Services, build_services
from deeplens_streams.status.feed import KafkaStatusFeed
from deeplens_streams.tenancy.api_keys import operator_key
from deeplens_streams.tenancy.quotas import Quotas
from deeplens_streams.tenancy.reconciling import TenantReconciler
from deeplens_streams.tenancy.recovery import TenantRecovery
from deeplens_streams.tenancy.registry import Registry
from deeplens_streams.tenancy.registry_reader import RegistryReader
from deeplens_streams.web.context import HealthContext, WebContext
from tables import image_status, tenants
from tables.durable import DurableTable

#: How long a producer rests behind a request, so that events gather for the next: a client that
#: uploads waits meanwhile; between two stages it costs the picture little and saves much CPU.
UPLOAD_REST_MS, STAGE_REST_MS = 5, 20
#: After which consumers ask Kafka again what topics and partitions there are.
METADATA_AGE_MS = 20_000


class LimitedWeb(Web):
    """Faust's web server, with our limits on what clients send before a view is asked."""

    def __init__(self, app: "RoleApp", **kwargs: Any) -> None:
        super().__init__(app, **kwargs)
        self._settings = app.settings
        self._runner = web.Runner(self.web_app, access_log=None, **web.server_options(app.settings))

    def _create_site(self) -> BaseSite:
        """Listen where the settings say, whatever Faust is told: they alone are checked."""
        return TCPSite(self._runner, self._settings.web_host, self._settings.web_port)


class RoleApp(App):
    """One role's app; the one that Faust's CLI starts knows the others of its process."""

    settings: Settings
    services: Services
    role: Role
    #: All apps of this process, this one first.
    process_apps: "list[RoleApp]"
    #: What the web server of this app needs to run beside it; None without the api role.
    feed: KafkaStatusFeed | None = None
    lag: LagReader | None = None
    deletions: PendingDeletions | None = None
    ageing: Ageing | None = None
    trash: EmptyingTrash | None = None
    tenants: tuple[Service, ...] = ()

    def _new_web(self) -> LimitedWeb:
        return LimitedWeb(self)

    @property
    def settled(self) -> bool:
        """Whether partitions were handed out and the tables are recovered."""
        return self.started and self.rebalancing_count > 0 and not self.rebalancing


def build_apps(settings: Settings) -> RoleApp:
    """Build the apps that `settings` names and return the one that starts the others.

    Nothing is opened, loaded or connected yet.
    """
    configure_structlog()
    services = build_services(settings)
    apps = [_build(role, settings, services) for role in settings.roles]
    for app in apps:
        app.process_apps = [app, *(other for other in apps if other is not app)]
    if Role.API not in settings.roles:
        _serve_health(apps[0])
    return apps[0]


def build_from_environment() -> RoleApp:
    return build_apps(load_settings())


def _build(role: Role, settings: Settings, services: Services) -> RoleApp:
    serves_web = role is Role.API
    app = RoleApp(
        group_id(role, settings.namespace),
        version=1,
        # Faust would take WEB_BIND, BROKER_URL and dozens more of the environment before these.
        env={},
        broker=[URL(url) for url in settings.broker.split(";") if url],
        broker_credentials=faust_credentials(settings),
        autodiscover=False,
        store="rocksdb://",
        datadir=str(settings.state_path / role.value),
        Worker=DeepLensWorker,
        Table=DurableTable,
        PartitionAssignor=Assignor,
        logging_config=logging_config(settings),
        # A standby replica counts as one more consumer of every topic of the app, so apps without
        # a table have none.
        table_standby_replicas=settings.standby_replicas if serves_web else 0,
        topic_replication_factor=settings.replication,
        topic_partitions=TABLE_PARTITIONS,
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=SESSION_TIMEOUT_S / 4,
        broker_commit_interval=1.0,
        producer_max_request_size=FAILED.max_bytes,
        producer_compression_type=None if settings.compression == "none" else settings.compression,
        producer_request_timeout=30.0,
        producer_linger_ms=UPLOAD_REST_MS if serves_web else STAGE_REST_MS,
        # So soon are partitions read that somebody added.
        consumer_metadata_max_age_ms=METADATA_AGE_MS,
        # A vector is 25 KB, and what is read ahead is held in memory: 256 of them and 1 MB of each
        # partition were a tenth of the whole process.
        stream_buffer_maxsize=64 if role is Role.INDEX else 256,
        consumer_max_fetch_size=(256 if role is Role.INDEX else 1024) * 1024,
        stream_wait_empty=False,
        web_enabled=role is settings.roles[0],
        web_bind=settings.web_host,
        web_port=settings.web_port,
        web_host=URL(settings.canonical_url).host or "127.0.0.1",
        canonical_url=settings.canonical_url,
        web_application_options=web.application_options(settings),
        worker_redirect_stdouts=False,
    )
    app.transport = Transport(app.conf.broker_consumer, app, fixed=fixed_counts(settings))
    app.settings, app.services, app.role = settings, services, role
    publisher = Publisher(app, settings, services.breakers)
    if not serves_web:
        agents.register(AGENTS[role], app, services, publisher, None)
        return app
    image_status.register(app)
    tenants.register(app)
    registry = Registry(publisher.send, is_open=operator_key(settings) is None)
    agents.register(AGENTS[role], app, services, publisher, registry)
    _serve(app, publisher, registry)
    return app


def _serve(app: RoleApp, publisher: Publisher, registry: Registry) -> None:
    """Put our routes on Faust's web server."""
    settings = app.settings
    feed = app.feed = KafkaStatusFeed(settings)
    lag = app.lag = LagReader(settings)
    app.deletions = PendingDeletions(app.services, publisher.send)
    app.trash = EmptyingTrash(app.services)
    quotas = Quotas(settings, registry)
    recovery = TenantRecovery(app.services.tenant_records)
    app.tenants = (
        RegistryReader(settings, registry, recovery),
        quotas,
        TenantReconciler(registry, recovery, app.services, publisher.send),
    )
    recovered = RecoveredPartitions(app)
    app.ageing = Ageing(app.services, publisher.send, lambda: _has_first(app, recovered))
    peers = Peers(app, settings)
    rows = TableRows(app, app.tables[image_status.NAME], peers, recovered)

    context = WebContext(
        tables=FaustTables(app, peers, recovered),
        services=app.services,
        publish=publisher.send,
        rows=rows,
        feed=feed,
        backlog=lag,
        registry=registry,
        quotas=quotas,
        stream_checks=lambda: stream_checks(app.process_apps),
    )
    web.register(_web_app(app), context)


def _has_first(app: RoleApp, recovered: RecoveredPartitions) -> bool:
    """Tell whether this worker has the status table's first partition: one of all of them has."""
    table = cast(DurableTable, app.tables[image_status.NAME])
    return TP(table.changelog_topic_name, 0) in recovered


def _serve_health(app: RoleApp) -> None:
    """Have a worker without the api role say how it is."""
    context = HealthContext(
        services=app.services, stream_checks=lambda: stream_checks(app.process_apps)
    )
    web.register_health(_web_app(app), context)


def _web_app(app: RoleApp) -> Application:
    server = cast(Web, app.web)
    # Faust's own views serve data without authentication, and take "/".
    server.blueprints = BlueprintManager([])
    return server.web_app
