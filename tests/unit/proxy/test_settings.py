"""flightmode.toml as the data path reads it."""

import json
from pathlib import Path

import pytest

from flightmode.config import parse
from flightmode.config.proxy import Proxy
from flightmode.proxy.settings import settings_of

native = pytest.importorskip("flightmode._native", reason="./dev setup builds it")

NODES = """
[cluster]
name = "main"
[nodes.ams]
host = "10.0.0.1"
[nodes.fra]
host = "10.0.0.2"
postgres_port = 5433
[nodes.wit]
kind = "witness"
host = "10.0.0.3"
"""


def settings(more: str = "") -> dict[str, object]:
    made = settings_of(
        parse(NODES + more),
        users_file=Path("/run/flightmode/proxy-users"),
        ca=Path("/etc/flightmode/tls/ca.crt"),
        admin_socket=Path("/run/flightmode/proxy-admin.sock"),
    )
    native.check(json.dumps(made))
    return made


def test_without_a_word_it_serves_this_machine_and_knows_both_databases() -> None:
    made = settings()
    assert made["listen"] == [{"host": "127.0.0.1", "port": 6432}]
    assert made["nodes"] == {
        "ams": {"host": "10.0.0.1", "port": 5432},
        "fra": {"host": "10.0.0.2", "port": 5433},
    }
    of_all = {"pool_size": 20, "min_pool_size": 0, "reserve": 0, "max_db_connections": 0}
    assert made["databases"] == {"*": {"pool_mode": "transaction"} | of_all}
    assert made["server_tls"] == {"mode": "verify-full", "ca": "/etc/flightmode/tls/ca.crt"}
    assert made["client_tls"] == {"mode": "disable"}


def test_from_elsewhere_clients_come_by_tls_alone() -> None:
    made = settings('[proxy]\nhost = "10.0.0.9"\ntls_cert = "/x/c"\ntls_key = "/x/k"\n')
    auth = made["auth"]
    assert isinstance(auth, dict)
    last = auth["rules"][-1]
    assert last == {"type": "hostssl", "address": "all", "method": "scram-sha-256"}


def test_a_pool_of_its_own_takes_what_it_does_not_say_from_the_others() -> None:
    made = settings(
        "[proxy]\npool_size = 7\nmin_pool_size = 2\nreserve = 3\nmax_db_connections = 40\n"
        '[proxy.databases.app]\npool_mode = "session"\n'
        "[proxy.databases.stats]\npool_size = 2\nmin_pool_size = 0\nreserve = 0\n"
        'max_db_connections = 4\nsettings = { statement_timeout = "5s" }\n'
    )
    assert made["databases"] == {
        "app": {
            "pool_mode": "session",
            "pool_size": 7,
            "min_pool_size": 2,
            "reserve": 3,
            "max_db_connections": 40,
            "dbname": None,
            "settings": {},
            "query_wait_s": None,
            "max_clients": 0,
            "user": None,
            "secret_file": None,
        },
        "stats": {
            "pool_mode": "transaction",
            "pool_size": 2,
            "min_pool_size": 0,
            "reserve": 0,
            "max_db_connections": 4,
            "dbname": None,
            "settings": {"statement_timeout": "5s"},
            "query_wait_s": None,
            "max_clients": 0,
            "user": None,
            "secret_file": None,
        },
    }


def test_a_database_may_have_a_user_and_a_user_may_have_limits_of_its_own() -> None:
    made = settings(
        '[proxy.databases.app]\nuser = "shared"\nsecret_file = "/etc/shared"\nmax_clients = 7\n'
        "[proxy.users.bob]\nmax_servers = 2\npool_size = 1\nreserve = 3\n"
    )
    databases, users = made["databases"], made["users"]
    assert isinstance(databases, dict)
    assert isinstance(users, dict)
    told = {"user": "shared", "secret_file": "/etc/shared", "max_clients": 7}
    assert told.items() <= databases["app"].items()
    assert users["bob"] == {
        "pool_mode": None,
        "max_connections": 0,
        "max_servers": 2,
        "pool_size": 1,
        "reserve": 3,
        "query_wait_s": None,
        "client_idle_s": None,
        "idle_in_transaction_s": None,
        "query_s": None,
    }


def test_limits_of_clients_and_the_header_of_a_balancer_reach_the_data_path() -> None:
    made = settings(
        "[proxy]\nmax_clients_per_user = 5\nmax_clients_per_database = 6\n"
        "max_clients_per_address = 7\nmax_prepared = 50\nproxy_protocol = true\n"
    )
    limits = made["limits"]
    assert isinstance(limits, dict)
    assert (limits["per_user"], limits["per_database"], limits["per_ip"]) == (5, 6, 7)
    assert (made["max_prepared"], made["proxy_protocol"]) == (50, True)


def test_secrets_may_be_asked_of_the_database() -> None:
    made = settings('[proxy.auth_query]\nuser = "asker"\nsecret_file = "/etc/asker"\n')
    auth = made["auth"]
    assert isinstance(auth, dict)
    query = auth["query"]
    assert (query["user"], query["secret_file"]) == ("asker", "/etc/asker")
    assert (query["database"], "$1" in query["sql"]) == ("postgres", True)


def numbers(value: object) -> list[object]:
    """What the settings say, in their order."""
    if isinstance(value, dict):
        return [each for inner in value.values() for each in numbers(inner)]
    if isinstance(value, list):
        return [each for inner in value for each in numbers(inner)]
    return [value]


# What is told to the launcher, or to a part of the settings of its own.
ELSEWHERE = {"metrics_port", "stop_grace_s", "users_file", "tls_cert", "tls_key", "tls_client_ca"}
TABLES = {"databases", "users", "hba", "auth_query"}
TEXTS = {"host": "127.0.0.9", "socket_dir": "/run/elsewhere", "pool_mode": "session"}


@pytest.mark.parametrize("key", sorted(set(Proxy.model_fields) - ELSEWHERE - TABLES))
def test_no_key_of_proxy_is_without_effect(key: str) -> None:
    default = Proxy.model_fields[key].default
    if key in TEXTS:
        given: object = TEXTS[key]
    elif isinstance(default, tuple):
        given = ["somebody"]
    elif isinstance(default, bool):
        given = not default
    else:
        given = default + 11
    changed = json.dumps(given) if not isinstance(given, bool) else str(given).lower()
    # The others leave room: a pool keeps no more than its size, and each shard has a server.
    room = "pool_size = 31\n" if key in ("min_pool_size", "shards") else ""
    before = numbers(settings(f"[proxy]\n{room}"))
    after = numbers(settings(f"[proxy]\n{room}{key} = {changed}\n"))
    assert before != after


def test_every_key_of_proxy_is_understood_by_the_data_path() -> None:
    settings(
        '[proxy]\nport = 7000\nsocket_dir = "/run/x"\nshards = 2\nmax_clients = 9\n'
        "max_clients_per_address = 3\nhold_for_s = 5.0\nquery_wait_s = 4.0\nquery_s = 3.0\n"
        "idle_in_transaction_s = 2.0\nclient_idle_s = 60.0\nserver_idle_s = 30.0\n"
        'server_lifetime_s = 100.0\nmemory_mb = 64\nadmin_users = ["ops"]\n'
        'stats_users = ["watch"]\n[proxy.users.app]\nmax_connections = 5\n'
        '[[proxy.hba]]\ntype = "local"\nmethod = "trust"\n'
    )


def test_settings_that_can_not_be_read_are_said_with_their_place() -> None:
    with pytest.raises(ValueError, match="unknown field `hosts`"):
        native.check('{"listen": [], "nodes": {}, "hosts": 1}')
