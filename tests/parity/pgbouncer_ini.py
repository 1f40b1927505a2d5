"""PgBouncer's configuration as ours: pure, for running its own tests against us.

What we have no word for is named, never silently dropped: `Translation.unknown`.
"""

import re
from collections import Counter
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
    "user": "user",
    "max_db_client_connections": "max_clients",
    "query_wait_timeout": "query_wait_s",
}
USER = {
    "pool_mode": "pool_mode",
    "max_user_connections": "max_servers",
    "max_user_client_connections": "max_connections",
    "pool_size": "pool_size",
    "reserve_pool_size": "reserve",
    "query_wait_timeout": "query_wait_s",
    "query_timeout": "query_s",
    "idle_transaction_timeout": "idle_in_transaction_s",
    "client_idle_timeout": "client_idle_s",
}
THEIR_OWN = {
    "pool_mode": "session",
    "default_pool_size": "20",
    "max_client_conn": "100",
    "client_login_timeout": "60",
    "server_connect_timeout": "15",
}
"""What they do when nothing is said, where we do something else."""
AUTH_QUERY = (
    "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END "
    "FROM pg_authid WHERE rolname = $1 AND rolcanlogin"
)
"""Theirs, when nothing is said."""
DEFAULTS = {
    "default_pool_size": "pool_size",
    "min_pool_size": "min_pool_size",
    "reserve_pool_size": "reserve",
    "max_db_connections": "max_db_connections",
    "pool_mode": "pool_mode",
}
METHODS = {"trust", "reject", "md5", "scram-sha-256", "cert"}
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
    files: dict[Path, str] = field(default_factory=dict)
    """To be written, with mode 0600, before it is used: what a secret is read from."""


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


def read_users(text: str) -> Words:
    """The names and secrets of an auth_file."""
    quoted = r'"((?:[^"]|"")*)"'
    found = re.finditer(rf"^{quoted}\s+{quoted}", text, re.MULTILINE)
    return {m[1].replace('""', '"'): m[2].replace('""', '"') for m in found}


def translate(
    ini: Ini,
    sockets: Path,
    admin: Path,
    clients: Path | None = None,
    users: Words | None = None,
) -> Translation:
    """`sockets` is its unix_socket_dir, `admin` and `clients` are sockets of ours, `users` what its
    auth_file says.
    """
    unknown: list[str] = []
    files: dict[Path, str] = {}
    settings = THEIR_OWN | ini.settings
    port = int(settings.get("listen_port", "6432"))
    listen: list[dict[str, Any]] = [
        {"host": settings.get("listen_addr", "127.0.0.1"), "port": port}
    ]
    if clients is not None:
        listen.append({"unix": str(clients), "mode": "0666"})
    nodes, databases = _databases(ini, settings, sockets, files, unknown)
    config: dict[str, Any] = {
        "listen": listen,
        "nodes": nodes,
        "databases": databases,
        "users": _users(ini, unknown),
        "auth": _auth(settings, users or {}, _asking(ini), unknown)
        | {"query": _auth_query(ini, settings, users or {}, sockets, files, unknown)},
        "client_tls": _client_tls(settings),
        "server_tls": _server_tls(settings),
        "admin": {
            "unix": str(admin),
            "users": ["pgbouncer", *_names(settings.get("admin_users", ""))],
            "stats_users": _names(settings.get("stats_users", "")),
            "names": ["pgbouncer"],
        },
        "limits": {ours: int(settings[its]) for its, ours in LIMITS.items() if its in settings},
        "times": {ours: _seconds(settings[its]) for its, ours in TIMES.items() if its in settings},
        "ignore_startup": _names(settings.get("ignore_startup_parameters", "")),
        "max_prepared": int(settings.get("max_prepared_statements", "200")),
    }
    preauth_s = config["times"].pop("preauth_s", None)
    if preauth_s is not None:
        config["limits"]["preauth_s"] = preauth_s
    known = {*TIMES, *LIMITS, *DEFAULTS, *OF_THE_PROCESS}
    unknown += [f"setting {name}" for name in settings if name not in known]
    return Translation(config, unknown, files)


def _seconds(text: str) -> float | str:
    """What is no number is for the proxy to refuse."""
    return float(text) if re.fullmatch(r"[0-9.]+", text) else text


def _names(text: str) -> list[str]:
    return [name for name in re.split(r"[,\s]+", text) if name]


def _number(name: str, value: str) -> Any:
    return value if name in ("pool_mode", "dbname", "user") else int(value)


def _databases(
    ini: Ini, settings: Words, sockets: Path, files: dict[Path, str], unknown: list[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """We have one cluster: its primary is the address that most lines name."""
    defaults = {
        ours: _number(ours, settings[its]) for its, ours in DEFAULTS.items() if its in settings
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
            elif word == "password":
                path = sockets / f"secret-of-{name}"
                files[path] = value
                databases[name]["secret_file"] = str(path)
            elif word not in ("host", "port", "auth_user", "auth_dbname"):
                unknown.append(f"database {name}: {word}")
    return {"pg": {"host": node[0], "port": node[1]}}, databases


def _address(words: Words) -> tuple[str, int]:
    return words.get("host", "127.0.0.1").split(",")[0], int(
        words.get("port", "5432").split(",")[0]
    )


def _users(ini: Ini, unknown: list[str]) -> dict[str, Any]:
    words = USER
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


def _asking(ini: Ini) -> list[str]:
    """The databases for which users that the auth_file lacks are asked for."""
    if "auth_user" in ini.settings:
        return ["all"]
    return [name for name, words in ini.databases.items() if "auth_user" in words]


def _auth_query(
    ini: Ini,
    settings: Words,
    users: Words,
    sockets: Path,
    files: dict[Path, str],
    unknown: list[str],
) -> dict[str, Any] | None:
    """They ask in the client's own database, or in `auth_dbname`; we ask in one for all."""
    found: Counter[tuple[str, str]] = Counter()
    for name, words in ini.databases.items():
        user = words.get("auth_user", settings.get("auth_user"))
        where = words.get("auth_dbname", settings.get("auth_dbname")) or name
        if user:
            real = ini.databases.get(where, {}).get("dbname", where)
            found[user, "postgres" if real == "*" else real] += 1
    if not found:
        return None
    (user, database), _ = found.most_common(1)[0]
    others = sorted(set(found) - {(user, database)})
    unknown += [f"another auth_query: of {each} in {where}" for each, where in others]
    path = sockets / "secret-of-auth-user"
    files[path] = users.get(user, "")
    return {
        "user": user,
        "database": database,
        "secret_file": str(path),
        "sql": settings.get("auth_query", AUTH_QUERY),
    }


def _auth(settings: Words, users: Words, asking: list[str], unknown: list[str]) -> dict[str, Any]:
    kind = settings.get("auth_type", "md5").strip("'\"")
    auth: dict[str, Any] = {"rules": [], "users_file": settings.get("auth_file") or None}
    match kind:
        case "hba":
            text = Path(settings["auth_hba_file"]).read_text()
            auth["rules"] = list(hba_rules(text.splitlines(), unknown))
        case "trust" if users:
            # Whom they do not know they do not trust.
            known = ("all", ",".join(users))
            pairs = [known, (",".join(asking), "all")] if asking else [known]
            auth["rules"] = [rule(how, *pair, kind) for how in ("local", "host") for pair in pairs]
        case "trust" | "md5" | "scram-sha-256" | "cert":
            auth["rules"] = [rule(how, "all", "all", kind) for how in ("local", "host")]
        case "any":
            auth["rules"] = [rule(how, "all", "all", "trust") for how in ("local", "host")]
        case _:
            unknown.append(f"auth_type {kind}")
            auth["rules"] = [rule(how, "all", "all", "reject") for how in ("local", "host")]
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
        if words[-1] not in METHODS:
            unknown.append(f"method {words[-1]}")
            words[-1] = "reject"
        address = "0.0.0.0/0" if local else words[3]
        yield rule(words[0], words[1].strip('"'), words[2].strip('"'), words[-1], address)
