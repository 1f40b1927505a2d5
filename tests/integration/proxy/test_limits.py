"""What clients may not do, and how they are told; who they are, by query and by header."""

import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from proxy_bed import HOST, eventually, give
from psycopg import errors

from tests.integration.proxy.stage import Stage, staged

pytestmark = pytest.mark.integration

TIMES = {"client_idle_s": 0.4, "idle_in_transaction_s": 0.3, "query_s": 0.5}


@pytest.fixture(scope="module")
def hasty() -> Iterator[Stage]:
    """Where nobody may take long."""
    with staged(times=TIMES) as stage:
        yield stage


def ended_with(stage: Stage, *statements: str) -> str:
    """What a client that then says nothing is told, read from its socket as it is."""
    with socket.create_connection((HOST, stage.proxy.port), timeout=10) as raw:
        raw.sendall(startup("postgres"))
        for statement in statements:
            raw.sendall(b"Q" + struct.pack("!i", len(statement) + 5) + statement.encode() + b"\0")
        told = b""
        while data := raw.recv(4096):
            told += data
    code = told.rindex(b"C", 0, told.rindex(b"M"))
    return told[code + 1 : code + 6].decode()


def startup(user: str, **more: str) -> bytes:
    words = {"user": user, "database": "postgres"} | more
    pairs = b"".join(f"{name}\0{value}\0".encode() for name, value in words.items())
    return struct.pack("!ii", len(pairs) + 9, 196608) + pairs + b"\0"


def test_an_idle_client_is_ended_with_a_code_of_its_own(hasty: Stage):
    assert ended_with(hasty, "SELECT 1") == "57P05"


def test_a_client_idle_in_its_transaction_is_ended_and_its_server_too(hasty: Stage):
    assert ended_with(hasty, "BEGIN", "SELECT 1") == "25P03"
    count = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'"
    eventually("nothing is left open", lambda: hasty.sql(count) == 0)


def test_a_statement_that_takes_too_long_is_cancelled_and_the_client_stays(hasty: Stage):
    with hasty.connect() as client:
        began = time.monotonic()
        with pytest.raises(errors.QueryCanceled):
            client.execute("SELECT pg_sleep(30)")
        assert time.monotonic() - began < 5
        assert client.execute("SELECT 1").fetchone() == (1,)
        client.execute("SELECT pg_sleep(0.2)")


def test_limits_of_time_come_with_a_reload():
    with staged() as stage, stage.connect() as client:
        client.execute("SELECT 1")
        stage.tell({"config": stage.proxy.config() | {"times": {"query_s": 0.2}}})
        with stage.console() as console:
            eventually(
                "it is told",
                lambda: console.one("SHOW CONFIG", key="times.query_s")["value"] == "0.2",
            )
        with pytest.raises(errors.QueryCanceled):
            client.execute("SELECT pg_sleep(30)")


def test_statement_mode_refuses_a_transaction_block_and_says_what_to_do():
    with staged(databases={"*": {"pool_mode": "statement"}}) as stage, stage.connect() as client:
        assert client.execute("SELECT 1").fetchone() == (1,)
        for text in ("BEGIN", "START TRANSACTION READ ONLY", "SELECT 1; BEGIN; SELECT 2"):
            with pytest.raises(errors.FeatureNotSupported) as caught:
                client.execute(text.encode())
            assert "pool_mode" in str(caught.value.diag.message_hint)
        with pytest.raises(errors.FeatureNotSupported):
            client.execute("BEGIN", prepare=True)
        assert client.execute("SELECT %s::int", (7,), prepare=True).fetchone() == (7,)
        begun = "SELECT count(*) FROM pg_stat_activity WHERE state ~ 'transaction'"
        assert stage.sql(begun) == 0


def test_a_login_that_waited_takes_nothing_from_the_patience_of_what_follows():
    pool = {"pool_size": 1}
    with staged(times={"hold_for_s": 1.0}, databases={"*": pool}) as stage, ExitStack() as stack:
        first, other = (stack.enter_context(stage.connect()) for _ in range(2))
        other.execute("BEGIN")
        other.execute("SELECT pg_sleep(1.2)")
        told: list[Any] = []
        asks = threading.Thread(target=lambda: told.extend(first.execute("SELECT 7").fetchall()))
        asks.start()
        with stage.console() as console:
            eventually("it waits", lambda: console("SHOW POOLS")[0]["cl_waiting"] == 1, 1)
        other.execute("COMMIT")
        asks.join(timeout=10)
        assert told == [(7,)]


def test_who_waits_too_long_for_a_full_pool_is_told_so_and_stays():
    pool = {"pool_size": 1}
    with staged(times={"query_wait_s": 0.5}, databases={"*": pool}) as stage, ExitStack() as stack:
        first, other = (stack.enter_context(stage.connect()) for _ in range(2))
        other.execute("BEGIN")
        with pytest.raises(errors.CannotConnectNow, match="all servers of this pool"):
            first.execute("SELECT 1")
        other.execute("COMMIT")
        assert first.execute("SELECT 1").fetchone() == (1,)


def test_a_full_pool_is_waited_for_longer_than_a_primary_that_is_not_there():
    times = {"hold_for_s": 0.5, "query_wait_s": 30.0}
    with staged(times=times, databases={"*": {"pool_size": 1}}) as stage, ExitStack() as stack:
        first, other = (stack.enter_context(stage.connect()) for _ in range(2))
        other.execute("BEGIN")
        told: list[Any] = []
        asks = threading.Thread(target=lambda: told.extend(first.execute("SELECT 7").fetchall()))
        asks.start()
        other.execute("SELECT pg_sleep(1.5)")
        with stage.console() as console:
            assert console("SHOW POOLS")[0]["cl_waiting"] == 1
        other.execute("COMMIT")
        asks.join(timeout=10)
        assert told == [(7,)]


def test_a_pool_for_a_database_that_is_not_there_goes_with_its_last_client():
    with staged() as stage, stage.console() as console:
        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            stage.connect(dbname="nowhere")

        def known() -> set[str]:
            return {row["database"] for row in console("SHOW POOLS")}

        eventually("it is forgotten", lambda: "nowhere" not in known())
        refused = 'database "nowhere" does not exist'
        log = stage.server.log.read_text()
        assert log.count(refused) < 5
        with stage.connect() as client:
            assert client.execute("SELECT 1").fetchone() == (1,)


def test_a_message_that_memory_has_no_room_for_ends_its_client_alone():
    with staged(limits={"memory_mb": 1}) as stage, stage.connect() as other:
        ended = pytest.raises(psycopg.OperationalError, match=r"memory_mb|closed|broken|reset")
        with stage.connect() as client, ended:
            client.execute(f"SELECT length('{'x' * 4_000_000}')".encode())
        assert other.execute("SELECT length(%s)", ("x" * 100_000,)).fetchone() == (100_000,)
        with stage.console() as console:
            eventually("nothing is kept", lambda: kept(console) < 100_000)


def kept(console: Any) -> int:
    return int(console.one("SHOW MEM", name="kept for clients")["memtotal"])


def test_nobody_comes_in_while_there_is_no_memory_and_those_who_are_in_go_on():
    slow = b"SELECT repeat('x', 1000) FROM generate_series(1, 100000)"
    pool = {"pool_size": 40}
    with staged(limits={"memory_mb": 1}, databases={"*": pool}) as stage, ExitStack() as stack:
        other = stack.enter_context(stage.connect())
        clients = [stage.connect() for _ in range(25)]
        for client in clients:
            stack.callback(client.close)
        with stage.console() as console:
            for client in clients:
                client.pgconn.send_query(slow)
            eventually("it is full", lambda: kept(console) > 1 << 20)
            with pytest.raises(psycopg.OperationalError, match="memory_mb is 1"):
                stage.connect()
            assert other.execute("SELECT 1").fetchone() == (1,)
            for client in clients:
                client.close()
            eventually("there is room again", lambda: kept(console) < 1 << 19)
            with stage.connect() as again:
                assert again.execute("SELECT 1").fetchone() == (1,)


def test_a_database_has_settings_and_servers_that_are_kept_open():
    database = {"settings": {"statement_timeout": "12345"}, "min_pool_size": 3}
    with staged(databases={"*": database}) as stage, stage.connect() as client:
        assert client.execute("SHOW statement_timeout").fetchone() == ("12345ms",)
        ours = "SELECT count(*) FROM pg_stat_activity WHERE client_port <> -1"
        eventually("three are open", lambda: stage.sql(ours) == 4)


def test_a_database_has_no_more_servers_than_it_may_whoever_its_users_are():
    database = {"max_db_connections": 2, "pool_size": 5}
    with staged(databases={"*": database}) as stage, ExitStack() as stack:
        stage.server.sql("CREATE ROLE app LOGIN")
        first, second = (stack.enter_context(stage.connect()) for _ in range(2))
        first.execute("BEGIN")
        second.execute("BEGIN")
        come: list[object] = []
        third = threading.Thread(target=lambda: come.append(ask_as(stage, "app")))
        third.start()
        with stage.console() as console:
            eventually("it waits", lambda: sum(r["cl_waiting"] for r in console("SHOW POOLS")) == 1)
        second.execute("COMMIT")
        third.join(timeout=10)
        assert come == [("app",)]
        ours = "SELECT count(*) FROM pg_stat_activity WHERE client_port <> -1"
        eventually("two are open", lambda: stage.sql(ours) == 3)


def ask_as(stage: Stage, user: str) -> object:
    with stage.connect(user=user) as client:
        return client.execute("SELECT current_user").fetchone()


def test_a_pool_has_a_reserve_for_those_who_wait_for_long():
    database = {"pool_size": 1, "reserve": 1}
    with staged(databases={"*": database}) as stage, ExitStack() as stack:
        first, second = (stack.enter_context(stage.connect()) for _ in range(2))
        first.execute("BEGIN")
        began = time.monotonic()
        assert second.execute("SELECT 1").fetchone() == (1,)
        assert 4 < time.monotonic() - began < 15
        ours = "SELECT count(*) FROM pg_stat_activity WHERE client_port <> -1"
        eventually("the reserve is given back", lambda: stage.sql(ours) == 2)


def test_servers_are_replaced_when_they_are_old():
    with staged(times={"server_lifetime_s": 0.5}) as stage, stage.connect() as client:
        first = client.execute("SELECT pg_backend_pid()").fetchone()
        ask = "SELECT pg_backend_pid()"
        eventually("it is another one", lambda: client.execute(ask).fetchone() != first)


# ---------------------------------------------------------------------- who they are


def asked(base: Path) -> dict[str, object]:
    secret = base / "asker.secret"
    secret.write_text("asks\n")
    secret.chmod(0o600)
    give(secret)
    return {
        "rules": [{"type": "host", "address": "127.0.0.1/32", "method": "scram-sha-256"}],
        "query": {
            "user": "asker",
            "secret_file": str(secret),
            "database": "postgres",
            "sql": "SELECT rolname, rolpassword FROM pg_authid WHERE rolname = lower($1)",
        },
    }


@pytest.fixture(scope="module")
def asking() -> Iterator[Stage]:
    with asking_stage() as stage:
        yield stage


@contextmanager
def asking_stage() -> Iterator[Stage]:
    """Where secrets are asked of the database."""
    with staged(auth=asked) as stage:
        stage.server.sql(
            "CREATE ROLE asker LOGIN SUPERUSER PASSWORD 'asks'",
            "CREATE ROLE bob LOGIN PASSWORD 'first'",
            "CREATE FUNCTION public.lower(text) RETURNS text LANGUAGE sql AS 'SELECT ''asker'''",
            "ALTER ROLE asker SET search_path = public, pg_catalog",
        )
        hba = stage.server.data / "pg_hba.conf"
        hba.write_text(hba.read_text().replace("127.0.0.1/32 trust", "127.0.0.1/32 scram-sha-256"))
        stage.server.sql("SELECT pg_reload_conf()")
        yield stage


def test_pitfall_36_a_user_is_let_in_by_the_databases_own_secret_whatever_the_search_path(
    asking: Stage,
):
    with asking.connect(user="bob", password="first") as client:
        assert client.execute("SELECT current_user").fetchone() == ("bob",)


@pytest.mark.parametrize("user", ["bob", "nobody", "asker' OR 'x' = 'x"])
def test_a_wrong_word_or_name_is_refused_alike(asking: Stage, user: str):
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        asking.connect(user=user, password="wrong")


def test_a_changed_password_is_known_soon(asking: Stage):
    def comes_in(word: str) -> bool:
        try:
            asking.connect(user="carl", password=word).close()
        except psycopg.OperationalError:
            return False
        return True

    with psycopg.connect(
        host=str(asking.base), port=asking.server.port, user="postgres", autocommit=True
    ) as direct:
        direct.execute("CREATE ROLE carl LOGIN PASSWORD 'old'")
        eventually("the new user comes in", lambda: comes_in("old"), within_s=5)
        direct.execute("ALTER ROLE carl PASSWORD 'new'")
        eventually("the new word is known", lambda: comes_in("new"), within_s=5)
        assert not comes_in("old")


def test_who_is_known_comes_in_while_the_database_can_not_be_asked():
    with asking_stage() as stage:
        with stage.connect(user="bob", password="first") as client:
            client.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            stage.connect(user="bob", password="wrong")
        doubted_s = time.monotonic()
        eventually("the answer is too old", lambda: time.monotonic() > doubted_s + 1.1)
        stage.server.kill()
        stage.proxy.no_primary()
        stage.connect(user="bob", password="first").close()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            stage.connect(user="bob", password="wrong")
        with pytest.raises(psycopg.OperationalError, match="can't be asked"):
            stage.connect(user="nobody", password="any")


def test_a_secret_that_the_server_refuses_is_asked_for_again_at_once():
    with asking_stage() as stage:
        stage.connect(user="bob", password="first").close()
        with psycopg.connect(
            host=str(stage.base), port=stage.server.port, user="postgres", autocommit=True
        ) as direct:
            direct.execute("ALTER ROLE bob PASSWORD 'second'")
            direct.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bob'"
            )
        eventually("a server refused", lambda: "server_refused" in stage.proxy.log_tail())
        with stage.connect(user="bob", password="second") as client:
            assert client.execute("SELECT 1").fetchone() == (1,)


def test_who_replicates_is_counted_listed_cancelled_and_sent_away():
    with staged(
        settings="wal_level = logical\n", limits={"per_user": 1}, databases={"postgres": {}}
    ) as stage:
        with pytest.raises(psycopg.OperationalError, match="is not served here"):
            stage.connect(dbname="template1", replication="database")
        with stage.connect(replication="database") as replica, stage.console() as console:
            row = console.one("SHOW CLIENTS", database="postgres")
            assert row["user"] == "postgres"
            with pytest.raises(psycopg.OperationalError, match="has its 1 connections"):
                stage.connect()
            sleeps = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'"
            stops = threading.Thread(target=lambda: stop(replica, stage, sleeps))
            stops.start()
            with pytest.raises(errors.QueryCanceled):
                replica.execute("SELECT pg_sleep(60)")
            stops.join()
            console(f"KILL_CLIENT {row['id']}")
            with pytest.raises(psycopg.OperationalError):
                replica.execute("SELECT 1")
            eventually("it is forgotten", lambda: len(console("SHOW CLIENTS")) == 1)
        stage.connect().close()


def stop(client: psycopg.Connection[Any], stage: Stage, runs: str) -> None:
    eventually("it runs", lambda: stage.sql(runs) == 1)
    client.cancel()


def test_the_session_that_asks_is_one_and_outlives_its_end(asking: Stage):
    with psycopg.connect(
        host=str(asking.base), port=asking.server.port, user="postgres", autocommit=True
    ) as direct:
        mine = "FROM pg_stat_activity WHERE application_name = 'flightmode auth_query'"
        asking.connect(user="bob", password="first").close()
        assert direct.execute(f"SELECT count(*) {mine}").fetchone() == (1,)
        direct.execute(f"SELECT pg_terminate_backend(pid) {mine}")
        direct.execute("CREATE ROLE dora LOGIN PASSWORD 'dora'")
        with asking.connect(user="dora", password="dora") as client:
            assert client.execute("SELECT 1").fetchone() == (1,)


def proxied(address: str, port: int) -> bytes:
    ips = socket.inet_aton(address) + socket.inet_aton("10.0.0.1")
    return (
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
        + struct.pack("!H", 12)
        + ips
        + struct.pack("!HH", port, 5432)
    )


def test_the_header_of_a_balancer_says_whom_a_client_is():
    rule = {"type": "host", "address": "10.9.0.0/16", "method": "trust"}
    with staged(auth={"rules": [rule]}, proxy_protocol=True) as stage:
        address = (HOST, stage.proxy.port)
        with socket.create_connection(address, timeout=10) as raw, stage.console() as console:
            raw.sendall(proxied("10.9.8.7", 777) + startup("postgres"))
            assert raw.recv(9, socket.MSG_WAITALL) == b"R\0\0\0\x08\0\0\0\0"
            row = console.one("SHOW CLIENTS", database="postgres")
            assert (row["addr"], row["port"]) == ("10.9.8.7", 777)
        with socket.create_connection(address, timeout=10) as raw:
            raw.sendall(proxied("10.8.8.7", 777) + startup("postgres"))
            assert b"no rule" in raw.recv(4096)
        with socket.create_connection(address, timeout=10) as raw:
            raw.sendall(startup("postgres")[:16])
            assert raw.recv(4096) == b"", "nobody without a header is spoken to"


def test_a_header_is_not_believed_where_none_is_expected():
    with staged() as stage, socket.create_connection((HOST, stage.proxy.port), 10) as raw:
        raw.sendall(proxied("10.9.8.7", 777) + startup("postgres"))
        assert b"FATAL" in raw.recv(4096)


def test_a_cancel_finds_its_client_in_another_shard():
    with staged(shards=3) as stage, stage.connect() as client:
        for _ in range(6):
            client.pgconn.send_query(b"SELECT pg_sleep(60)")
            sleeps = "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^SELECT pg_sleep'"
            active = f"{sleeps} AND state = 'active'"
            eventually("it runs", lambda ask=active: stage.sql(ask) == 1)
            client.cancel_safe(timeout=10)
            results = [client.pgconn.get_result(), client.pgconn.get_result()]
            code = psycopg.pq.DiagnosticField.SQLSTATE
            assert results[0] is not None
            assert results[0].error_field(code) == b"57014"


@pytest.mark.parametrize("shards", [1, 3])
def test_limits_are_those_of_the_whole_proxy_however_many_threads_it_has(shards: int):
    of_all = {"*": {"pool_mode": "transaction", "pool_size": 4}}
    limits = {"max_clients": 12, "per_user": 10}
    with ExitStack() as stack:
        stage = stack.enter_context(staged(shards=shards, databases=of_all, limits=limits))
        stage.server.sql("CREATE ROLE app LOGIN")
        clients = [stack.enter_context(stage.connect()) for _ in range(10)]
        with pytest.raises(psycopg.OperationalError, match="has its 10 connections"):
            stage.connect()
        others = [stack.enter_context(stage.connect(user="app")) for _ in range(2)]
        with pytest.raises(psycopg.OperationalError, match="max_clients is 12"):
            stage.connect(user="app")
        for client in clients:
            client.pgconn.send_query(b"SELECT pg_sleep(0.3)")
        servers = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'postgres'"
        mine = f"{servers} AND backend_type = 'client backend' AND query !~ 'pg_stat_activity'"
        most = 0
        while not all(is_over(client) for client in clients):
            most = max(most, int(str(stage.sql(mine))))
        for client in clients:
            while client.pgconn.get_result() is not None:
                continue
        # Threads have their parts, and not each has a client.
        assert 2 <= most <= 4
        others[0].close()
        eventually("there is room again", lambda: comes_in(stage, "app"))


def is_over(client: psycopg.Connection[Any]) -> bool:
    client.pgconn.consume_input()
    return not client.pgconn.is_busy()


def comes_in(stage: Stage, user: str) -> bool:
    try:
        stage.connect(user=user).close()
    except psycopg.OperationalError:
        return False
    return True


def certificate(base: Path, name: str) -> dict[str, object]:
    cert, key = base / "server.crt", base / "server.key"
    ask = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-sha256"]
    place = ["-subj", f"/CN={name}", "-keyout", str(key), "-out", str(cert)]
    subprocess.run([*ask, *place], check=True, capture_output=True)
    for path in (cert, key):
        give(path)
    return {"mode": "allow", "cert": str(cert), "key": str(key)}


def test_a_reload_takes_a_renewed_certificate_and_old_sessions_stay():
    with (
        staged(client_tls=lambda base: certificate(base, "first")) as stage,
        stage.connect(sslmode="require") as old,
    ):
        assert presented(stage) == "first"
        certificate(stage.base, "second")
        stage.tell({"config": stage.proxy.config()})
        eventually("the new one is shown", lambda: presented(stage) == "second")
        assert old.execute("SELECT 1").fetchone() == (1,)
        with stage.console() as console:
            rows = console("SHOW CLIENTS")
            versions = {row["tls"] for row in rows if row["database"] != "flightmode"}
        assert versions == {"TLSv1_3"}


def presented(stage: Stage) -> str:
    """The name in the certificate that a client is shown."""
    done = subprocess.run(
        ["openssl", "s_client", "-starttls", "postgres", "-connect", f"{HOST}:{stage.proxy.port}"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
    subject = next(line for line in done.stdout.splitlines() if line.startswith("subject="))
    return subject.split("=")[-1].strip()


def test_a_login_that_the_server_refuses_for_good_hears_the_servers_own_words():
    with staged() as stage, stage.connect() as other:
        with pytest.raises(psycopg.OperationalError, match='database "nowhere" does not exist'):
            stage.connect(dbname="nowhere", connect_timeout=5)
        with pytest.raises(psycopg.OperationalError, match='role "app" does not exist'):
            stage.connect(user="app", connect_timeout=5)
        assert other.execute("SELECT 1").fetchone() == (1,)
        stage.server.sql("CREATE DATABASE nowhere")
        eventually("it is there", lambda: is_there(stage, "nowhere"))


def is_there(stage: Stage, database: str) -> bool:
    try:
        stage.connect(dbname=database).close()
    except psycopg.OperationalError:
        return False
    return True
