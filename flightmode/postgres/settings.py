"""The text of what Postgres reads at its start and at each reload.  Pure.

Our settings stand in `flightmode.conf`, included last by postgresql.conf, and our own
pg_hba and pg_ident files stand beside it, so that an adopted server keeps its own.
Sources: Postgres manual, chapters 20 (server configuration), 21 (authentication).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import MappingProxyType
from typing import Final

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from flightmode.config.check import RESERVED_PARAMETERS
from flightmode.model.server import NOT_OURS

CONF: Final = "flightmode.conf"
HBA: Final = "flightmode_hba.conf"
IDENT: Final = "flightmode_ident.conf"
INCLUDE: Final = f"include '{CONF}'"
SIGNAL: Final = "standby.signal"

REPLICATION: Final = "flightmode_replication"
REWIND: Final = "flightmode_rewind"
MONITOR: Final = "flightmode_monitor"
APPLICATION: Final = "app"
SUPERUSER: Final = "postgres"

SLOT_KEEP_LEAST_MB: Final = 256

_OPEN: Final = "# clients are let in"
_CLOSED: Final = "# only our own roles are let in"


_TARGETS: Final = tuple(f"recovery_target{kind}" for kind in ("", "_lsn", "_name", "_time", "_xid"))


@dataclass(frozen=True, slots=True)
class Peer:
    """Another database node."""

    name: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class PostgresConfig:
    """Everything that the hand needs to know of its node."""

    name: str
    host: str
    port: int
    data_dir: Path
    bin_dir: Path
    socket_dir: Path
    secrets_dir: Path
    log: Path
    """Where Postgres writes what it says."""
    tls_dir: Path | None
    """ca.crt, node.crt, node.key; None: a Postgres without TLS."""
    peers: tuple[Peer, ...]
    parameters: tuple[tuple[str, str], ...]
    """The user's, as text."""
    hba: tuple[str, ...]
    """The user's lines of pg_hba.conf."""
    user: str
    uid: int
    gid: int
    pg_major: int

    @property
    def passfile(self) -> Path:
        """The passwords of our roles for connections to the peers."""
        return self.socket_dir / "pgpass"

    def peer(self, name: str) -> Peer:
        return next(peer for peer in self.peers if peer.name == name)


@dataclass(frozen=True, slots=True)
class Changing:
    """The part of our settings that follows the cluster."""

    following: str | None
    sync_names: tuple[str, ...]


def quoted(value: str) -> str:
    """A value as postgresql.conf wants it (manual, 20.1.2)."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def conf(
    config: PostgresConfig,
    changing: Changing,
    slot_keep_mb: int,
    floors: Mapping[str, int] = MappingProxyType({}),
) -> str:
    """The text of flightmode.conf: the user's parameters, then ours, which win.

    `floors`: what a standby must not be below, and would be.
    """
    settings = dict(config.parameters)
    settings.update(_fixed(config, slot_keep_mb))
    settings.update({name: str(value) for name, value in floors.items()})
    settings["synchronous_standby_names"] = sync_names_text(changing.sync_names)
    following = changing.following
    settings["primary_conninfo"] = "" if following is None else conninfo(config, following)
    settings["primary_slot_name"] = "" if following is None else slot_name(config.name)
    lines = [f"{name} = {quoted(value)}" for name, value in settings.items()]
    return "\n".join(
        ["# Written by Flightmode at each change; edit flightmode.toml instead.", *lines, ""]
    )


def _fixed(config: PostgresConfig, slot_keep_mb: int) -> dict[str, str]:
    tls = config.tls_dir
    encryption = (
        {"ssl": "off"}
        if tls is None
        else {
            "ssl": "on",
            "ssl_ca_file": str(tls / "ca.crt"),
            "ssl_cert_file": str(tls / "node.crt"),
            "ssl_key_file": str(tls / "node.key"),
        }
    )
    user = dict(config.parameters)
    return {
        "listen_addresses": config.host,
        "port": str(config.port),
        "unix_socket_directories": str(config.socket_dir),
        "unix_socket_permissions": "0700",
        "hba_file": str(config.data_dir / HBA),
        "ident_file": str(config.data_dir / IDENT),
        "cluster_name": config.name,
        "password_encryption": "scram-sha-256",
        "wal_level": "logical" if user.get("wal_level") == "logical" else "replica",
        "hot_standby": "on",
        "fsync": "on",
        "full_page_writes": "on",
        "wal_log_hints": "on",
        # Anything lower acknowledges what a standby may not have (S2).
        "synchronous_commit": "on",
        "max_wal_senders": user.get("max_wal_senders", "10"),
        "max_replication_slots": user.get("max_replication_slots", "10"),
        "wal_keep_size": user.get("wal_keep_size", "256MB"),
        "max_slot_wal_keep_size": f"{slot_keep_mb}MB",
        # 5 s, the default, now and then costs a standby those 5 s at a switchover.
        "wal_retrieve_retry_interval": "100ms",
        "wal_receiver_status_interval": "1s",
        "wal_receiver_timeout": "4s",
        "wal_sender_timeout": "4s",
        "tcp_keepalives_idle": "2",
        "tcp_keepalives_interval": "1",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "5000",
        # After a crash the agent decides who goes on, not the postmaster.
        "restart_after_crash": "off",
        "recovery_target_timeline": "latest",
        # A restore in the past may have left one; a standby would stop there.
        **dict.fromkeys(_TARGETS, ""),
        "recovery_min_apply_delay": "0",
        "logging_collector": "off",
        "log_destination": "stderr",
        **encryption,
    }


def conninfo(config: PostgresConfig, member: str, user: str = REPLICATION, **more: str) -> str:
    """How to reach a peer with one of our roles; the password is in the password file."""
    peer = config.peer(member)
    tls = config.tls_dir
    encryption = (
        {"sslmode": "disable"}
        if tls is None
        else {
            "sslmode": "verify-full",
            "sslrootcert": str(tls / "ca.crt"),
        }
    )
    return make_conninfo(
        host=peer.host,
        port=peer.port,
        user=user,
        passfile=str(config.passfile),
        application_name=config.name,
        connect_timeout="2",
        keepalives_idle="2",
        keepalives_interval="1",
        keepalives_count="3",
        tcp_user_timeout="5000",
        **encryption,
        **more,
    )


def sync_names_text(names: tuple[str, ...]) -> str:
    """Exact names, never `*` (S2)."""
    listed = ", ".join(f'"{name}"' for name in sorted(names))
    return f"ANY 1 ({listed})" if names else ""


def parse_sync_names(text: str) -> tuple[str, ...]:
    """The members in a synchronous_standby_names that we wrote; NOT_OURS for any other text."""
    if not text.strip():
        return ()
    names = tuple(
        part.strip().strip('"') for part in text.partition("(")[2].rstrip(") ").split(",")
    )
    return tuple(sorted(names)) if sync_names_text(names) == text else NOT_OURS


def changing_of(conf_text: str, config: PostgresConfig) -> Changing:
    """The opposite of `conf`, for the part that follows the cluster."""
    values = {
        name.strip(): value.strip().strip("'").replace("''", "'")
        for name, equals, value in (line.partition("=") for line in conf_text.splitlines())
        if equals
    }
    where = conninfo_to_dict(values.get("primary_conninfo", ""))
    address = (where.get("host"), str(where.get("port")))
    named = (peer.name for peer in config.peers if (peer.host, str(peer.port)) == address)
    following = next(named, None)
    return Changing(following, parse_sync_names(values.get("synchronous_standby_names", "")))


def parameters_of(conf_text: str) -> tuple[tuple[str, str], ...]:
    """The opposite of `conf`, for everything in it: what is ours is overwritten in any case."""
    lines = (line.partition(" = ") for line in conf_text.splitlines())
    return tuple((name, _unquoted(value)) for name, equals, value in lines if equals)


def _unquoted(value: str) -> str:
    return value[1:-1].replace("''", "'").replace("\\\\", "\\")


def slot_name(member: str) -> str:
    """The physical slot of a member; config holds names to what Postgres allows for slots."""
    return member


def hba(config: PostgresConfig, *, admit: bool) -> str:
    """Our rules first; the user's only when clients are let in (S8)."""
    how = "host" if config.tls_dir is None else "hostssl"
    hosts = [_address(peer.host) for peer in config.peers]
    lines = [
        _OPEN if admit else _CLOSED,
        f"local all {SUPERUSER} peer map=flightmode",
        f"local all {MONITOR} peer map=flightmode",
        *(f"{how} replication {REPLICATION} {host} scram-sha-256" for host in hosts),
        *(f"{how} all {REWIND} {host} scram-sha-256" for host in hosts),
        *(f"{how} all {MONITOR} {host} scram-sha-256" for host in hosts),
        f"host all {REPLICATION},{REWIND} all reject",
        *(config.hba if admit else ()),
    ]
    return "\n".join([*lines, ""])


def admits(hba_text: str) -> bool:
    """Whether a text that `hba` wrote lets clients in."""
    return not hba_text.startswith(_CLOSED)


def ident(config: PostgresConfig) -> str:
    """The system users that may be our local roles: root, and the one Postgres runs as."""
    users = dict.fromkeys((config.user, "root"))
    roles = (SUPERUSER, MONITOR)
    return "".join(f"flightmode {user} {role}\n" for user in users for role in roles)


def _address(host: str) -> str:
    """An address as pg_hba.conf wants it; a host name stands as it is."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.is_loopback:
        # All nodes on one machine: a connection to 127.1.2.3 comes from 127.0.0.1.
        return "127.0.0.0/8" if address.version == 4 else "::1/128"
    return f"{address}/{address.max_prefixlen}"


def with_include(postgresql_conf: str) -> str:
    """postgresql.conf that ends with our include, once."""
    lines = [line for line in postgresql_conf.splitlines() if line.strip() != INCLUDE]
    return "\n".join([*lines, INCLUDE, ""])


def without_ours(auto_conf: str) -> str:
    """postgresql.auto.conf without what is ours to set: it would win over our file."""
    kept = [line for line in auto_conf.splitlines() if _setting(line) not in RESERVED_PARAMETERS]
    return "\n".join([*kept, ""])


def _setting(line: str) -> str:
    return line.partition("=")[0].strip().lower()


def slot_keep_mb(total_bytes: int, free_bytes: int) -> int:
    """How much WAL slots may hold: a quarter of the disk, half of what is free, at least 256.

    Beyond it a standby's slot is given up and the standby clones itself again: better than
    a primary with a full disk (S9).
    """
    allowed = min(total_bytes // 4, free_bytes // 2)
    return max(SLOT_KEEP_LEAST_MB, allowed >> 20)
