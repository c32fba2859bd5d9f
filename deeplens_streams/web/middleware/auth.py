"""Who may do what: one look at every request, before its handler.

Where keys are off, everybody may do everything. Where they are on, a key carries its tenant, and
what a handler does is bounded by `tenant_of` or `tenant_bound`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from aiohttp import web
from aiohttp.web_urldispatcher import SystemRoute

from deeplens_streams.client.models import Reply
from deeplens_streams.errors import (
    BadRequest,
    DeepLensError,
    InvalidKey,
    KeyRequired,
    MissingScope,
    RegistryUnavailable,
    TenantDeleting,
    TenantNotFound,
    TenantSuspended,
    WrongTenant,
)
from deeplens_streams.identifiers import check_tenant_id
from deeplens_streams.interactive_queries.peers import INTERNAL_HEADER
from deeplens_streams.tenancy import api_keys
from deeplens_streams.tenancy.api_keys import OperatorKey
from deeplens_streams.tenancy.registry import Registry
from deeplens_streams.web.middleware.key_guesses import KeyGuessLimit
from deeplens_streams.web.middleware.origins import ORIGINS
from deeplens_streams.web.responses import BLANK, Handler
from models.events import utc_now
from models.tenants import SYSTEM, ApiKey, Scope, Tenant, TenantState

#: The scope of what workers ask each other.
INTERNAL: Final = "internal"
#: What a browser, which cannot set headers there, puts before a websocket's key.
SOCKET_PROTOCOL, _SOCKET_KEY = "deeplens", "deeplens.key."


Refuse = Callable[[web.Request, DeepLensError], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint.

    Attributes
    ----------
    answer : its own object; its errors answer the same one, null or empty.
    scope : what a key needs for it; None is open to everybody.
    refuse : how it refuses, where that is not an answer in JSON.
    any_host : whether probes ask for it, which call a process by any name.
    """

    method: str
    path: str
    handler: Handler
    answer: type[Reply]
    scope: str | None
    refuse: Refuse | None = None
    any_host: bool = False


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Attributes
    ----------
    tenant : whose key it is; None for the operator, and where keys are off.
    key_id : what the key is called in logs.
    """

    tenant: str | None
    scopes: frozenset[str]
    key_id: str

    @property
    def is_operator(self) -> bool:
        return Scope.ADMIN in self.scopes


_EVERYTHING = frozenset(scope.value for scope in Scope)
_OPERATOR = Caller(None, _EVERYTHING, "operator")
_ANYBODY = Caller(None, _EVERYTHING, "none")
_STRANGER = Caller(None, frozenset(), "none")

CALLER: Final[web.RequestKey[Caller]] = web.RequestKey("deeplens_caller", Caller)
#: By address, as the router has it, and method.
DECLARED: web.AppKey[dict[tuple[str, str], Route]] = web.AppKey("deeplens_routes", dict)
AUTHENTICATOR: web.AppKey["Authenticator"] = web.AppKey("deeplens_authenticator")


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request through to its handler if its key may do that."""
    route = route_of(request)
    if route is None:
        if not isinstance(request.match_info.route, SystemRoute):
            raise KeyRequired  # nobody said who may ask for it
        return await handler(request)
    request[BLANK] = route.answer.blank()
    request.app[ORIGINS].check(request, any_host=route.any_host)
    _check_query(request)
    try:
        request[CALLER] = request.app[AUTHENTICATOR].caller(request, route.scope)
    except DeepLensError as error:
        if route.refuse is None:
            raise
        return await route.refuse(request, error)
    return await handler(request)


def _check_query(request: web.Request) -> None:
    """Refuse a parameter that is there twice: two readers might take two values of it."""
    query = request.query
    for name in query:
        if len(query.getall(name)) > 1:
            raise BadRequest(f"The parameter {name[:60]!r} is there more than once; send it once.")


def route_of(request: web.Request) -> Route | None:
    """Return what was declared of the request's address and method."""
    resource = request.match_info.route.resource
    method = "GET" if request.method == "HEAD" else request.method
    return request.app[DECLARED].get((resource.canonical, method)) if resource else None


def tenant_of(request: web.Request, given: str | None) -> str:
    """Return the tenant that a request is for: its key's, else the one that it names.

    Raises
    ------
    WrongTenant
        It names another than its key's, here or in its query.
    BadRequest
        Its query names another than the request does here.
    TenantNotFound
        Keys are on, and the registry has no such tenant.
    TenantSuspended, TenantDeleting
        Nothing is done for it.
    """
    bound = tenant_bound(request, given)
    tenant = check_tenant_id(given) if bound is None else bound
    queried = request.query.get("tenantId")
    if queried is not None and tenant_bound(request, queried) != tenant:
        raise BadRequest("The query names another tenant than the body; name one.")
    return request.app[AUTHENTICATOR].served(tenant)


def tenant_bound(request: web.Request, given: str | None) -> str | None:
    """Return the only tenant whose data the request may see, or None if it may see everybody's."""
    caller = request[CALLER]
    if given is not None:
        check_tenant_id(given)
    if caller.tenant is None:
        return given
    if given is not None and given != caller.tenant:
        raise WrongTenant
    return caller.tenant


class Authenticator:
    """Looks at keys.

    Parameters
    ----------
    operator : None where keys are off.
    registry : None in a process that has none and knows the operator alone.
    """

    def __init__(self, operator: OperatorKey | None, registry: Registry | None) -> None:
        self._operator = operator
        self._registry = registry
        self._guesses = KeyGuessLimit()

    @property
    def keys_on(self) -> bool:
        return self._operator is not None

    def caller(self, request: web.Request, scope: str | None) -> Caller:
        """Return who asks, if they may.

        Raises
        ------
        KeyRequired, InvalidKey, TooManyFailures, MissingScope, TenantSuspended
        """
        if scope is None:
            return _STRANGER
        if self._operator is None:
            return _ANYBODY
        if scope == INTERNAL:
            return self._worker(request, self._operator)
        key = _given_key(request)
        if key is None:
            raise KeyRequired
        caller = self._known(request.remote or "", key, self._operator)
        if scope not in caller.scopes:
            raise MissingScope(f"This key has not the scope {scope}; use one that has.")
        return caller

    def served(self, tenant: str) -> str:
        """Return `tenant` if something may be done for it."""
        row = self._registry.find(tenant) if self._registry is not None else None
        if row is None:
            if self._registry is not None and not self._registry.is_whole:
                raise RegistryUnavailable
            if self.keys_on:
                raise TenantNotFound
        else:
            _check_state(row)
        return tenant

    def check_owner(self, tenant: str) -> None:
        """Raise, as `served`, if what was found is of a tenant for which nothing is done.

        Where keys are on, the tenant's own was refused, and operators may look at all there is.
        """
        if not self.keys_on:
            self.served(tenant)

    def _worker(self, request: web.Request, operator: OperatorKey) -> Caller:
        given = request.headers.get(INTERNAL_HEADER, "")
        if not api_keys.is_same(given, api_keys.digest(operator.internal)):
            raise KeyRequired("Workers ask this of each other; nobody else does.")
        return _OPERATOR

    def _known(self, address: str, key: str, operator: OperatorKey) -> Caller:
        try:
            return _OPERATOR if api_keys.is_same(key, operator.sha256) else self._tenants(key)
        except InvalidKey:
            self._guesses.note(address)
            raise

    def _tenants(self, key: str) -> Caller:
        if self._registry is None:
            raise InvalidKey
        if not self._registry.is_whole:  # what was read so far may be old: a key that has ended
            raise RegistryUnavailable
        key_id = api_keys.key_id(key)
        found = self._registry.holder(key_id) if key_id else None
        # Compared in any case, so that an ID that exists takes no longer than one that does not.
        right = api_keys.is_same(key, found[1].sha256 if found else "")
        if found is None or not right:
            raise InvalidKey
        tenant, kept = found
        _check_valid(kept)
        _check_state(tenant)
        self._registry.use(tenant.tenantId, kept.keyId)
        return _caller(tenant, kept)


def _check_state(tenant: Tenant) -> None:
    """Raise if nothing may be done for a tenant; a state of a newer version may say so, too."""
    if tenant.state == TenantState.DELETING:
        raise TenantDeleting
    if tenant.state != TenantState.ACTIVE:
        raise TenantSuspended


def _caller(tenant: Tenant, key: ApiKey) -> Caller:
    is_systems = tenant.tenantId == SYSTEM
    return Caller(None if is_systems else tenant.tenantId, frozenset(key.scopes), key.keyId)


def _check_valid(key: ApiKey) -> None:
    if key.revokedAt is not None:
        raise InvalidKey("This key was revoked; use another one.")
    if key.expiresAt is not None and _moment(key.expiresAt) <= _moment(utc_now()):
        raise InvalidKey("This key has expired; use another one.")


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _given_key(request: web.Request) -> str | None:
    key = request.headers.get("X-API-Key")
    if key:
        return key.strip()
    kind, _, value = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() == "bearer" and value.strip():
        return value.strip()
    for offered in request.headers.get("Sec-WebSocket-Protocol", "").split(","):
        if offered.strip().startswith(_SOCKET_KEY):
            return offered.strip().removeprefix(_SOCKET_KEY)
    return None
