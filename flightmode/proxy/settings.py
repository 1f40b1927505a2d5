"""flightmode.toml -> what the data path is told to be (`rust/proxy/src/config.rs`).  Pure."""

from dataclasses import dataclass
from pathlib import Path

from flightmode.config import Config
from flightmode.config.proxy import Proxy, ProxyPool
from flightmode.model.member import NodeKind

Settings = dict[str, object]

SERVER_CONNECT_S = 1.0
"""A server that takes longer to answer is tried again: as long as the client is held."""

_OF_ALL = ("pool_mode", "pool_size", "min_pool_size", "reserve", "max_db_connections")
"""What a pool takes from `[proxy]` when it does not say it itself."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a proxy finds its files, on whatever host it runs."""

    tls_dir: Path
    tls_stem: str
    """`client` for ca.crt, client.crt and client.key; `node` on a node."""
    secrets_dir: Path
    run_dir: Path


def settings_of(config: Config, *, users_file: Path, ca: Path, admin_socket: Path) -> Settings:
    """The whole of it.

    `users_file`: who may come in.  `ca`: who signed the servers' certificates.
    """
    proxy = config.proxy
    return {
        "listen": _listen(proxy),
        "shards": proxy.shards,
        "client_tls": _client_tls(proxy),
        "server_tls": {"mode": "verify-full", "ca": str(ca)}
        if config.postgres.tls
        else {"mode": "disable"},
        "nodes": {
            name: {"host": node.host, "port": node.postgres_port}
            for name, node in config.nodes.items()
            if node.kind is NodeKind.DATABASE
        },
        "databases": _databases(proxy),
        "users": {name: user.model_dump() for name, user in proxy.users.items()},
        "auth": {
            "rules": _rules(proxy),
            "users_file": str(users_file),
            "query": _auth_query(proxy),
        },
        "max_prepared": proxy.max_prepared,
        "proxy_protocol": proxy.proxy_protocol,
        "admin": {
            "unix": str(admin_socket),
            "users": list(proxy.admin_users),
            "stats_users": list(proxy.stats_users),
            "names": list(proxy.admin_names),
        },
        "limits": {
            "max_clients": proxy.max_clients,
            "per_user": proxy.max_clients_per_user,
            "per_database": proxy.max_clients_per_database,
            "per_ip": proxy.max_clients_per_address,
            "memory_mb": proxy.memory_mb,
        },
        "times": {
            "hold_for_s": proxy.hold_for_s,
            "query_wait_s": proxy.query_wait_s,
            "server_connect_s": SERVER_CONNECT_S,
            "server_idle_s": proxy.server_idle_s,
            "server_lifetime_s": proxy.server_lifetime_s,
            "client_idle_s": proxy.client_idle_s,
            "idle_in_transaction_s": proxy.idle_in_transaction_s,
            "query_s": proxy.query_s,
        },
    }


def _listen(proxy: Proxy) -> list[Settings]:
    places: list[Settings] = [{"host": proxy.host, "port": proxy.port}]
    if proxy.socket_dir is not None:
        places.append({"unix": str(proxy.socket_dir / f".s.PGSQL.{proxy.port}"), "mode": "0777"})
    return places


def _client_tls(proxy: Proxy) -> Settings:
    if proxy.tls_cert is None:
        return {"mode": "disable"}
    # Which connections may do without is the business of the rules, as in pg_hba.conf.
    return {
        "mode": "allow",
        "cert": str(proxy.tls_cert),
        "key": str(proxy.tls_key),
        "client_ca": None if proxy.tls_client_ca is None else str(proxy.tls_client_ca),
    }


def _databases(proxy: Proxy) -> dict[str, Settings]:
    common: Settings = {key: getattr(proxy, key) for key in _OF_ALL}
    if not proxy.databases:
        return {"*": common}
    return {
        name: {key: _own_or(common, pool, key) for key in _OF_ALL}
        | {
            "dbname": pool.dbname,
            "settings": pool.settings,
            "query_wait_s": pool.query_wait_s,
            "max_clients": pool.max_clients or 0,
            "user": pool.user,
            "secret_file": None if pool.secret_file is None else str(pool.secret_file),
        }
        for name, pool in proxy.databases.items()
    }


def _own_or(common: Settings, pool: ProxyPool, key: str) -> object:
    own: object = getattr(pool, key)
    return common[key] if own is None else own


def _auth_query(proxy: Proxy) -> Settings | None:
    query = proxy.auth_query
    return None if query is None else query.model_dump(mode="json")


def _rules(proxy: Proxy) -> list[Settings]:
    if proxy.hba:
        return [rule.model_dump() for rule in proxy.hba]
    here = ("127.0.0.0/8", "::1/128")
    rules: list[Settings] = [{"type": "local", "method": "scram-sha-256"}]
    rules += [{"type": "host", "address": net, "method": "scram-sha-256"} for net in here]
    if proxy.tls_cert is not None:
        rules += [{"type": "hostssl", "address": "all", "method": "scram-sha-256"}]
    return rules
