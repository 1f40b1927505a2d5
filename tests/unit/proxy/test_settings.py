"""flightmode.toml as the data path reads it."""

import json
from pathlib import Path

import pytest

from flightmode.config import parse
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
    assert made["databases"] == {"*": {"pool_mode": "transaction", "pool_size": 20}}
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
        '[proxy]\npool_size = 7\n[proxy.databases.app]\npool_mode = "session"\n'
        '[proxy.databases.stats]\npool_size = 2\nsettings = { statement_timeout = "5s" }\n'
    )
    assert made["databases"] == {
        "app": {"pool_mode": "session", "pool_size": 7, "dbname": None, "settings": {}},
        "stats": {
            "pool_mode": "transaction",
            "pool_size": 2,
            "dbname": None,
            "settings": {"statement_timeout": "5s"},
        },
    }


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
