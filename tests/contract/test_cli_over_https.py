"""The verbs against real nodes' APIs over TLS; behind them agents that do as they are asked.

The servers run in a thread with a loop of its own, since a command has its own loop too.
"""

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import tomlkit

from flightmode.api.app import Access, make_app
from flightmode.api.face import told
from flightmode.api.listening import bind
from flightmode.api.serve import ApiServer
from flightmode.config import parse
from flightmode.config.reference import sample
from flightmode.model.cluster import Mode, Outcome, Pause, Request, RequestKind
from flightmode.model.decision import Decision
from flightmode.model.memory import Memory
from flightmode.model.server import Run
from flightmode.pki import Authority, server_context
from flightmode.store import codec, keys
from flightmode.store.memory import MemoryCluster, MemoryStore
from flightmode.store.port import Delete, Put
from tests.unit.commands import Ran
from tests.unit.commands import flightmode as run_command
from tests.unit.sights import NOW_S, STATE, WALL_S, member, seen, store, view
from tests.unit.test_api import NAMES, TOKEN, Face

NODES = ("ams", "fra", "wit")


class Nodes:
    """Three nodes' APIs on one store, and somebody who ends what is asked for."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.toml = directory / "flightmode.toml"
        self.memory = MemoryCluster()
        self.faces = {name: Face(view(name)) for name in NODES}
        self.answers: dict[RequestKind, tuple[bool, str]] = {}
        self.asked: list[Request] = []
        self._sockets = {name: bind("127.0.0.1", 0) for name in NODES}
        self._write_files()
        self._ready, self._done = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def _write_files(self) -> None:
        authority = Authority.create("main")
        nodes = {}
        spare = iter(range(1, 65535))
        for name in NODES:
            port = self._sockets[name].getsockname()[1]
            kind = "witness" if name == "wit" else "database"
            nodes[name] = {"kind": kind, "host": "127.0.0.1", "api_port": port}
            taken = [sock.getsockname()[1] for sock in self._sockets.values()]
            for key in ("postgres_port", "etcd_client_port", "etcd_peer_port", "heartbeat_port"):
                nodes[name][key] = next(p for p in spare if p not in taken)
            authority.issue_node(name, ["127.0.0.1"]).save(self.directory / name, "node")
        authority.issue_client("operator").save(self.directory / "operator", "client")
        text = sample({"cluster": {"name": "main"}, "nodes": nodes, "tls": {"directory": "{node}"}})
        parse(text)
        self.toml.write_text(text.replace('"{node}"', '"nothing"'))

    def __enter__(self) -> "Nodes":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(20)
        assert not self._thread.is_alive()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        servers = []
        for name, face in self.faces.items():
            app = make_app(face, MemoryStore(self.memory), "main", Access(TOKEN, NAMES))
            tls = server_context(self.directory / name, client_required=False)
            servers.append(ApiServer(app, self._sockets[name], tls))
        tasks = [asyncio.create_task(each.run()) for each in servers]
        leader = asyncio.create_task(self._lead())
        self._ready.set()
        await self._done.wait()
        leader.cancel()
        with suppress(asyncio.CancelledError):
            await leader
        for each in servers:
            each.stop()
        await asyncio.gather(*tasks)

    async def _lead(self) -> None:
        """End every request for which there is an answer, as the executor does."""
        own = MemoryStore(self.memory)
        prefix = keys.requests("main")
        async for _ in own.watch(prefix, 1):
            for key, entry in (await own.read(prefix)).entries.items():
                request = codec.load(Request, entry.value)
                self.asked.append(request)
                if request.kind in self.answers:
                    await self._end(own, key, request)

    async def _end(self, own: MemoryStore, key: str, request: Request) -> None:
        ok, why = self.answers[request.kind]
        if ok and request.kind in (RequestKind.SWITCHOVER, RequestKind.FAILOVER):
            self.let_lead(request.node or "fra")
        outcome = Outcome(request.id, request.kind, request.node, ok, why, WALL_S)
        event = keys.event("main", request.kind, request.node)
        await own.commit((), (Delete(key), Put(event, codec.dump(outcome))))

    def let_lead(self, name: str) -> None:
        """All nodes see that node lead a new term."""
        state = replace(STATE, term=5, leader=name, mode=Mode.SOLO, sync=(), reason="asked for")
        run = member("fra", run=Run.PRIMARY, term=5, streaming=False, following=None)
        about = store(seen(member("ams", run=Run.STOPPED, term=5)), seen(run), state=state)
        for node in NODES:
            self.faces[node].view = view(node, store=about)
        lifted = replace(view("ams").fence, term=5, lifted=True)
        self.faces["fra"].view = view("fra", store=about, server=view("ams").server, fence=lifted)

    def see(self, **changes: object) -> None:
        """All nodes see the store so."""
        for node in NODES:
            self.faces[node].view = view(node, store=store(**changes))  # type: ignore[arg-type]


@dataclass
class Shell:
    nodes: Nodes
    capsys: pytest.CaptureFixture[str]

    def __call__(self, verb: str, *words: object) -> Ran:
        return run_command(self.capsys, verb, "--config", self.nodes.toml, *words)


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    with Nodes(tmp_path) as running:
        yield running


@pytest.fixture
def shell(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(nodes, capsys)


# ------------------------------------------------------------------------- status


def test_status_shows_the_cluster_at_a_glance(shell: Shell) -> None:
    ran = shell("status")
    words = " ".join(ran.out.split())
    assert ran.status == 0
    assert "ams is primary term 4" in words
    assert "every commit is also held by fra" in words
    for name in NODES:
        assert name in words


def test_status_for_programs_is_what_the_api_says(shell: Shell) -> None:
    status = shell("status", "--json").json
    assert (status["writes"], status["state"]["term"]) == ("ams", 4)


def test_status_prefers_the_leaders_words_to_those_of_others(shell: Shell) -> None:
    assert shell("status", "--json").json["node"] == "ams"


def test_status_prefers_a_node_that_reaches_the_store(shell: Shell, nodes: Nodes) -> None:
    nodes.faces["ams"].view = view("ams", store=store(reachable=False))
    assert shell("status", "--json").json["node"] != "ams"


def test_status_prefers_who_knows_a_newer_term(shell: Shell, nodes: Nodes) -> None:
    newer = store(state=replace(STATE, term=5, leader="fra"))
    nodes.faces["wit"].view = view("wit", store=newer)
    assert shell("status", "--json").json["node"] == "wit"


def test_status_of_one_node_asks_that_one(shell: Shell) -> None:
    assert shell("status", "--json", "--node", "wit").json["node"] == "wit"
    assert shell("status", "--json", "--node", "nobody").error["code"] == "FM522"


def test_status_of_a_cluster_that_takes_no_writes_is_not_0(shell: Shell, nodes: Nodes) -> None:
    nodes.see(state=None)
    ran = shell("status")
    assert (ran.status, "no cluster yet" in ran.out) == (1, True)


def test_a_strict_status_is_content_with_a_whole_cluster_only(shell: Shell, nodes: Nodes) -> None:
    assert shell("status", "--strict").status == 0
    troubled = {
        "a problem": store(seen(member("ams")), seen(member("fra", problem="FM606: other data"))),
        "a warning": store(seen(member("ams", warnings=("disk",))), seen(member("fra"))),
        "a restart": store(seen(member("ams", pending_restart=("port",))), seen(member("fra"))),
        "silence": store(seen(member("ams")), seen(member("fra"), 30)),
        "alone": store(state=replace(STATE, mode=Mode.SOLO, sync=())),
        "a pause": store(state=replace(STATE, pause=Pause(WALL_S + 60, "ada"))),
        "no etcd": store(reachable=False),
    }
    for what, about in troubled.items():
        for name in NODES:
            nodes.faces[name].view = view(name, store=about)
        assert shell("status", "--strict").status == 1, what
    nodes.see(state=STATE)
    assert shell("status", "--strict", "--json").status == 0


def test_status_survives_nodes_that_do_not_answer(shell: Shell, nodes: Nodes) -> None:
    document = tomlkit.parse(nodes.toml.read_text())
    free = bind("127.0.0.1", 0)
    document["nodes"]["fra"]["api_port"] = free.getsockname()[1]  # type: ignore[index]
    free.close()
    nodes.toml.write_text(tomlkit.dumps(document))
    assert shell("status", "--json").json["writes"] == "ams"
    ran = shell("status", "--json", "--node", "fra")
    assert (ran.status, ran.error["code"], ran.error["retry"]) == (69, "FM520", True)


def test_status_shows_what_is_wrong(shell: Shell, nodes: Nodes) -> None:
    sick = member("fra", problem="FM608: a rewind was begun", warnings=("disk",))
    about = (seen(member("ams", pending_restart=("max_connections",))), seen(sick, 30))
    for name in NODES:
        nodes.faces[name].view = view(name, store=store(*about))
    words = " ".join(shell("status").out.split())
    assert "fra: FM608: a rewind was begun hint: flightmode why" in words
    assert "fra: disk" in words
    assert "ams: waiting for a restart: max_connections" in words
    assert "30 s ago" in words


# ------------------------------------------------------------------------- switchover


def test_a_switchover_is_asked_for_and_waited_for(shell: Shell, nodes: Nodes) -> None:
    nodes.answers[RequestKind.SWITCHOVER] = (True, "fra leads term 5")
    ran = shell("switchover", "--to", "fra")
    assert (ran.status, ran.out) == (0, "fra leads term 5\n")
    assert ": primary of term 4" in ran.err
    assert (nodes.asked[0].node, nodes.asked[0].asked_by) == ("fra", "operator")


def test_a_switchover_to_whoever_is_in_sync(shell: Shell, nodes: Nodes) -> None:
    nodes.answers[RequestKind.SWITCHOVER] = (True, "fra leads term 5")
    ran = shell("switchover", "--json")
    assert (ran.status, ran.json["ok"], ran.err) == (0, True, "")
    assert nodes.asked[0].node is None


def test_a_switchover_that_is_refused_says_why(shell: Shell, nodes: Nodes) -> None:
    nodes.answers[RequestKind.SWITCHOVER] = (False, "the cluster is paused")
    ran = shell("switchover", "--json")
    assert (ran.status, ran.error["code"]) == (1, "FM505")
    assert ran.error["message"] == "the cluster is paused"


def test_a_switchover_that_takes_too_long_stays_asked_for(shell: Shell, nodes: Nodes) -> None:
    ran = shell("switchover", "--wait", "0.3", "--json")
    assert (ran.status, ran.error["code"]) == (75, "FM506")
    again = shell("switchover", "--wait", "0.3", "--json")
    assert (again.status, again.error["code"]) == (75, "FM503")


def test_a_wish_may_only_be_left(shell: Shell, nodes: Nodes) -> None:
    ran = shell("switchover", "--wait", "0", "--json")
    assert (ran.status, ran.json["open"]) == (0, True)


def test_a_switchover_to_the_witness_is_refused_by_the_node(shell: Shell) -> None:
    ran = shell("switchover", "--to", "wit", "--json")
    assert (ran.status, ran.error["code"]) == (64, "FM502")


def test_without_a_certificate_of_the_cluster_nothing_is_done(
    shell: Shell, nodes: Nodes, tmp_path: Path
) -> None:
    foreign = tmp_path / "foreign"
    Authority.create("main").issue_client("eve").save(foreign, "client")
    ran = shell("switchover", "--tls", foreign, "--json")
    assert (ran.status, ran.error["code"]) == (69, "FM520")
    ran = shell("switchover", "--tls", tmp_path / "none", "--json")
    assert (ran.status, ran.error["code"]) == (66, "FM411")
    assert nodes.asked == []


# ------------------------------------------------------------------------- failover


SILENT = {"state_changed_s": NOW_S - 60}
ARGS = ("--accept-data-loss", "--json")


def gone(nodes: Nodes, **changes: object) -> None:
    """The leader has not been heard of for a minute."""
    about = (seen(member("ams"), 60), seen(member("fra", streaming=False, **changes)))
    for name in NODES:
        nodes.faces[name].view = view(name, store=store(*about, **SILENT))
    nodes.faces["ams"].view = None


def test_a_failover_needs_the_word(shell: Shell, nodes: Nodes) -> None:
    ran = shell("failover", "--json")
    assert (ran.status, ran.error["code"]) == (64, "FM502")
    assert "--accept-data-loss" in ran.error["message"]


def test_a_failover_is_refused_while_the_leader_lives(shell: Shell, nodes: Nodes) -> None:
    ran = shell("failover", *ARGS, "--yes")
    assert (ran.status, ran.error["code"]) == (1, "FM524")
    assert "switchover" in ran.error["message"]
    assert nodes.asked == []


def test_a_failover_explains_and_asks_for_the_clusters_name(
    shell: Shell, nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone(nodes)
    monkeypatch.setattr("sys.stdin", io.StringIO("yes\n"))
    ran = shell("failover", "--accept-data-loss")
    words = " ".join(ran.err.split())
    assert ran.status == 1
    assert "promoting fra: what it may lack" in words
    assert "0/5000000" in words
    assert "error FM523" in words
    assert nodes.asked == []
    nodes.answers[RequestKind.FAILOVER] = (True, "fra leads term 5")
    monkeypatch.setattr("sys.stdin", io.StringIO("main\n"))
    assert shell("failover", "--accept-data-loss").status == 0
    assert nodes.asked[0].node == "fra"


def test_a_failover_may_go_on_without_asking(shell: Shell, nodes: Nodes) -> None:
    gone(nodes)
    nodes.answers[RequestKind.FAILOVER] = (True, "fra leads term 5")
    ran = shell("failover", *ARGS, "--yes")
    assert (ran.status, json.loads(ran.out)["ok"]) == (0, True)


# ------------------------------------------------------------------------- the other verbs


@pytest.mark.parametrize(
    ("words", "kind", "node"),
    [
        (("pause", "--for", "15m"), RequestKind.PAUSE, None),
        (("resume",), RequestKind.RESUME, None),
        (("restart", "fra"), RequestKind.RESTART, "fra"),
        (("reload", "ams"), RequestKind.RELOAD, "ams"),
        (("reinit", "fra", "--yes"), RequestKind.REINIT, "fra"),
    ],
)
def test_a_verb_is_asked_for_and_its_end_told(
    shell: Shell, nodes: Nodes, words: tuple[str, ...], kind: RequestKind, node: str | None
) -> None:
    nodes.answers[kind] = (True, "done as asked")
    ran = shell(*words)
    assert (ran.status, ran.out) == (0, "done as asked\n")
    assert (nodes.asked[0].kind, nodes.asked[0].node) == (kind, node)
    if kind is RequestKind.PAUSE:
        assert nodes.asked[0].until_wall_s == WALL_S + 900


def test_a_reload_of_everything_goes_to_every_database_node(shell: Shell, nodes: Nodes) -> None:
    nodes.answers[RequestKind.RELOAD] = (True, "reloaded")
    assert shell("reload").status == 0
    assert [request.node for request in nodes.asked] == ["ams", "fra"]


def test_a_reinit_asks_first(shell: Shell, nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert shell("reinit", "fra", "--json").status == 1
    assert nodes.asked == []


def test_why_of_a_node_is_told_by_it(shell: Shell, nodes: Nodes) -> None:
    decision = Decision("following: claim", "ams is silent", (), Memory(), 1.0)
    nodes.faces["fra"].tales = (told(WALL_S, decision),)
    assert shell("why", "--node", "fra", "--json").json[0]["rule"] == "following: claim"
    assert "ams is silent" in shell("why", "--node", "fra").out
    assert "nothing has been decided yet" in shell("why", "--node", "ams").out
