"""The API of one node: what it answers, whom it obeys, what it writes down."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import quote

import pytest
from starlette.types import ASGIApp

from flightmode.api.app import Access, make_app
from flightmode.api.endpoints import ENDPOINTS
from flightmode.api.face import Told, told
from flightmode.api.metrics import GAUGES
from flightmode.api.wishes import PATIENCE_S
from flightmode.model.action import Admit, Promote
from flightmode.model.cluster import HistoryEntry, Outcome, Pause, Request, RequestKind
from flightmode.model.decision import Decision
from flightmode.model.lsn import Lsn
from flightmode.model.memory import Memory
from flightmode.model.server import Run, Server
from flightmode.model.view import View
from flightmode.store import codec, keys
from flightmode.store.memory import MemoryCluster, MemoryStore
from flightmode.store.port import Put
from tests.unit.asgi import Reply, call
from tests.unit.sights import NOW_S, STATE, WALL_S, member, seen, store, view

TOKEN = "a-token-of-the-cluster"
NAMES = frozenset(("operator", "ams", "fra", "wit"))
"""On certificates that may change something."""
DECISION = Decision("leading: serve", "primary of term 4", (), Memory(), 0.5)


@dataclass
class Face:
    """An agent that stands still: a value with the shape that the API reads."""

    view: View | None = field(default_factory=view)
    decision: Decision | None = DECISION
    now: float = NOW_S + 0.2
    tales: tuple[Told, ...] = ()
    dropped: int = 0

    def now_s(self) -> float:
        return self.now

    def wall_s(self) -> float:
        return WALL_S

    def told(self, count: int) -> Sequence[Told]:
        return self.tales[-count:]


class Api:
    """The application on a store in memory."""

    def __init__(self, face: Face | None = None) -> None:
        self.face = face or Face()
        self.store = MemoryStore(MemoryCluster())
        self.app: ASGIApp = make_app(self.face, self.store, "main", Access(TOKEN, NAMES))

    async def get(self, path: str, query: str = "") -> Reply:
        return await call(self.app, "GET", path, query=query)

    async def post(self, path: str, body: object = None) -> Reply:
        return await call(self.app, "POST", path, body, certificate="operator")

    async def requests(self) -> list[tuple[str, Request]]:
        snapshot = await self.store.read(keys.requests("main"))
        return [(key, codec.load(Request, e.value)) for key, e in snapshot.entries.items()]


# ------------------------------------------------------------------------- health checks


@pytest.mark.parametrize(
    ("me", "path", "status"),
    [
        ("ams", "/primary", 200),
        ("fra", "/primary", 503),
        ("wit", "/primary", 503),
        ("ams", "/replica", 503),
        ("fra", "/replica", 200),
        ("wit", "/replica", 503),
        ("ams", "/health", 200),
        ("fra", "/health", 200),
        ("wit", "/health", 200),
    ],
)
async def test_a_healthy_cluster_answers_load_balancers(me: str, path: str, status: int) -> None:
    reply = await Api(Face(view(me))).get(path)
    assert reply.status == status
    assert reply.json["ok"] is (status == 200)
    assert reply.json["node"] == me


async def test_the_primary_says_its_term() -> None:
    assert (await Api().get("/primary")).json["term"] == 4


async def test_a_permission_that_has_ended_since_the_last_look_has_ended() -> None:
    short = view(fence=replace(view().fence, deadline_s=NOW_S + 0.1))
    assert (await Api(Face(short)).get("/primary")).status == 503


@pytest.mark.parametrize("path", ["/primary", "/replica", "/health"])
async def test_an_agent_that_stands_still_is_not_believed(path: str) -> None:
    reply = await Api(Face(now=NOW_S + 3.5)).get(path)
    assert reply.status == 503
    assert reply.json["error"]["code"] == "FM510"


@pytest.mark.parametrize("path", ["/primary", "/replica", "/health", "/status"])
async def test_an_agent_that_has_not_looked_yet_says_so(path: str) -> None:
    reply = await Api(Face(view=None)).get(path)
    assert (reply.status, reply.json["error"]["code"]) == (503, "FM510")


@pytest.mark.parametrize(("limit", "status"), [("999", 503), ("1000", 200)])
async def test_a_replica_is_only_near_enough_within_the_limit(limit: str, status: int) -> None:
    reply = await Api(Face(view("fra"))).get("/replica", f"lag={limit}")
    assert (reply.status, reply.json["lag_bytes"]) == (status, 1000)


@pytest.mark.parametrize("limit", ["x", "-1", "1.5", "", "9" * 30, "٣"])
async def test_a_limit_that_is_no_number_is_refused(limit: str) -> None:
    reply = await Api(Face(view("fra"))).get("/replica", f"lag={quote(limit)}")
    assert (reply.status, reply.json["error"]["code"]) == (400, "FM502")


async def test_a_sick_node_says_why() -> None:
    down = await Api(Face(view(server=Server(Run.STOPPED)))).get("/health")
    assert (down.status, down.json["reason"]) == (503, "ams leads, and its Postgres is stopped")


async def test_a_load_balancer_may_ask_with_head() -> None:
    assert (await call(Api().app, "HEAD", "/primary")).status == 200


# ------------------------------------------------------------------------- status


async def test_status_shows_the_whole_cluster() -> None:
    status = (await Api(Face(view("wit"))).get("/status")).json
    assert status["node"] == "wit"
    assert status["state"]["leader"] == status["writes"] == "ams"
    assert status["reads"] == ["fra"]
    roles = {each["name"]: each["role"] for each in status["nodes"]}
    assert roles == {"ams": "leader", "fra": "standby", "wit": "witness"}
    assert [each["name"] for each in status["nodes"] if each["sync"]] == ["fra"]
    assert status["why"] == "primary of term 4"
    assert status["age_s"] == 0.2


async def test_status_knows_what_was_never_said() -> None:
    status = (await Api(Face(view(store=store(seen(member("ams")))))).get("/status")).json
    fra = status["nodes"][1]
    assert (fra["role"], fra["run"], fra["heard"]) == ("unknown", None, False)


async def test_status_counts_the_silence_of_a_node() -> None:
    quiet = store(seen(member("ams")), seen(member("fra"), 9.8))
    fra = (await Api(Face(view(store=quiet))).get("/status")).json["nodes"][1]
    assert (fra["silent_s"], fra["heard"]) == (10.0, False)


async def test_status_does_not_invent_how_long_a_node_was_silent_before_it_looked() -> None:
    old = store(replace(seen(member("fra")), changed_s=-1e9))
    fra = (await Api(Face(view(store=old))).get("/status")).json["nodes"][1]
    assert (fra["silent_s"], fra["heard"]) == (None, False)


async def test_status_shows_how_far_a_standby_is_behind() -> None:
    behind = member("fra", position=Lsn(int(member("ams").position) - 4096))
    about = store(seen(member("ams")), seen(behind))
    nodes = (await Api(Face(view(store=about))).get("/status")).json["nodes"]
    assert [each["lag_bytes"] for each in nodes] == [None, 4096, None]


async def test_status_shows_a_cluster_that_is_not_there_yet() -> None:
    status = (await Api(Face(view(store=store(state=None)))).get("/status")).json
    assert (status["state"], status["writes"]) == (None, None)


async def test_status_is_answered_although_the_loop_stands_still() -> None:
    assert (await Api(Face(now=NOW_S + 60)).get("/status")).json["age_s"] == 60.0


# ------------------------------------------------------------------------- why and history


async def test_why_tells_the_last_decisions_in_words() -> None:
    decision = Decision("r", "because", (Promote(5), Admit(5)), Memory(), 1, "FM603: slow")
    face = Face(tales=(told(WALL_S, DECISION), told(WALL_S, decision, ("FM200: no",))))
    (last,) = (await Api(face).get("/why", "count=1")).json
    assert last["why"] == "because"
    assert last["did"] == [
        "promote Postgres to the primary of term 5: FAILED: FM200: no",
        "let clients in",
    ]


async def test_history_is_in_the_order_of_terms() -> None:
    api = Api()
    for term in (9, 10, 11):
        entry = HistoryEntry(term, "ams", "fra", "a reason", WALL_S, Lsn(77))
        put = Put(keys.history("main", term), codec.dump(entry))
        await api.store.commit((), (put,))
    reply = await api.get("/history", "count=2")
    assert [each["term"] for each in reply.json] == [10, 11]


@pytest.mark.parametrize("path", ["/history", "/requests/abc"])
async def test_a_silent_store_is_an_error_that_may_pass(path: str) -> None:
    api = Api()
    await api.store.close()
    reply = await api.get(path)
    assert (reply.status, reply.json["error"]["retry"]) == (503, True)


async def test_the_metrics_count_what_the_journal_has_lost() -> None:
    reply = await call(Api(Face(dropped=3)).app, "GET", "/metrics")
    assert "flightmode_journal_dropped 3.0" in reply.body.decode()


# ------------------------------------------------------------------------- access


POSTS = [each.path for each in ENDPOINTS if each.method == "POST"]
BODIES: dict[str, object] = {
    "/failover": {"to": "fra", "accept_data_loss": True},
    "/pause": {"for_s": 60},
    "/restart": {"node": "fra"},
    "/reload": {"node": "fra"},
    "/reinit": {"node": "fra"},
}


@pytest.mark.parametrize("path", POSTS)
async def test_who_shows_nothing_changes_nothing(path: str) -> None:
    api = Api()
    reply = await call(api.app, "POST", path, BODIES.get(path))
    assert (reply.status, reply.json["error"]["code"]) == (403, "FM501")
    assert await api.requests() == []


@pytest.mark.parametrize("path", POSTS)
async def test_an_application_s_certificate_changes_nothing(path: str) -> None:
    api = Api()
    reply = await call(api.app, "POST", path, BODIES.get(path), certificate="web")
    assert (reply.status, reply.json["error"]["code"]) == (403, "FM501")
    assert "the certificate shown is that of web" in reply.json["error"]["message"]
    assert await api.requests() == []


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x"]
)
async def test_a_wrong_token_changes_nothing(header: str) -> None:
    api = Api()
    reply = await call(api.app, "POST", "/resume", headers={"Authorization": header})
    assert reply.status == 403


async def test_the_token_is_enough_and_is_not_repeated() -> None:
    api = Api()
    headers = {"Authorization": f"Bearer {TOKEN}"}
    reply = await call(api.app, "POST", "/resume", headers=headers)
    assert reply.status == 202
    ((_, request),) = await api.requests()
    assert request.asked_by == "token from 10.0.0.9"


async def test_without_a_token_in_the_secrets_none_is_right() -> None:
    app = make_app(Face(), MemoryStore(MemoryCluster()), "main", Access(None, NAMES))
    reply = await call(app, "POST", "/resume", headers={"Authorization": "Bearer None"})
    assert reply.status == 403


async def test_no_header_can_pretend_to_a_certificate() -> None:
    headers = {"X-Client-Cert-Name": "operator", "client_cert_name": "operator"}
    assert (await call(Api().app, "POST", "/resume", headers=headers)).status == 403


# ------------------------------------------------------------------------- verbs


@pytest.mark.parametrize("path", POSTS)
async def test_a_verb_is_written_down_for_the_node_it_concerns(path: str) -> None:
    api = Api()
    reply = await api.post(path, BODIES.get(path))
    assert reply.status == 202
    ((key, request),) = await api.requests()
    assert request.kind == path[1:]
    assert key == keys.request("main", request.kind, request.node)
    assert request.id == reply.json["id"]
    assert request.expires_wall_s == WALL_S + PATIENCE_S[request.kind]
    assert request.asked_by == "operator"
    assert reply.headers["location"] == f"/requests/{request.id}"


async def test_a_pause_says_until_when() -> None:
    api = Api()
    await api.post("/pause", {"for_s": 600})
    ((_, request),) = await api.requests()
    assert request.until_wall_s == WALL_S + 600


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/switchover", {"to": "wit"}, "'wit' is not a database node; these are: ams, fra"),
        ("/switchover", {"to": 3}, "to: "),
        ("/switchover", {"too": "fra"}, "too: "),
        ("/switchover", b"{", "the body: "),
        ("/switchover", [], "the body: "),
        ("/failover", {"to": "fra"}, "may lose acknowledged commits"),
        ("/failover", {"to": "ams", "accept_data_loss": True}, "ams leads already"),
        ("/failover", {"accept_data_loss": True}, "to: "),
        ("/pause", {"for_s": 0}, "for_s: "),
        ("/pause", {"for_s": 86401}, "for_s: "),
        ("/pause", {}, "for_s: "),
        ("/restart", {"node": "nobody"}, "'nobody' is not a database node"),
        ("/reinit", {}, "node: "),
        ("/reload", b"x" * 70000, "too long"),
    ],
)
async def test_a_wrong_wish_is_refused_in_words(path: str, body: object, sentence: str) -> None:
    api = Api()
    reply = await api.post(path, body)
    assert (reply.status, reply.json["error"]["code"]) == (400, "FM502")
    assert sentence in reply.json["error"]["message"]
    assert await api.requests() == []


async def test_one_wish_of_a_kind_is_open_at_a_time() -> None:
    api = Api()
    await api.post("/switchover", {"to": "fra"})
    reply = await api.post("/switchover", {"to": "ams"})
    assert (reply.status, reply.json["error"]["code"]) == (409, "FM503")
    assert "a switchover of fra asked for by operator" in reply.json["error"]["message"]
    assert len(await api.requests()) == 1


async def test_two_nodes_may_be_restarted_one_cannot_twice() -> None:
    api = Api()
    statuses = [(await api.post("/restart", {"node": n})).status for n in ("ams", "fra", "fra")]
    assert statuses == [202, 202, 409]


async def test_an_expired_wish_makes_way() -> None:
    api = Api()
    old = Request("old", RequestKind.RESUME, None, "somebody", WALL_S - 1)
    await api.store.commit((), (Put(keys.request("main", "resume"), codec.dump(old)),))
    reply = await api.post("/resume")
    assert reply.status == 202
    assert [request.id for _, request in await api.requests()] == [reply.json["id"]]


async def test_how_a_wish_stands_can_be_asked() -> None:
    api = Api()
    wish = (await api.post("/restart", {"node": "fra"})).json["id"]
    assert (await api.get(f"/requests/{wish}")).json["open"] is True
    outcome = Outcome(wish, RequestKind.RESTART, "fra", True, "restarted", WALL_S + 2)
    put = Put(keys.event("main", "restart", "fra"), codec.dump(outcome))
    await api.store.commit((), (put,))
    ended = (await api.get(f"/requests/{wish}")).json
    assert (ended["open"], ended["ok"], ended["why"]) == (False, True, "restarted")


async def test_a_wish_that_nobody_knows_is_not_found() -> None:
    reply = await Api().get("/requests/nothing")
    assert (reply.status, reply.json["error"]["code"]) == (404, "FM504")


# ------------------------------------------------------------------------- the rest


async def test_an_unknown_path_is_an_error_like_the_others() -> None:
    reply = await Api().get("/nothing")
    assert (reply.status, reply.json["error"]["code"]) == (404, "FM502")


async def test_a_wrong_method_names_the_right_ones() -> None:
    reply = await Api().get("/switchover")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")


async def test_metrics_hold_every_name_of_the_catalogue() -> None:
    text = (await Api().get("/metrics")).body.decode()
    for gauge in GAUGES:
        assert f"# TYPE {gauge.name} gauge" in text
    assert "flightmode_primary 1.0" in text
    assert 'flightmode_postgres_run{state="primary"} 1.0' in text
    assert 'flightmode_replica_lag_bytes{replica="fra"} 100.0' in text
    assert "flightmode_loop_age_seconds 0.2" in text


async def test_a_problem_is_a_metric_with_its_code() -> None:
    face = Face(decision=replace(DECISION, problem="FM601: it does not answer"))
    assert b'flightmode_problem{code="FM601"} 1.0' in (await Api(face).get("/metrics")).body


async def test_metrics_before_the_first_look_are_empty() -> None:
    assert (await Api(Face(view=None)).get("/metrics")).body == b""


async def test_the_description_names_every_endpoint_and_every_model_it_uses() -> None:
    document = (await Api().get("/openapi.json")).json
    described = {(m.upper(), path) for path, ms in document["paths"].items() for m in ms}
    assert described == {(each.method, each.path) for each in ENDPOINTS}
    schemas = document["components"]["schemas"]
    used = str(document).split("#/components/schemas/")[1:]
    assert {each.split("'")[0] for each in used} <= set(schemas)
    secured = {p for p, ms in document["paths"].items() if "security" in ms.get("post", {})}
    assert secured == set(POSTS)


async def test_the_page_lists_every_endpoint() -> None:
    page = (await Api().get("/")).body.decode()
    assert all(each.path in page for each in ENDPOINTS)


async def test_the_state_of_a_paused_cluster_is_plain_in_status() -> None:
    paused = store(state=replace(STATE, pause=Pause(WALL_S + 60, "operator")))
    state = (await Api(Face(view(store=paused))).get("/status")).json["state"]
    assert (state["paused_by"], state["paused_until_wall_s"]) == ("operator", WALL_S + 60)
