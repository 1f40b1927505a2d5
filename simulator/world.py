"""Two database nodes and a witness, or three database nodes; their etcd, and the clients."""

import asyncio
from dataclasses import replace
from itertools import count
from random import Random

from flightmode.decide.route import route
from flightmode.model.cluster import ClusterState, Mode, Request, RequestKind
from flightmode.model.member import Member, Node, NodeKind
from flightmode.model.policy import Policy
from flightmode.proxy.news import Outlook, news_of
from flightmode.store import codec, keys
from flightmode.store.memory import MemoryCluster
from flightmode.store.port import Compare, Op, Put, Txn
from simulator.clients import Client
from simulator.fence import FenceProcess
from simulator.heartbeats import Heartbeats
from simulator.history import (
    BecamePrimary,
    Broke,
    CopyBegan,
    History,
    Killed,
    Looked,
    Parted,
    PermissionEnded,
    Promised,
    Rows,
    StateChanged,
    StateKnown,
)
from simulator.host import WALL_S, Host
from simulator.loop import VirtualLoop
from simulator.network import Network
from simulator.node import CLUSTER, SimNode
from simulator.postgres import PRIMARY, SimServer
from simulator.store import Etcd, SimStore
from simulator.weather import Weather

DATABASES = ("ams", "fra")
NODES = (*DATABASES, "wit")
APP = "app"
"""The host of the clients."""
_ROAMING = 3
# What another node said of its silence may be so old.
_SAID_S = 2.4
# A disk that is full for so long has been seen by an agent that runs, before it claims.
_SEEN_S = 2.0

SWITCHOVER = "switchover"
"""So begins the reason of a term that was given away."""

POLICY = Policy(
    nodes=tuple(
        Node(name, NodeKind.DATABASE if name in DATABASES else NodeKind.WITNESS, name)
        for name in NODES
    ),
    bootstrap=DATABASES[0],
    pg_major=15,
)
THREE = replace(POLICY, nodes=tuple(Node(name, NodeKind.DATABASE, name) for name in NODES))
"""A third database node in the place of the witness."""


class World:
    """Everything there is."""

    def __init__(
        self, seed: int, weather: Weather, history: History, policy: Policy = POLICY
    ) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop = loop
        self.loop.set_exception_handler(self._unforeseen)
        self.seed = seed
        self.history = history
        # Healing makes it fair; the plan keeps what it had.
        self.weather = replace(weather)
        self.policy = policy
        self.hosts = {name: self._host(name) for name in (*NODES, APP)}
        self.network = Network(self.hosts, self.dice("network"))
        self.etcd = Etcd(self.network, NODES, self.dice("etcd"))
        self.network.changed = self.etcd.look
        self.etcd.carried_out = self._carried_out
        self.etcd.asked = self._asked
        self.etcd.told = self._told
        self.nodes = {node.name: self._node(node) for node in policy.nodes}
        self.servers = {name: self._server(name) for name in policy.databases}
        self.heartbeats = Heartbeats(self.network, self.dice("heartbeats"), self.dice("echoes"))
        self.heartbeats.begin(self.nodes)
        self.heartbeats.granted = self._promised
        self.state: ClusterState | None = None
        self.untaken = False
        """The term was given away, and who has it now has done nothing in it yet."""
        self.unserved = False
        """No primary has taken clients in this term yet."""
        self._changed_s = self._meant_s = 0.0
        self.served: set[str] = set()
        self._key = keys.state(CLUSTER)
        self._members = {name: keys.member(CLUSTER, name) for name in NODES}
        self._unanswered: dict[str, float] = {}
        """Since when etcd has not answered what a node last said of itself."""
        self._requests = count(1)
        self._clients(count(1))

    def dice(self, what: str) -> Random:
        """One stream of chance per purpose: a change in one leaves the others as they were."""
        return Random(f"{self.seed} {what}")

    def _host(self, name: str) -> Host:
        dice = self.dice(f"host {name}")
        host = Host(name, self.loop, dice)
        host.clock.rate = 1.0 + dice.uniform(-1.0, 1.0) * self.weather.drift
        host.clock.wall_off_s = dice.uniform(-0.2, 0.2)
        return host

    def _node(self, node: Node) -> SimNode:
        dice = self.dice(f"node {node.name}")
        return SimNode(node, self.hosts[node.name], self.etcd, self.policy, self.history, dice)

    def twin(self, name: str) -> SimNode:
        """A bare machine of that name, besides the one that is there: the applications'."""
        host, dice = self.hosts[APP], self.dice(f"twin of {name}")
        node = SimNode(self.nodes[name].node, host, self.etcd, self.policy, self.history, dice)
        if node.is_database:
            self._with_server(node, APP)
        return node

    def _server(self, name: str) -> SimServer:
        return self._with_server(self.nodes[name], name)

    def _with_server(self, node: SimNode, name: str) -> SimServer:
        """`name`: of its machine."""
        server = SimServer(node.host, self.network, self.dice(f"postgres {name}"), self.weather)
        fence = FenceProcess(node.host, server, self.dice(f"fence {name}"))
        node.server, node.fence = server, fence
        server.peer = lambda member: self.servers[member]
        server.changed = fence.tick
        server.became_primary = self._became_primary
        server.heard_wal = lambda source: self._heard_wal(source, name)
        server.discarded = self.history.add
        server.parts = lambda: self._parts(name)
        server.copy_begins = lambda how: self._copy_begins(name, how)
        fence.killed = lambda: self.history.add(Killed(self.loop.time(), name, self.state))
        fence.ended = lambda why, primary: self._permission_ended(node, why, primary=primary)
        return server

    def _clients(self, rows: "count[int]") -> None:
        servers = list(self.servers.values())
        homes = [(APP, servers)] * _ROAMING + [(server.name, [server]) for server in servers]
        for number, (host, those) in enumerate(homes):
            dice = self.dice(f"client {number}")
            client = Client(host, those, self.network, self.history, dice, rows)
            client.acknowledged = self.served.add

    def start(self) -> None:
        for node in self.nodes.values():
            node.start_agent()

    def begin_with(self, kept: MemoryCluster) -> None:
        """etcd holds these keys from here on, and every agent that runs is started anew."""
        self.etcd.keys = kept
        entry = kept.snapshot(self._key).entries.get(self._key)
        self.state = None if entry is None else codec.load(ClusterState, entry.value)
        self._changed_s = self._meant_s = self.loop.time()
        for node in self.nodes.values():
            if node.agent is not None and node.host.up:
                node.kill_agent()
                node.start_agent()

    # ------------------------------------------------------------------ facts

    def tell(self, who: str, what: str) -> None:
        self.history.tell(self.loop.time(), who, what)

    def _unforeseen(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        what = f"{context.get('message')}: {error!r}"
        self.history.add(Broke(self.loop.time(), "loop", what))
        self.tell("loop", what)

    def _carried_out(
        self,
        client: SimStore,
        sent_s: float,
        compares: tuple[Compare, ...],
        ops: tuple[Op, ...],
        txn: Txn,
    ) -> None:
        for op in ops:
            if op.key != self._key or not txn.succeeded:
                continue
            old = self.state
            self.state = codec.load(ClusterState, op.value) if isinstance(op, Put) else None
            compared = any(compare.key == self._key for compare in compares)
            self._state_changed(client, sent_s, old, txn.revision, compared=compared)

    def _state_changed(
        self,
        client: SimStore,
        sent_s: float,
        old: ClusterState | None,
        revision: int,
        *,
        compared: bool,
    ) -> None:
        new, holds, busy, ran, missed_s, gave = self.state, None, None, False, None, None
        if new is not None and (old is None or old.leader != new.leader):
            server = self.servers[new.leader]
            holds = self.rows_of(server)
            busy = server.busy_with or (server.data.unfinished if server.data else "no data")
            if new.leader == client.node and self._had_no_room(server, client):
                busy = "no room on its disk"
            ran = old is not None and self._runs(old.leader) and not self._starved(old.leader)
            if old is not None:
                missed_s = self._missed_s(client, sent_s, old.leader)
                if old.leader == client.node and new.reason.startswith("switchover"):
                    gave = self.rows_of(self.servers[old.leader])
        if old is not None and new is not None and old.leader != new.leader:
            self.untaken, self.unserved = new.reason.startswith(SWITCHOVER), True
        elif new is not None and client.node == new.leader:
            self.untaken = False
        self._changed_s = self.loop.time()
        if old is None or new is None or _meaning(old) != _meaning(new):
            self._meant_s = self.loop.time()
        fact = StateChanged(
            at_s=self.loop.time(),
            node=client.node,
            revision=revision,
            old=old,
            new=new,
            sent_s=sent_s,
            life=client.life,
            compared=compared,
            true_wall_s=WALL_S + self.loop.time(),
            holds=holds,
            busy=busy,
            ran=ran,
            missed_s=missed_s,
            gave=gave,
            able=self._able(client.node),
        )
        self.history.add(fact)

    def _able(self, name: str) -> bool:
        """For long enough that its agent knew when it decided."""
        node, fence = self.nodes[name], self.nodes[name].fence
        if fence is None or fence.hung or fence.fence.lost:
            return False
        fence_s = self.loop.time() - max(node.fence_since_s, fence.began_s)
        return fence_s > _SEEN_S and node.server is not None and node.server.data is not None

    def _had_no_room(self, server: SimServer, client: SimStore) -> bool:
        """Since long before the claim was decided: its agent has had the time to see it."""
        full_since_s, node = server.full_since_s, self.nodes[client.node]
        if full_since_s is None or not node.agent_well or client.life != client.host.life:
            return False
        return self.loop.time() - full_since_s > _SEEN_S

    def _copy_begins(self, name: str, how: str) -> None:
        self.history.add(CopyBegan(self.loop.time(), name, how, self.state, self._meant_s))

    def _missed_s(self, client: SimStore, sent_s: float, lost: str) -> float | None:
        """As the machines really were; None: it was sent in an earlier life of its machine."""
        host, signs = client.host, self.heartbeats.signs
        if client.life != host.life:
            return None
        at_s = self.loop.time() - (host.clock.now_s() - sent_s) / host.clock.rate
        here_s = signs.silence_s(lost, client.node, at_s)
        others = [name for name in NODES if name not in (lost, client.node)]
        there_s = max(signs.silence_s(lost, name, at_s, within_s=_SAID_S) for name in others)
        return min(here_s, there_s, at_s - self._changed_s)

    def _promised(self, node: str, to: str, term: int, for_s: float) -> None:
        now_s = self.loop.time()
        self.history.add(Promised(now_s, node, to, term, now_s + for_s))

    def _heard_wal(self, source: str, target: str) -> None:
        self.heartbeats.signs.note(source, target, self.loop.time())

    def _runs(self, name: str) -> bool:
        server = self.servers[name]
        running = server.host.up and not server.host.frozen
        return server.state == PRIMARY and running and not server.ending

    def _starved(self, name: str) -> bool:
        fence = self.nodes[name].fence
        return fence is not None and fence.hung

    @staticmethod
    def rows_of(server: SimServer) -> Rows:
        return frozenset() if server.data is None else server.data.wal.rows()

    def _asked(self, client: SimStore, ops: tuple[Op, ...]) -> None:
        # Of a second machine of a name: it says nothing for the first.
        if any(op.key == self._members.get(client.node) for op in ops):
            self._unanswered[client.node] = self.loop.time()

    def _parts(self, name: str) -> None:
        key, now_s, since_s = self._members[name], self.loop.time(), self._unanswered.get(name)
        record = self.etcd.keys.snapshot(key).entries.get(key)
        member = None if record is None else codec.load(Member, record.value)
        said = member is not None and member.parting
        unanswered_s = None if since_s is None else now_s - since_s
        self.history.add(Parted(now_s, name, self.state, said, unanswered_s))

    def _told(self, client: SimStore, ops: tuple[Op, ...], done: bool) -> None:
        for op in ops:
            if done and op.key == self._members.get(client.node):
                self._unanswered.pop(client.node, None)
            if isinstance(op, Put) and op.key == self._key:
                state = codec.load(ClusterState, op.value) if done else None
                self.history.add(StateKnown(self.loop.time(), client.node, state))

    def _became_primary(self, server: SimServer, promoted: bool) -> None:
        assert server.data is not None
        timeline, holds = server.data.wal.timeline, server.data.wal.rows()
        fact = BecamePrimary(self.loop.time(), server.name, timeline, promoted, holds, self.state)
        self.history.add(fact)
        if self.state is not None and self.state.leader == server.name:
            self.unserved = False
        self.tell(server.name, f"POSTGRES takes writes now, on timeline {timeline}")

    def _permission_ended(self, node: SimNode, why: str, *, primary: bool) -> None:
        fact = PermissionEnded(
            self.loop.time(),
            node.name,
            why,
            primary,
            self.state,
            node.agent_well,
            node.fence_well,
            node.host.clock.wall_s(),
        )
        self.history.add(fact)
        self.tell(node.name, f"FENCE: permission ended ({why}), primary={primary}")

    # ------------------------------------------------------------------ people

    def ask(self, kind: RequestKind, node: str | None, *, for_s: float = 10.0) -> None:
        """What an operator's command writes, if no such request is open."""
        wall_s = WALL_S + self.loop.time()
        until_s = wall_s + for_s if kind is RequestKind.PAUSE else None
        request = Request(
            f"r{next(self._requests)}", kind, node, "operator", wall_s + 30.0, until_s
        )
        key = keys.request(CLUSTER, kind, node)
        txn = self.etcd.keys.commit((Compare(key, 0),), (Put(key, codec.dump(request)),))
        done = "asked for" if txn.succeeded else "refused: one is open"
        self.tell("operator", f"{kind} {node or ''}: {done}")

    def pause_until_wall_s(self) -> float | None:
        """Of the pause that stands, or that is asked for and will be recorded."""
        if self.state is not None and self.state.pause is not None:
            return self.state.pause.until_wall_s
        key = keys.request(CLUSTER, RequestKind.PAUSE, None)
        asked = self.etcd.keys.snapshot(key).entries.get(key)
        return None if asked is None else codec.load(Request, asked.value).until_wall_s

    # ------------------------------------------------------------------ looking

    def look(self, without: str = "") -> Looked:
        """As somebody sees it who sees everything; `without`: whose routes do not count."""
        primaries = tuple(
            name
            for name, server in self.servers.items()
            if self._runs(name) and server.data is not None and server.data.admits
        )
        state = self.state
        synced = (
            state is not None
            and state.mode is Mode.SYNC
            and primaries == (state.leader,)
            and all(name in self.servers[state.leader].senders for name in state.sync)
        )
        served = bool(self.served.intersection(primaries))
        self.served.clear()
        why = "; ".join(f"{name}: {_why(node)}" for name, node in self.nodes.items())
        routes = tuple(
            (name, _writes(node)) for name, node in self.nodes.items() if name != without
        )
        return Looked(self.loop.time(), primaries, served, synced, why, routes)


def _meaning(state: ClusterState) -> tuple[object, ...]:
    return state.term, state.mode, state.sync


def _writes(node: SimNode) -> str | None:
    """As the node's API says (decide/route.py), and a proxy that saw the same (proxy/news.py)."""
    view = None if node.agent is None else node.agent.view
    if view is None:
        return None
    outlook = Outlook(view.now_s, view.policy, view.store)
    news, writes = news_of(outlook, view.store.state_revision, {}), route(view).writes
    return writes if news is not None and news.serving == writes else None


def _why(node: SimNode) -> str:
    last = node.journal.last
    return "nothing yet" if last is None else f"{last.rule} ({last.why})"
