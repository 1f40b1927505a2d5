"""The console, operated as users of PgBouncer know it; and what it commands."""

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from proxy_bed import eventually
from psycopg import errors

from tests.integration.proxy.stage import Stage, staged

pytestmark = pytest.mark.integration

ENDED = r"shutting down|closed|terminated"
ALL = ["clients", "config", "databases", "lists", "mem", "pools", "servers", "state", "stats"]


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged(shards=2) as stage:
        yield stage


@pytest.mark.parametrize("what", [*ALL, "topology", "users", "version"])
def test_everything_can_be_shown_also_when_nothing_has_happened(stage: Stage, what: str):
    with stage.console() as console:
        console.connection.execute(f"SHOW {what}".encode())
    with stage.connect(), stage.console() as console:
        assert console(f"SHOW {what.upper()};")


def test_help_is_a_notice(stage: Stage):
    heard: list[str] = []
    with stage.console() as console:
        console.connection.add_notice_handler(
            lambda notice: heard.append(str(notice.message_primary))
        )
        console("SHOW HELP")
    assert "RECONNECT" in heard[0]


def test_pools_sum_up_what_the_shards_have(stage: Stage):
    with stage.console() as console:
        stage.server.sql("CREATE ROLE summed LOGIN")
        clients = [stage.connect(user="summed") for _ in range(8)]
        for client in clients[:3]:
            client.execute("BEGIN")
        try:
            pool = console.one("SHOW POOLS", user="summed")
            assert (pool["cl_active"], pool["cl_waiting"]) == (8, 0)
            assert pool["sv_active"] == 3
            assert pool["pool_mode"] == "transaction"
            shown = [row for row in console("SHOW CLIENTS") if row["user"] == "summed"]
            assert len(shown) == 8
            linked = {row["remote_pid"] for row in shown} - {None}
            assert len(linked) == 3
            servers = [row for row in console("SHOW SERVERS") if row["state"] == "active"]
            assert linked <= {row["remote_pid"] for row in servers}
        finally:
            for client in clients:
                client.close()


def test_stats_count_transactions_queries_and_bytes(stage: Stage):
    def shown(name: str) -> int:
        with stage.console() as console:
            return int(console.one("SHOW STATS", database="postgres")[name])

    with stage.connect() as client:
        client.execute("SELECT 1")
        before = {name: shown(f"total_{name}_count") for name in ("xact", "query")}
        sent = shown("total_sent")
        with client.transaction():
            client.execute("SELECT repeat('x', 10000)")
            client.execute("SELECT pg_sleep(0.05)")
        assert shown("total_xact_count") == before["xact"] + 1
        assert shown("total_query_count") == before["query"] + 4
        assert shown("total_sent") > sent + 10_000
        assert shown("total_query_time") >= 50_000
        assert shown("total_xact_time") >= shown("total_query_time") * 0.9


def test_an_application_is_shown_by_its_name_and_place(stage: Stage):
    with stage.connect(application_name="invoices") as client, stage.console() as console:
        client.execute("SELECT 1")
        row = console.one("SHOW CLIENTS", application_name="invoices")
        assert (row["state"], row["addr"], row["tls"]) == ("idle", "127.0.0.1", "")
        assert row["port"] > 0


def test_the_topology_is_shown(stage: Stage):
    with stage.console() as console:
        row = console.one("SHOW TOPOLOGY", node="ams")
    assert (row["role"], row["usable"], row["port"]) == ("primary", 1, stage.server.port)


def test_settings_are_shown_with_their_defaults(stage: Stage):
    with stage.console() as console:
        row = console.one("SHOW CONFIG", key="times.hold_for_s")
    assert (row["value"], row["default"], row["changeable"]) == ("30.0", "30.0", "yes")


def test_pitfall_37_who_may_do_what(stage: Stage):
    with stage.console(host="127.0.0.1", port=stage.proxy.port, user="watch") as console:
        assert console("SHOW VERSION")
        with pytest.raises(errors.InsufficientPrivilege):
            console("PAUSE")
    with stage.console(host="127.0.0.1", port=stage.proxy.port, user="ops") as console:
        console("RECONNECT")
    with pytest.raises(psycopg.OperationalError, match=r"neither in admin\.users"):
        stage.connect(dbname="flightmode", user="app")


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ("SHOW nonsense", "42601"),
        ("SELECT 1", "42601"),
        ("SET max_clients = 1", "0A000"),
        ("DRAIN soon", "22023"),
    ],
)
def test_what_the_console_does_not_know_is_an_error_and_it_goes_on(
    stage: Stage, text: str, sqlstate: str
):
    with stage.console() as console:
        with pytest.raises(psycopg.Error) as caught:
            console(text)
        assert caught.value.sqlstate == sqlstate
        assert console("SHOW VERSION")
        with pytest.raises(errors.FeatureNotSupported):
            console.connection.execute("SHOW VERSION", binary=True)
        assert console("SHOW VERSION")


def test_paused_clients_wait_and_go_on_when_resumed(stage: Stage):
    with stage.connect() as busy, stage.connect() as waits, stage.console() as console:
        busy.execute("BEGIN")
        paused = threading.Thread(target=console, args=("PAUSE postgres",))
        paused.start()
        with stage.console() as other:
            eventually("it is paused", lambda: is_paused(other))
        assert paused.is_alive(), "it ends before the transaction does"
        busy.execute("COMMIT")
        paused.join(timeout=10)
        assert not paused.is_alive()
        count = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres'"
        eventually("only we are left", lambda: stage.sql(count) == 1)
        told: list[Any] = []
        asks = threading.Thread(target=lambda: told.extend(waits.execute("SELECT 7").fetchall()))
        asks.start()
        eventually("it waits", lambda: waiting(console) == 1)
        assert told == []
        console("RESUME postgres")
        asks.join(timeout=10)
        assert told == [(7,)]


def is_paused(console: Any) -> bool:
    return bool(console.one("SHOW DATABASES", name="postgres")["paused"])


def waiting(console: Any) -> int:
    return int(sum(row["cl_waiting"] for row in console("SHOW POOLS")))


def test_reconnect_replaces_each_server_when_nobody_uses_it(stage: Stage):
    def pid(client: psycopg.Connection[Any]) -> object:
        row = client.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        return row[0]

    with stage.connect() as client, stage.console() as console:
        client.execute("BEGIN")
        before = pid(client)
        console("RECONNECT")
        assert pid(client) == before
        client.execute("COMMIT")
        assert pid(client) != before


def test_kill_ends_clients_and_new_ones_wait_for_resume(stage: Stage):
    stage.server.sql("DROP DATABASE IF EXISTS killed", "CREATE DATABASE killed")
    with stage.connect(dbname="killed") as client, stage.console() as console:
        client.execute("BEGIN")
        console("KILL killed")
        with pytest.raises(psycopg.OperationalError, match=ENDED):
            client.execute("SELECT 1")
        come: list[object] = []
        again = threading.Thread(target=lambda: come.append(ask(stage, "killed")))
        again.start()
        eventually("it waits", lambda: waiting(console) == 1)
        console("RESUME killed")
        again.join(timeout=10)
        assert come == [(1,)]


def ask(stage: Stage, database: str) -> object:
    with stage.connect(dbname=database) as client:
        return client.execute("SELECT 1").fetchone()


def test_an_unknown_database_is_not_paused():
    with staged(databases={"postgres": {}}) as stage, stage.console() as console:
        with pytest.raises(errors.InvalidCatalogName):
            console("PAUSE nowhere")
        with pytest.raises(psycopg.OperationalError, match="not served here"):
            stage.connect(dbname="nowhere")
        row = console.one("SHOW LISTS", list="refused_logins")
        assert row["items"] == 1


def test_pitfall_48_reload_takes_other_settings_and_drops_nobody():
    limits: dict[str, object] = {"max_clients": 2}
    with staged(limits=limits) as stage, stage.connect() as client, stage.console() as console:
        client.execute("BEGIN")
        pid = client.execute("SELECT pg_backend_pid()").fetchone()
        refused = pytest.raises(psycopg.OperationalError, match="max_clients is 2")
        with stage.connect(), refused:
            stage.connect()
        stage.tell({"config": stage.proxy.config() | {"limits": {"max_clients": 3}}})
        eventually("it is told", lambda: shown(console, "limits.max_clients") == "3")
        with stage.connect(), stage.connect():
            assert client.execute("SELECT pg_backend_pid()").fetchone() == pid
        (stage.proxy.base / "users.txt").chmod(0o644)
        stage.tell({"config": stage.proxy.config() | {"limits": {"max_clients": 9}}})
        eventually("it is refused", lambda: "not reloaded" in stage.proxy.log_tail())
        assert shown(console, "limits.max_clients") == "3"


def shown(console: Any, key: str) -> object:
    return console.one("SHOW CONFIG", key=key)["value"]


def test_reload_is_asked_of_the_launcher():
    with staged() as stage, stage.console() as console:
        console("RELOAD")
        eventually("it hears", lambda: "reload_asked" in stage.proxy.log_tail())


def test_reload_gives_other_settings_to_new_servers():
    with staged() as stage, stage.connect() as client, stage.console() as console:
        client.execute("SELECT 1")
        database = {"settings": {"work_mem": "7MB"}, "pool_size": 3}
        stage.tell({"config": stage.proxy.config() | {"databases": {"*": database}}})
        eventually("it is told", lambda: shown(console, "databases.*.pool_size") == "3")
        assert client.execute("SHOW work_mem").fetchone() == ("7MB",)


def test_drain_sends_each_client_away_between_two_transactions():
    with staged(shards=2) as stage, stage.console() as console:
        idle, busy = stage.connect(), stage.connect()
        busy.execute("BEGIN")
        console("DRAIN 30")
        with pytest.raises(psycopg.OperationalError, match=ENDED):
            idle.execute("SELECT 1")
        assert busy.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError):
            stage.connect()
        busy.execute("COMMIT")
        with pytest.raises(psycopg.OperationalError, match=ENDED):
            busy.execute("SELECT 1")
        eventually("it is done", lambda: '"drained"' in stage.proxy.log_tail())
        assert console.one("SHOW STATE", key="draining")["value"] == "yes"


def test_drain_does_not_wait_for_ever():
    with staged() as stage, stage.console() as console, stage.connect() as busy:
        busy.execute("BEGIN")
        console("DRAIN 0.1")
        eventually("it is done", lambda: '"drained"' in stage.proxy.log_tail())
        with pytest.raises(psycopg.OperationalError, match=ENDED):
            busy.execute("SELECT 1")


def test_one_client_is_sent_away_by_its_number():
    with staged(shards=2) as stage, stage.connect() as client, stage.console() as console:
        clients = [stage.connect(application_name=f"n{number}") for number in range(6)]
        rows = console("SHOW CLIENTS")
        assert len({row["id"] for row in rows}) == 8, "a number for each, whatever its thread"
        (one,) = [row["id"] for row in rows if row["application_name"] == "n3"]
        console(f"KILL_CLIENT {one}")
        with pytest.raises(psycopg.errors.AdminShutdown):
            clients[3].execute("SELECT 1")
        for number, other in enumerate(clients):
            if number != 3:
                assert other.execute("SELECT 1").fetchone() == (1,)
            other.close()
        assert client.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.errors.UndefinedObject, match="no client has the number 77777"):
            console("KILL_CLIENT 77777")


def test_the_console_has_another_name_for_tools_that_know_it_by_one():
    admin = {"users": ["postgres"], "names": ["pgbouncer"]}
    with (
        staged(admin=admin) as stage,
        stage.connect(dbname="pgbouncer", prepare_threshold=None) as link,
    ):
        assert link.execute("SHOW VERSION").fetchone() is not None
