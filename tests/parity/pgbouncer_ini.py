"""PgBouncer's configuration as ours: pure, for running its own tests against us.

What we have no word for is named, never silently dropped: `Translation.unknown`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Words = dict[str, str]

TIMES = {
    "query_wait_timeout": "query_wait_s",
    "server_connect_timeout": "server_connect_s",
    "server_idle_timeout": "server_idle_s",
    "server_lifetime": "server_lifetime_s",
    "client_idle_timeout": "client_idle_s",
    "idle_transaction_timeout": "idle_in_transaction_s",
    "query_timeout": "query_s",
    "client_login_timeout": "preauth_s",
}
LIMITS = {
    "max_client_conn": "max_clients",
    "max_db_client_connections": "per_database",
    "max_user_client_connections": "per_user",
}
POOL = {
    "pool_size": "pool_size",
    "min_pool_size": "min_pool_size",
    "reserve_pool": "reserve",
    "reserve_pool_size": "reserve",
    "max_db_connections": "max_db_connections",
    "pool_mode": "pool_mode",
    "dbname": "dbname",
}
DEFAULTS = {
    "default_pool_size": "pool_size",
    "min_pool_size": "min_pool_size",
    "reserve_pool_size": "reserve",
    "max_db_connections": "max_db_connections",
    "pool_mode": "pool_mode",
}
OF_THE_PROCESS = {
    "listen_addr",
    "listen_port",
    "unix_socket_dir",
    "logfile",
    "pidfile",
    "auth_file",
    "auth_type",
    "auth_hba_file",
    "admin_users",
    "stats_users",
    "tcp_defer_accept",
    "tcp_keepalive",
    "tcp_socket_buffer",
    "verbose",
    "server_check_delay",
    "client_tls_sslmode",
    "client_tls_key_file",
    "client_tls_cert_file",
    "client_tls_ca_file",
    "server_tls_sslmode",
    "server_tls_ca_file",
    "server_tls_cert_file",
    "server_tls_key_file",
    "ignore_startup_parameters",
    "max_prepared_statements",
    "auth_user",
    "auth_query",
    "auth_dbname",
}


@dataclass
class Ini:
    """The three sections that PgBouncer knows."""

    databases: dict[str, Words] = field(default_factory=dict)
    users: dict[str, Words] = field(default_factory=dict)
    settings: Words = field(default_factory=dict)


@dataclass
class Translation:
    """Config as JSON will say it, and what of the original has no word in it."""

    config: dict[str, Any]
    unknown: list[str]


def read(text: str) -> Ini:
    """Later lines win, as they do there."""
    ini = Ini()
    section = ""
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line[0] in ";#":
            continue
        if line.startswith("["):
            section = line.strip("[]")
            continue
        name, _, value = (part.strip() for part in line.partition("="))
        match section:
            case "databases":
                ini.databases[name.strip('"')] = connection_words(value)
            case "users":
                ini.users[name.strip('"')] = connection_words(value)
            case _:
                ini.settings[name.lower()] = value
    return ini


def connection_words(text: str) -> Words:
    """`a=b c='it''s'` as libpq and PgBouncer write it."""
    found = re.finditer(r"(\w+)\s*=\s*(?:'((?:[^']|'')*)'|(\S+))", text)
    return {m[1].lower(): (m[2] or "").replace("''", "'") if m[3] is None else m[3] for m in found}


def translate(ini: Ini, sockets: Path, admin: Path, clients: Path | None = None) -> Translation:
    """`sockets` is its unix_socket_dir, `admin` and `clients` are sockets of ours."""
    unknown: list[str] = []
    settings = ini.settings
    port = int(settings.get("listen_port", "6432"))
    listen: list[dict[str, Any]] = [
        {"host": settings.get("listen_addr", "127.0.0.1"), "port": port}
    ]
    if clients is not None:
        listen.append({"unix": str(clients), "mode": "0666"})
    nodes, databases = _databases(ini, unknown)
    config: dict[str, Any] = {
        "listen": listen,
        "nodes": nodes,
        "databases": databases,
        "users": _users(ini, unknown),
        "auth": _auth(settings, unknown),
        "client_tls": _client_tls(settings),
        "server_tls": _server_tls(settings),
        "admin": {
            "unix": str(admin),
            "users": ["pgbouncer", *_names(settings.get("admin_users", ""))],
            "stats_users": _names(settings.get("stats_users", "")),
            "names": ["pgbouncer"],
        },
        "limits": {ours: int(settings[its]) for its, ours in LIMITS.items() if its in settings},
        "times": {ours: float(settings[its]) for its, ours in TIMES.items() if its in settings},
        "ignore_startup": _names(settings.get("ignore_startup_parameters", "")),
        "max_prepared": int(settings.get("max_prepared_statements", "200")),
    }
    preauth_s = config["times"].pop("preauth_s", None)
    if preauth_s is not None:
        config["limits"]["preauth_s"] = preauth_s
    known = {*TIMES, *LIMITS, *DEFAULTS, *OF_THE_PROCESS}
    unknown += [f"setting {name}" for name in settings if name not in known]
    return Translation(config, unknown)


def _names(text: str) -> list[str]:
    return [name for name in re.split(r"[,\s]+", text) if name]


def _number(name: str, value: str) -> Any:
    return value if name in ("pool_mode", "dbname") else int(value)


def _databases(ini: Ini, unknown: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """We have one cluster: its primary is the address that most lines name."""
    defaults = {
        ours: _number(ours, ini.settings[its])
        for its, ours in DEFAULTS.items()
        if its in ini.settings
    }
    addresses = [_address(words) for words in ini.databases.values()]
    node = max(set(addresses), key=addresses.count, default=("127.0.0.1", 5432))
    databases: dict[str, Any] = {}
    for name, words in ini.databases.items():
        databases[name] = defaults | {"dbname": words.get("dbname", name if name != "*" else None)}
        if _address(words) != node:
            unknown.append(f"database {name}: another host")
        for word, value in words.items():
            if word in POOL:
                databases[name][POOL[word]] = _number(POOL[word], value)
            elif word == "client_encoding":
                databases[name].setdefault("settings", {})[word] = value
            elif word not in ("host", "port"):
                unknown.append(f"database {name}: {word}")
    return {"pg": {"host": node[0], "port": node[1]}}, databases


def _address(words: Words) -> tuple[str, int]:
    return words.get("host", "127.0.0.1").split(",")[0], int(
        words.get("port", "5432").split(",")[0]
    )


def _users(ini: Ini, unknown: list[str]) -> dict[str, Any]:
    words = {"pool_mode": "pool_mode", "max_user_connections": "max_connections"}
    users: dict[str, Any] = {}
    for name, settings in ini.users.items():
        users[name] = {
            words[word]: _number(words[word], value)
            for word, value in settings.items()
            if word in words
        }
        unknown += [f"user {name}: {word}" for word in settings if word not in words]
    return users


def _client_tls(settings: Words) -> dict[str, Any]:
    mode = settings.get("client_tls_sslmode", "disable")
    ours = {"disable": "disable", "allow": "allow", "prefer": "allow"}.get(mode, "require")
    return {
        "mode": ours,
        "cert": settings.get("client_tls_cert_file") or None,
        "key": settings.get("client_tls_key_file") or None,
        "client_ca": settings.get("client_tls_ca_file") or None,
    }


def _server_tls(settings: Words) -> dict[str, Any]:
    mode = settings.get("server_tls_sslmode", "disable")
    ours = {"allow": "prefer", "verify-ca": "verify-full"}.get(mode, mode)
    return {
        "mode": ours,
        "ca": settings.get("server_tls_ca_file") or None,
        "cert": settings.get("server_tls_cert_file") or None,
        "key": settings.get("server_tls_key_file") or None,
    }


def _auth(settings: Words, unknown: list[str]) -> dict[str, Any]:
    kind = settings.get("auth_type", "md5").strip("'\"")
    auth: dict[str, Any] = {"rules": [], "users_file": settings.get("auth_file") or None}
    match kind:
        case "hba":
            text = Path(settings["auth_hba_file"]).read_text()
            auth["rules"] = list(hba_rules(text.splitlines(), unknown))
        case "trust" | "md5" | "scram-sha-256" | "cert":
            # A password of either kind is good where it says md5.
            auth["rules"] = [rule(how, "all", "all", kind) for how in ("local", "host")]
        case "any":
            auth["rules"] = [rule(how, "all", "all", "trust") for how in ("local", "host")]
        case _:
            unknown.append(f"auth_type {kind}")
            auth["rules"] = [rule(how, "all", "all", "reject") for how in ("local", "host")]
    for word in ("auth_user", "auth_dbname"):
        if settings.get(word):
            unknown.append(f"setting {word}")
    return auth


def rule(how: str, database: str, user: str, method: str, address: str = "0.0.0.0/0") -> Words:
    found = {"type": how, "database": database, "user": user, "method": method}
    return found if how == "local" else found | {"address": address}


def hba_rules(lines: Iterable[str], unknown: list[str]) -> Iterable[Words]:
    """Those of one word each; maps and lists have none of ours."""
    for line in lines:
        words = line.split("#")[0].split()
        if not words:
            continue
        local = words[0] == "local"
        if len(words) != (4 if local else 5):
            unknown.append(f"hba line {line.strip()}")
            continue
        address = "0.0.0.0/0" if local else words[3]
        yield rule(words[0], words[1].strip('"'), words[2].strip('"'), words[-1], address)
