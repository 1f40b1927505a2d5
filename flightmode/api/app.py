"""The table of endpoints, and what each of them answers.

The OpenAPI description is made from the same table.
"""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route as HttpRoute

from flightmode.api import bodies
from flightmode.api.access import Access
from flightmode.api.endpoints import ENDPOINTS
from flightmode.api.face import AgentFace
from flightmode.api.metrics import Metrics
from flightmode.api.openapi import description, page
from flightmode.api.status import status_of
from flightmode.api.wishes import PATIENCE_S, histories, standing_of, write_down
from flightmode.decide.route import holds_primary, streams, unwell
from flightmode.errors import (
    AgentUnseen,
    FlightmodeError,
    NotAllowed,
    RequestOpen,
    RequestUnknown,
    RequestWrong,
    StoreUnknown,
)
from flightmode.model.cluster import Request, RequestKind
from flightmode.model.view import View
from flightmode.store import codec
from flightmode.store.port import Store

__all__ = ["Access", "make_app"]

Body = TypeVar("Body", bound=BaseModel)
Handler = Callable[[HttpRequest], Awaitable[Response]]

_STALL_S = 3.0
"""A loop that has not looked for longer is not believed: it looks every half second."""

_STATUS: dict[type[FlightmodeError], int] = {
    NotAllowed: 403,
    RequestWrong: 400,
    RequestOpen: 409,
    RequestUnknown: 404,
    AgentUnseen: 503,
    StoreUnknown: 503,
}


def make_app(face: AgentFace, store: Store, cluster: str, access: Access) -> Starlette:
    """The ASGI application of one node."""
    handlers = _Handlers(face, store, cluster, access)
    routes = [
        HttpRoute(each.path, getattr(handlers, each.name), methods=[each.method])
        for each in ENDPOINTS
    ]
    errors: dict[Any, Any] = {FlightmodeError: _refusal, HTTPException: _http_error}
    return Starlette(routes=routes, exception_handlers=errors)


async def _refusal(_: HttpRequest, failure: Exception) -> Response:
    assert isinstance(failure, FlightmodeError)
    kinds = (_STATUS[kind] for kind in type(failure).__mro__ if kind in _STATUS)
    return JSONResponse(bodies.error_of(failure).model_dump(), next(kinds, 500))


async def _http_error(_: HttpRequest, failure: Exception) -> Response:
    assert isinstance(failure, HTTPException)
    wrong = RequestWrong(failure.detail, hint="flightmode --help")
    body = bodies.error_of(wrong).model_dump()
    return JSONResponse(body, failure.status_code, headers=failure.headers)


@dataclass(frozen=True, slots=True)
class _Handlers:
    """One method for each endpoint of the table."""

    face: AgentFace
    store: Store
    cluster: str
    access: Access

    # ------------------------------------------------------------------ what is

    async def index(self, _: HttpRequest) -> Response:
        return HTMLResponse(page(ENDPOINTS))

    async def openapi(self, _: HttpRequest) -> Response:
        view = self.face.view
        return JSONResponse(description(ENDPOINTS, "" if view is None else view.version))

    async def status(self, _: HttpRequest) -> Response:
        view = self._any_view()
        answer = status_of(view, self.face.decision, self.face.now_s())
        return JSONResponse(answer.model_dump(mode="json"))

    async def primary(self, _: HttpRequest) -> Response:
        view = self._fresh_view()
        state = view.store.state
        return _yes_or_no(
            holds_primary(view),
            bodies.PrimaryAnswer(node=view.me.name, term=None if state is None else state.term),
        )

    async def replica(self, request: HttpRequest) -> Response:
        view = self._fresh_view()
        limit = _whole_number(request, "lag")
        lag = _lag_bytes(view)
        near = limit is None or (lag is not None and lag <= limit)
        answer = bodies.ReplicaAnswer(node=view.me.name, lag_bytes=lag)
        return _yes_or_no(streams(view, view.me.name) and near, answer)

    async def health(self, _: HttpRequest) -> Response:
        view = self._fresh_view()
        reason = unwell(view)
        answer = bodies.HealthAnswer(node=view.me.name, reason=reason)
        return _yes_or_no(reason is None, answer)

    async def metrics(self, _: HttpRequest) -> Response:
        kind = "text/plain; version=0.0.4"
        return PlainTextResponse(Metrics(self.face).text(), media_type=kind)

    async def history(self, request: HttpRequest) -> Response:
        count = _whole_number(request, "count") or 20
        entries = await histories(self.store, self.cluster, count)
        return JSONResponse([codec.to_data(each) for each in entries])

    async def why(self, request: HttpRequest) -> Response:
        count = _whole_number(request, "count") or 20
        return JSONResponse([asdict(each) for each in self.face.told(count)])

    async def outcome(self, request: HttpRequest) -> Response:
        standing = await standing_of(self.store, self.cluster, request.path_params["id"])
        return JSONResponse(bodies.outcome_of(standing).model_dump())

    # ------------------------------------------------------------------ what is asked for

    async def switchover(self, request: HttpRequest) -> Response:
        caller = self.access.caller(request)
        body = await _body(request, bodies.Switchover)
        if body.to is not None:
            self._database(body.to)
        return await self._ask(RequestKind.SWITCHOVER, body.to, caller)

    async def failover(self, request: HttpRequest) -> Response:
        caller = self.access.caller(request)
        body = await _body(request, bodies.Failover)
        self._database(body.to)
        if not body.accept_data_loss:
            text = "a failover may lose acknowledged commits: say accept_data_loss to go on"
            raise RequestWrong(text, hint="flightmode switchover")
        view = self._any_view()
        if body.to == (view.store.state.leader if view.store.state else None):
            raise RequestWrong(f"{body.to} leads already")
        return await self._ask(RequestKind.FAILOVER, body.to, caller)

    async def pause(self, request: HttpRequest) -> Response:
        caller = self.access.caller(request)
        body = await _body(request, bodies.Pause)
        until_wall_s = self.face.wall_s() + body.for_s
        return await self._ask(RequestKind.PAUSE, None, caller, until_wall_s)

    async def resume(self, request: HttpRequest) -> Response:
        return await self._ask(RequestKind.RESUME, None, self.access.caller(request))

    async def restart(self, request: HttpRequest) -> Response:
        return await self._of_node(request, RequestKind.RESTART)

    async def reload(self, request: HttpRequest) -> Response:
        return await self._of_node(request, RequestKind.RELOAD)

    async def reinit(self, request: HttpRequest) -> Response:
        return await self._of_node(request, RequestKind.REINIT)

    async def _of_node(self, request: HttpRequest, kind: RequestKind) -> Response:
        caller = self.access.caller(request)
        body = await _body(request, bodies.OneNode)
        self._database(body.node)
        return await self._ask(kind, body.node, caller)

    async def _ask(
        self, kind: RequestKind, node: str | None, caller: str, until_wall_s: float | None = None
    ) -> Response:
        wall_s = self.face.wall_s()
        wish = Request(
            uuid.uuid4().hex, kind, node, caller, wall_s + PATIENCE_S[kind], until_wall_s
        )
        await write_down(self.store, self.cluster, wish, wall_s)
        accepted = bodies.Accepted(id=wish.id, kind=kind, expires_wall_s=wish.expires_wall_s)
        return JSONResponse(accepted.model_dump(), 202, {"Location": f"/requests/{wish.id}"})

    # ------------------------------------------------------------------ the agent's eyes

    def _any_view(self) -> View:
        view = self.face.view
        if view is None:
            raise AgentUnseen("the agent has just started and has not looked yet")
        return view

    def _fresh_view(self) -> View:
        """The last look with the time of now: a permission that has ended since has ended."""
        view, now_s = self._any_view(), self.face.now_s()
        age_s = now_s - view.now_s
        if age_s > _STALL_S:
            raise AgentUnseen(f"the agent has not looked for {age_s:.1f} s")
        return replace(view, now_s=now_s)

    def _database(self, name: str) -> None:
        databases = self._any_view().policy.databases
        if name not in databases:
            text = f"{name!r} is not a database node; these are: {', '.join(databases)}"
            raise RequestWrong(text)


def _yes_or_no(yes: bool, answer: BaseModel) -> Response:
    return JSONResponse({"ok": yes, **answer.model_dump()}, 200 if yes else 503)


def _lag_bytes(view: View) -> int | None:
    """Behind the leader's last published position, in replay: what a reader would notice."""
    state = view.store.state
    leader = None if state is None else view.store.member(state.leader)
    if leader is None or not leader.position:
        return None
    return max(int(leader.position) - int(view.server.replayed), 0)


def _whole_number(request: HttpRequest, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise RequestWrong(f"{name} must be a whole number, found {text[:40]!r}")
    return int(text)


_BODY_BYTES = 65536


async def _body(request: HttpRequest, kind: type[Body]) -> Body:
    """The request's JSON; an empty one counts as {}."""
    data = b""
    async for chunk in request.stream():
        data += chunk
        if len(data) > _BODY_BYTES:
            raise RequestWrong("the request is too long")
    try:
        return kind.model_validate_json(data or b"{}")
    except ValidationError as wrong:
        first = wrong.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise RequestWrong(f"{where}: {first['msg']}") from None
