"""[proxy] of flightmode.toml: the pool beside an application."""

from typing import Any, Literal

from pydantic import Field

from flightmode.config.section import Location, Section, seconds

PoolMode = Literal["transaction", "session", "statement"]


class ProxyPool(Section):
    """How clients of a database, or one user, share servers; what is not said is as in [proxy]."""

    pool_mode: PoolMode | None = Field(default=None, description="See `proxy.pool_mode`.")
    pool_size: int | None = Field(
        default=None, ge=1, le=10_000, description="See `proxy.pool_size`."
    )
    min_pool_size: int | None = Field(
        default=None, ge=0, le=10_000, description="See `proxy.min_pool_size`."
    )
    reserve: int | None = Field(default=None, ge=0, le=10_000, description="See `proxy.reserve`.")
    max_db_connections: int | None = Field(
        default=None, ge=0, le=100_000, description="See `proxy.max_db_connections`."
    )
    query_wait_s: float | None = Field(
        default=None,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="See `proxy.query_wait_s`.",
    )
    max_clients: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="See `proxy.max_clients_per_database`.",
    )
    dbname: str | None = Field(
        default=None, min_length=1, description="Its name at the server, if that is another."
    )
    user: str | None = Field(
        default=None,
        min_length=1,
        description="Who logs in at the server, whoever the client is: all of its clients share "
        "this user's pool, and its rights.",
    )
    secret_file: Location | None = Field(
        default=None,
        description="The password of `user` on one line, mode 0600; without it the one that "
        "`users_file` has.",
    )
    settings: dict[str, str] = Field(
        default={}, description="Settings of PostgreSQL that its sessions begin with."
    )


def _own_seconds(le: float) -> Any:
    """A limit of time of one user."""
    words = "Instead of the one of `[proxy]`, for clients of this user."
    return Field(default=None, ge=0, le=le, allow_inf_nan=False, description=words)


class ProxyUser(Section):
    """Limits of one user."""

    pool_mode: PoolMode | None = Field(default=None, description="See `proxy.pool_mode`.")
    max_connections: int = Field(
        default=0, ge=0, le=1_000_000, description="So many of its clients at once; 0: no limit."
    )
    max_servers: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="So many servers for it at once, in all databases; 0: no limit.",
    )
    pool_size: int | None = Field(
        default=None, ge=1, le=10_000, description="Of its pools, instead of the database's."
    )
    reserve: int | None = Field(
        default=None, ge=0, le=10_000, description="Of its pools, instead of the database's."
    )
    query_wait_s: float | None = _own_seconds(3600)
    client_idle_s: float | None = _own_seconds(864000)
    idle_in_transaction_s: float | None = _own_seconds(86400)
    query_s: float | None = _own_seconds(86400)


class ProxyRule(Section):
    """Who may come to the proxy from where; the first rule that fits decides."""

    type: Literal["local", "host", "hostssl", "hostnossl"] = Field(
        default="host", description="As in pg_hba.conf."
    )
    database: str = Field(default="all", min_length=1, description="Database names, or `all`.")
    user: str = Field(default="all", min_length=1, description="Role names, or `all`.")
    address: str | None = Field(
        default=None, description="From where: like 10.0.0.0/8, or `all`; without it: anywhere."
    )
    method: Literal["scram-sha-256", "md5", "cert", "trust", "reject"] = Field(
        default="scram-sha-256", description="How they prove who they are."
    )


class ProxyAuthQuery(Section):
    """Secrets of users that the users file does not have are asked of the database."""

    user: str = Field(
        min_length=1,
        description="Who asks: a role of the database that may read the secrets, and nothing else.",
    )
    secret_file: Location = Field(description="Its password on one line, mode 0600.")
    database: str = Field(default="postgres", min_length=1, description="Where it asks.")
    sql: str = Field(
        default="SELECT rolpassword FROM pg_authid WHERE rolname = $1 AND rolcanlogin "
        "AND (rolvaliduntil IS NULL OR rolvaliduntil > now())",
        min_length=1,
        description="How it asks: `$1` is the user's name, the last column the secret. The "
        "`search_path` is `pg_catalog` alone; a function of your own needs its schema.",
    )


class Proxy(Section):
    """The pool beside an application: `flightmode proxy`."""

    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        max_length=253,
        description="Where it listens. Beyond this machine only with `tls_cert` and `tls_key`.",
    )
    port: int = Field(default=6432, ge=1, le=65535, description="Where it listens.")
    socket_dir: Location | None = Field(
        default=None, description="Also listen on `.s.PGSQL.<port>` in this directory."
    )
    tls_cert: Location | None = Field(
        default=None, description="The certificate that clients see; with it TLS is offered."
    )
    tls_key: Location | None = Field(default=None, description="Its key, mode 0600.")
    tls_client_ca: Location | None = Field(
        default=None, description="Who signs certificates of clients, for the method `cert`."
    )
    users_file: Location | None = Field(
        default=None,
        description='Who may come in: a line `"name" "password or SCRAM secret"` each, mode 0600. '
        "Without it the user `app`, with the password that `init` made.",
    )
    pool_mode: PoolMode = Field(
        default="transaction",
        description="When a server goes back to the others: after each transaction, statement, or "
        "session.",
    )
    pool_size: int = Field(
        default=20, ge=1, le=10_000, description="Servers for each database and user."
    )
    min_pool_size: int = Field(
        default=0, ge=0, le=10_000, description="So many of them are kept open, used or not."
    )
    reserve: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="So many more while somebody has waited for five seconds.",
    )
    max_db_connections: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="Servers of one database for all its users together; 0: no limit.",
    )
    max_prepared: int = Field(
        default=200, ge=1, le=100_000, description="Prepared statements that a server keeps."
    )
    max_clients: int = Field(
        default=10_000, ge=1, le=1_000_000, description="More clients than this are refused."
    )
    max_clients_per_address: int = Field(
        default=0, ge=0, le=1_000_000, description="And so many from one address; 0: no limit."
    )
    max_clients_per_user: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="Of one user, unless `proxy.users` says it; 0: no limit.",
    )
    max_clients_per_database: int = Field(
        default=0, ge=0, le=1_000_000, description="And of one database; 0: no limit."
    )
    proxy_protocol: bool = Field(
        default=False,
        description="Each connection by TCP begins with a PROXY header, version 1 or 2, that says "
        "whom it is from. Only where nobody but your balancer reaches the port: anybody could "
        "write one.",
    )
    hold_for_s: float = seconds(
        30.0, 0, 3600, "So long a client is held while nobody takes writes; then it gets an error."
    )
    query_wait_s: float = seconds(
        120.0,
        0,
        3600,
        "So long a client waits while all servers of its pool serve others; 0: `hold_for_s`. If "
        "it is less than `hold_for_s`, a client is held no longer than this.",
    )
    idle_in_transaction_s: float = seconds(
        0.0, 0, 86400, "A client that idles in a transaction for so long is ended; 0: never."
    )
    query_s: float = seconds(0.0, 0, 86400, "A longer statement is cancelled; 0: never.")
    client_idle_s: float = seconds(
        0.0, 0, 864000, "A client that says nothing for so long is ended; 0: never."
    )
    server_idle_s: float = seconds(600.0, 1, 864000, "An idle server is closed after so long.")
    server_lifetime_s: float = seconds(
        3600.0, 10, 864000, "A server of that age is closed when it is free."
    )
    memory_mb: int = Field(
        default=256, ge=16, le=65536, description="Above it nobody new is let in."
    )
    stop_grace_s: float = seconds(
        10.0, 0, 3600, "When it is stopped, clients may end their transactions for so long."
    )
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Where Prometheus finds its metrics, on this machine only.",
    )
    shards: int = Field(
        default=1, ge=1, le=64, description="Threads; each has its part of every pool."
    )
    admin_users: tuple[str, ...] = Field(
        default=(), description="Who may give orders on the database `flightmode`."
    )
    stats_users: tuple[str, ...] = Field(default=(), description="Who may only look there.")
    admin_names: tuple[str, ...] = Field(
        default=(),
        description="Other names of the database `flightmode`: `pgbouncer`, for monitoring that "
        "was made for it.",
    )
    databases: dict[str, ProxyPool] = Field(
        default={}, description="Pools by database; without any, every database is served."
    )
    users: dict[str, ProxyUser] = Field(default={}, description="Limits by user.")
    auth_query: ProxyAuthQuery | None = Field(
        default=None, description="Where secrets are asked for that `users_file` does not have."
    )
    hba: tuple[ProxyRule, ...] = Field(
        default=(),
        description="Who may come from where. Without a rule: anybody with a password, from this "
        "machine, and with TLS from elsewhere.",
    )
