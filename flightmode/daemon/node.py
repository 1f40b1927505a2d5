"""A node, put together: the real store, Postgres and fence around the agent and its API."""

import asyncio
import contextlib
import ipaddress
import signal
import socket
import ssl
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import structlog

from flightmode import __version__
from flightmode.agent.clock import Clock, SystemClock
from flightmode.agent.hands import Hands
from flightmode.agent.journal import FileJournal
from flightmode.agent.loop import Agent
from flightmode.agent.observe import Identity
from flightmode.api.access import Access
from flightmode.api.face import Told, told
from flightmode.api.listening import bind
from flightmode.config import Config, etcd_endpoints, locations_of, policy_of
from flightmode.config.derive import Locations, bracketed, nodes_of, parameters_of
from flightmode.config.schema import HbaRule
from flightmode.errors import FileMissing
from flightmode.fence.client import FenceClient
from flightmode.model.decision import Decision
from flightmode.model.member import OPERATOR, Node, NodeKind
from flightmode.model.view import View
from flightmode.pki import client_context, read_secret, server_context
from flightmode.pki.files import write_public
from flightmode.postgres.programs import find_bin_dir
from flightmode.postgres.server import PostgresServer
from flightmode.postgres.settings import Peer, PostgresConfig
from flightmode.postgres.user import system_user
from flightmode.pulse.network import NetworkPulse
from flightmode.store.etcd import EtcdStore
from flightmode.store.etcd_placement import EtcdPlacement
from flightmode.store.port import Store

if TYPE_CHECKING:
    from flightmode.api.serve import ApiServer

_log = structlog.get_logger("daemon")

_MACHINE_ID = Path("/etc/machine-id")
_LAST_LOOKS_WITHIN_S = 2.0
"""Longest that an agent which was told to end looks on: etcd may not answer."""


@dataclass(frozen=True, slots=True)
class Face:
    """The running agent as its API shows it."""

    agent: Agent
    journal: FileJournal
    clock: Clock

    @property
    def view(self) -> View | None:
        return self.agent.view

    @property
    def decision(self) -> Decision | None:
        return self.agent.decision

    def now_s(self) -> float:
        return self.clock.now_s()

    def wall_s(self) -> float:
        return self.clock.wall_s()

    @property
    def dropped(self) -> int:
        return self.journal.dropped

    def told(self, count: int) -> Sequence[Told]:
        last = list(self.journal.recent)[-count:] if count > 0 else []
        return [told(each.view.wall_s, each.decision, each.errors) for each in last]


def run_agent(config: Config, node: str) -> None:
    """Run the node's agent until SIGTERM or SIGINT.  Raises FlightmodeError when it can't start."""
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_run_until_told(config, node))


async def _run_until_told(config: Config, node: str) -> None:
    loop, ends = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ends.set)
    await serve(config, node, ends)


async def serve(config: Config, node: str, ends: asyncio.Event) -> None:
    """The agent and its API, side by side; when one of them breaks, so does the other.

    Until `ends` is set; then it raises CancelledError.
    """
    own = asyncio.current_task()
    assert own is not None
    places = locations_of(config, node)
    me = next(each for each in policy_of(config).nodes if each.name == node)
    tls = server_context(places.tls_dir, client_required=False)
    clock = SystemClock()
    async with _hands(config, me, places, clock) as hands:
        listening = bind(me.host, me.api_port)
        journal = FileJournal(places.state_dir)
        identity = Identity(me, machine_id(places.state_dir), __version__)
        agent = Agent(identity, policy_of(config), hands, journal)
        access = Access(_token(places), frozenset((OPERATOR, *config.nodes)))
        face = Face(agent, journal, clock)
        _log.info("agent begins", node=node, version=__version__)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(agent.run(), name="agent")
                name = config.cluster.name
                make = partial(_api, face, hands.store, name, access, listening, tls)
                tasks.create_task(_serve_api(agent, make), name="api")
                tasks.create_task(_end(agent, ends, own.cancel), name="end")
        finally:
            journal.close()


async def _end(agent: Agent, ends: asyncio.Event, cancel: Callable[[], object]) -> None:
    await ends.wait()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LAST_LOOKS_WITHIN_S):
            await agent.end()
    cancel()


async def _serve_api(agent: Agent, make: Callable[[], "ApiServer"]) -> None:
    """The API, once the agent has looked: its libraries take as long to load as all the rest.

    An agent that is started anew has a few seconds before the fence's deadline, and a busy machine
    makes each of them short.
    """
    await agent.looked.wait()
    server = await asyncio.to_thread(make)
    await server.run()


def _api(
    face: Face,
    store: Store,
    cluster: str,
    access: Access,
    listening: socket.socket,
    tls: ssl.SSLContext,
) -> "ApiServer":
    from flightmode.api.app import make_app
    from flightmode.api.serve import ApiServer

    return ApiServer(make_app(face, store, cluster, access), listening, tls)


@contextlib.asynccontextmanager
async def _hands(config: Config, me: Node, places: Locations, clock: Clock) -> AsyncIterator[Hands]:
    """The real ones; given up at the end, without a word to Postgres."""
    endpoints = etcd_endpoints(config)
    own = f"https://{bracketed(me.host)}:{config.nodes[me.name].etcd_client_port}"
    local_first = tuple(sorted(endpoints, key=lambda url: url != own))
    timing = config.timing
    store = EtcdStore(
        local_first,
        client_context(places.tls_dir),
        clock=clock.now_s,
        deadline_s=min(1.0, timing.ttl_s / 5),
    )
    postgres = fence = None
    if me.kind is NodeKind.DATABASE:
        postgres = make_postgres(config, me.name)
        fence = FenceClient(places.fence_socket)
    try:
        pulse = _pulse(config, me, places, clock)
        nodes = dict(zip(endpoints, config.nodes, strict=True))
        placing = EtcdPlacement(store.members, nodes)
        yield Hands(clock, store, config.cluster.name, postgres, fence, placing, pulse)
    finally:
        if postgres is not None:
            await postgres.close()
        await store.close()


def _pulse(config: Config, me: Node, places: Locations, clock: Clock) -> NetworkPulse | None:
    """Heartbeats; without a key there are none, and the node says so."""
    try:
        key = read_secret(places.secrets_dir, places.heartbeat_key.name).encode()
    except FileMissing:
        return None
    return NetworkPulse(me, nodes_of(config), key, clock.now_s)


def make_postgres(config: Config, node: str) -> PostgresServer:
    """The hand of this node's PostgreSQL.

    Raises ConfigInvalid: its system user or its programs are not here.
    """
    places, me = locations_of(config, node), config.nodes[node]
    user = system_user(config.postgres.user)
    peers = tuple(
        Peer(name, each.host, each.postgres_port)
        for name, each in config.nodes.items()
        if name != node and each.kind is NodeKind.DATABASE
    )
    return PostgresServer(
        PostgresConfig(
            name=node,
            host=me.host,
            port=me.postgres_port,
            data_dir=places.data_dir,
            bin_dir=find_bin_dir(config.postgres.bin_dir, config.cluster.postgres_major),
            socket_dir=places.socket_dir,
            secrets_dir=places.secrets_dir,
            log=places.postgres_log,
            tls_dir=places.tls_dir if config.postgres.tls else None,
            peers=peers,
            parameters=parameters_of(config),
            hba=tuple(_hba_line(rule) for rule in (*config.postgres.hba, *_rules_for_apps(config))),
            user=user.pw_name,
            uid=user.pw_uid,
            gid=user.pw_gid,
            pg_major=config.cluster.postgres_major,
        )
    )


def _rules_for_apps(config: Config) -> list[HbaRule]:
    """The proxies on the application's machines come with passwords, over TLS."""
    kind: Literal["host", "hostssl"] = "hostssl" if config.postgres.tls else "host"
    return [
        HbaRule(type=kind, address=_network(app.host)) for app in config.provision.apps.values()
    ]


def _network(host: str) -> str:
    """An address as pg_hba.conf wants it; a host name stands as it is."""
    try:
        return str(ipaddress.ip_network(host))
    except ValueError:
        return host


def _hba_line(rule: HbaRule) -> str:
    parts = (rule.type, rule.database, rule.user, rule.address, rule.method)
    return " ".join(part for part in parts if part)


def machine_id(state_dir: Path, known: Path = _MACHINE_ID) -> str:
    """This machine's id, so that two agents under one name are noticed (machine-id(5)).

    Where it has none (a container, an image that was never booted) one is made and kept, for an
    agent that is started anew must not be taken for another machine's.
    """
    found = known.read_text().strip() if known.exists() else ""
    if found not in ("", "uninitialized"):
        return found
    kept = state_dir / "machine-id"
    if not kept.exists():
        state_dir.mkdir(parents=True, exist_ok=True)
        write_public(kept, uuid.uuid4().hex)
    return kept.read_text().strip()


def _token(places: Locations) -> str | None:
    """The API's token; without the file only certificates are let in."""
    try:
        return read_secret(places.secrets_dir, "api-token")
    except FileMissing:
        return None
