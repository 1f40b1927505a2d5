"""A database with a user of its own at the server, and what single users may have."""

import hashlib
import hmac
import threading
from base64 import b64encode
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from proxy_bed import eventually, give
from psycopg import errors

from tests.integration.proxy.stage import Stage, staged

pytestmark = pytest.mark.integration

SCRAM = {"type": "host", "method": "scram-sha-256"}
SERVERS = "SELECT count(*) FROM pg_stat_activity WHERE client_port <> -1 AND usename = '{}'"


def private(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    give(path)
    return str(path)


def users(base: Path) -> dict[str, Any]:
    lines = '"ada" "of-ada"\n"bob" "of-bob"\n"shared" "of-the-list"\n'
    return {"rules": [SCRAM], "users_file": private(base / "users.list", lines)}


def by_password(stage: Stage) -> None:
    """From here on the server lets nobody in by TCP without the right password."""
    stage.server.sql("CREATE ROLE shared LOGIN PASSWORD 'of-the-file'", "CREATE ROLE ada LOGIN")
    hba = stage.server.data / "pg_hba.conf"
    hba.write_text(hba.read_text().replace("127.0.0.1/32 trust", "127.0.0.1/32 scram-sha-256"))
    stage.server.sql("SELECT pg_reload_conf()")


def test_all_clients_of_a_database_share_the_pool_of_its_own_user():
    def databases(base: Path) -> dict[str, Any]:
        of_file = {"user": "shared", "secret_file": private(base / "secret", "of-the-file\n")}
        of_list = {"user": "shared", "dbname": "postgres"}
        return {"postgres": of_file | {"pool_size": 1}, "listed": of_list}

    with staged(auth=users, databases=databases) as stage, ExitStack() as stack:
        by_password(stage)
        ada = stack.enter_context(stage.connect(user="ada", password="of-ada"))
        bob = stack.enter_context(stage.connect(user="bob", password="of-bob"))
        told = [
            each.execute("SELECT current_user, pg_backend_pid()").fetchone() for each in (ada, bob)
        ]
        assert told[0] == told[1]
        assert told[0] is not None
        assert told[0][0] == "shared"
        with stage.console() as console:
            names = {
                row["user"] for row in console("SHOW CLIENTS") if row["database"] == "postgres"
            }
            assert names == {"ada", "bob"}
            assert console.one("SHOW POOLS", database="postgres")["user"] == "shared"
            assert console.one("SHOW USERS", name="ada")["current_client_connections"] == 1
            bob.close()
            left = {"name": "bob", "current_client_connections": 0}
            eventually(
                "bob has left",
                lambda: any(left.items() <= r.items() for r in console("SHOW USERS")),
            )
        # Who may come in is still each client's own affair, and the list's password is another.
        with pytest.raises(psycopg.OperationalError, match=r"authentication failed for user .bob."):
            stage.connect(user="bob", password="of-the-file")
        with pytest.raises(
            psycopg.OperationalError, match=r"authentication failed for user .shared."
        ):
            stage.connect(user="bob", password="of-bob", dbname="listed")
        by_file = {"host": str(stage.base), "port": stage.server.port, "user": "postgres"}
        with psycopg.connect(**by_file, autocommit=True) as direct:
            direct.execute("ALTER ROLE shared PASSWORD 'of-the-list'")
        with stage.connect(user="bob", password="of-bob", dbname="listed") as client:
            assert client.execute("SELECT current_user").fetchone() == ("shared",)


def test_a_new_secret_of_a_database_is_used_after_a_reload():
    secret: list[Path] = []

    def databases(base: Path) -> dict[str, Any]:
        secret.append(base / "secret")
        path = private(secret[0], "old\n")
        return {"postgres": {"user": "shared", "secret_file": path}}

    with staged(databases=databases) as stage:
        by_password(stage)
        with pytest.raises(psycopg.OperationalError, match="authentication failed"):
            stage.connect()
        private(secret[0], "of-the-file\n")
        stage.tell({"config": stage.proxy.config()})

        def comes_in() -> bool:
            try:
                stage.connect().close()
            except psycopg.OperationalError:
                return False
            return True

        eventually("the new one is used", comes_in)
        secret[0].chmod(0o644)
        stage.tell({"config": stage.proxy.config()})
        eventually("it is refused", lambda: "can be read by others" in stage.proxy.log_tail())
        stage.connect().close()


def test_who_replicates_does_so_as_the_databases_own_user():
    with staged(
        settings="wal_level = logical\n", databases={"postgres": {"user": "shared"}}
    ) as stage:
        stage.server.sql("CREATE ROLE shared LOGIN REPLICATION", "CREATE ROLE ada LOGIN")
        with stage.connect(user="ada", replication="database") as replica:
            assert replica.execute("SELECT current_user").fetchone() == ("shared",)


def test_servers_of_a_databases_own_user_are_there_before_any_client():
    database = {"user": "postgres", "min_pool_size": 3}
    with staged(databases={"postgres": database, "*": {}}) as stage:
        eventually("three are open", lambda: stage.sql(SERVERS.format("postgres")) == 4)


def test_a_user_has_no_more_servers_than_it_may_in_all_databases():
    with staged(users={"app": {"max_servers": 2}}) as stage, ExitStack() as stack:
        stage.server.sql("CREATE ROLE app LOGIN")
        first, second = (stack.enter_context(stage.connect(user="app")) for _ in range(2))
        first.execute("BEGIN")
        second.execute("BEGIN")
        come: list[object] = []

        def ask() -> None:
            with stage.connect(user="app", dbname="template1") as client:
                come.append(client.execute("SELECT current_database()").fetchone())

        third = threading.Thread(target=ask)
        third.start()
        with stage.console() as console:
            eventually("it waits", lambda: sum(r["cl_waiting"] for r in console("SHOW POOLS")) == 1)
        assert stage.sql(SERVERS.format("app")) == 2
        second.execute("COMMIT")
        third.join(timeout=10)
        assert come == [("template1",)]
        assert stage.sql(SERVERS.format("app")) <= 2


def test_a_user_has_a_pool_of_its_own_size():
    with staged(users={"app": {"pool_size": 1}}) as stage, ExitStack() as stack:
        stage.server.sql("CREATE ROLE app LOGIN")
        clients = [stack.enter_context(stage.connect(user="app")) for _ in range(2)]
        clients[0].execute("BEGIN")
        asks = threading.Thread(target=lambda: clients[1].execute("SELECT 1"))
        asks.start()
        with stage.console() as console:
            eventually("it waits", lambda: console.one("SHOW POOLS", user="app")["cl_waiting"] == 1)
            assert console.one("SHOW USERS", name="app")["pool_size"] == "1"
        clients[0].execute("COMMIT")
        asks.join(timeout=10)
        assert stage.sql(SERVERS.format("app")) == 1


def test_where_it_says_md5_a_secret_of_scram_is_asked_for_by_scram():
    def auth(base: Path) -> dict[str, Any]:
        lines = f'"ada" "{scram_secret("of-ada")}"\n"bob" "of-bob"\n'
        path = private(base / "users.list", lines)
        return {"rules": [SCRAM | {"method": "md5"}], "users_file": path}

    with staged(auth=auth) as stage:
        stage.server.sql("CREATE ROLE ada LOGIN", "CREATE ROLE bob LOGIN")
        for user in ("ada", "bob"):
            with stage.connect(user=user, password=f"of-{user}") as client:
                assert client.execute("SELECT current_user").fetchone() == (user,)
            with pytest.raises(psycopg.OperationalError, match="authentication failed"):
                stage.connect(user=user, password="wrong")


def scram_secret(password: str) -> str:
    """As Postgres keeps it."""

    def base64(data: bytes) -> str:
        return b64encode(data).decode()

    def keyed(key: bytes, word: bytes) -> bytes:
        return hmac.digest(key, word, "sha256")

    salt = b"0123456789abcdef"
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 4096)
    stored = hashlib.sha256(keyed(salted, b"Client Key")).digest()
    both = f"{base64(stored)}:{base64(keyed(salted, b'Server Key'))}"
    return f"SCRAM-SHA-256$4096:{base64(salt)}${both}"


def test_the_console_lists_who_is_at_it():
    with staged() as stage, stage.console(application_name="me") as console:
        row = console.one("SHOW CLIENTS", application_name="me")
        assert (row["user"], row["database"], row["state"]) == ("anybody", "flightmode", "active")
        with stage.console(application_name="you") as other:
            assert other.one("SHOW CLIENTS", application_name="you")["id"] != row["id"]
        eventually("the other has left", lambda: len(console("SHOW CLIENTS")) == 1)


def test_a_user_has_limits_of_time_of_its_own_and_the_log_tells_whom_they_end():
    own = {"query_s": 0.3, "idle_in_transaction_s": 0.3, "query_wait_s": 0.3}
    with staged(users={"app": own | {"pool_size": 1}}, times={"query_s": 60}) as stage:
        stage.server.sql("CREATE ROLE app LOGIN")
        with stage.connect() as other, stage.connect(user="app") as client:
            other.execute("BEGIN")
            with pytest.raises(errors.QueryCanceled):
                client.execute("SELECT pg_sleep(30)")
            eventually("it is told", lambda: "runs for query_s" in stage.proxy.log_tail())
            with stage.connect(user="app") as waits:
                client.execute("BEGIN")
                with pytest.raises(errors.CannotConnectNow, match="have been in use"):
                    waits.execute("SELECT 1")
            ended = "idle in a transaction for idle_in_transaction_s"
            eventually("it is ended", lambda: ended in stage.proxy.log_tail())
            with pytest.raises(errors.IdleInTransactionSessionTimeout):
                client.execute("SELECT 1")
            assert other.execute("SELECT 1").fetchone() == (1,)
