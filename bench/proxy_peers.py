"""The contestants: how each is configured, started, told of a new primary, and ended.

All get the same pool, the same server and the same socket settings.  What differs is written
here and nowhere else.
"""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psycopg
from proxy_bed import HOST, eventually, free_port, give, server_user

ROOT = Path(__file__).resolve().parent.parent
PGBOUNCER = Path("/usr/sbin/pgbouncer")


@dataclass(frozen=True)
class Front:
    """What a contestant shall do."""

    home: Path
    nodes: dict[str, int]
    primary: str
    pool_size: int = 20
    clients_max: int = 10_000
    tls: bool = False
    """Offer TLS to clients with the certificate `home`/server.{crt,key}, and ask for SCRAM."""
    secrets: dict[str, str] = field(default_factory=dict)
    """What the list of users holds: a password or a SCRAM secret each."""


class Peer(Protocol):
    """A running contestant."""

    name: str
    port: int

    @property
    def pids(self) -> list[int]: ...

    def start(self) -> None: ...

    def no_primary(self) -> None:
        """The primary is known to be gone."""

    def primary(self, node: str) -> None:
        """From now on this one takes writes."""

    def stop(self) -> None: ...


class _Process:
    """A contestant that is one process."""

    name = ""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.port = free_port()
        self.base = front.home / f"{self.name.replace(' ', '-')}-{self.port}"
        self.base.mkdir()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def pids(self) -> list[int]:
        return [self.process.pid] if self.process else []

    def spawn(self, *argv: str | Path, stdin: int | None = subprocess.DEVNULL) -> None:
        for path in (self.base, *self.base.iterdir()):
            give(path)
        with (self.base / "log").open("ab") as log:
            self.process = subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=log,
                stderr=log,
                cwd=self.base,
                user=server_user(),
                preexec_fn=_many_files,
                start_new_session=True,
            )
        eventually(f"{self.name} listens", self._listens)

    def _listens(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended: {self.log_tail()}")
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def log_tail(self) -> str:
        return (self.base / "log").read_text(errors="replace")[-1500:]

    def no_primary(self) -> None:
        """Nobody tells it."""

    def primary(self, node: str) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process = None


def _many_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class PgBouncer(_Process):
    """One `[databases]` line; whoever moved the primary rewrites it and says RELOAD."""

    def __init__(
        self, front: Front, *, program: Path = PGBOUNCER, name: str = "PgBouncer", tuned: str = ""
    ) -> None:
        self.name = name
        self.program = program
        self.tuned = tuned
        super().__init__(front)

    def start(self) -> None:
        self._write(self.front.primary)
        self.spawn(self.program, self.base / "pgbouncer.ini")

    def _write(self, node: str) -> None:
        front = self.front
        lines = [f'"{user}" "{secret}"' for user, secret in front.secrets.items()]
        (self.base / "users.txt").write_text("\n".join(lines) + "\n")
        tls = (
            f"client_tls_sslmode = require\nclient_tls_key_file = {front.home}/server.key\n"
            f"client_tls_cert_file = {front.home}/server.crt\n"
        )
        (self.base / "pgbouncer.ini").write_text(
            "[databases]\n"
            f"* = host={HOST} port={front.nodes[node]} user=postgres\n"
            "[pgbouncer]\n"
            f"listen_addr = {HOST}\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = {'scram-sha-256' if front.tls else 'trust'}\n"
            f"auth_file = {self.base}/users.txt\nadmin_users = admin\n"
            f"pool_mode = transaction\ndefault_pool_size = {front.pool_size}\n"
            f"max_client_conn = {front.clients_max}\nlog_connections = 0\n"
            "log_disconnections = 0\nignore_startup_parameters = extra_float_digits\n"
            f"{tls if front.tls else ''}{self.tuned}"
        )

    def primary(self, node: str) -> None:
        self._write(node)
        self.admin("RELOAD")

    def admin(self, command: str) -> None:
        with psycopg.connect(
            host=HOST,
            port=self.port,
            user="admin",
            dbname="pgbouncer",
            autocommit=True,
            sslmode="disable",
            connect_timeout=5,
        ) as connection:
            connection.execute(command.encode())


class HAProxy(_Process):
    """Plain TCP to the node whose health check, which the bench answers, says primary."""

    name = "HAProxy"

    def __init__(self, front: Front, checks: dict[str, int] | None = None) -> None:
        super().__init__(front)
        self.checks = checks or {}

    def start(self) -> None:
        check = "option httpchk GET /primary\n" if self.checks else ""
        servers = "".join(
            f"  server {node} {HOST}:{port} " + self._check(node) + "\n"
            for node, port in self.front.nodes.items()
            if self.checks or node == self.front.primary
        )
        (self.base / "haproxy.cfg").write_text(
            "global\n  maxconn 4000\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 1s\n"
            "  timeout client 1h\n  timeout server 1h\n"
            f"listen postgres\n  bind {HOST}:{self.port}\n  {check}{servers}"
        )
        self.spawn(shutil.which("haproxy") or "haproxy", "-db", "-f", self.base / "haproxy.cfg")

    def _check(self, node: str) -> str:
        if not self.checks:
            return ""
        return (
            f"check port {self.checks[node]} inter 1s fall 2 rise 1"
            " on-marked-down shutdown-sessions"
        )

    def primary(self, node: str) -> None:
        """Its health checks tell it."""


class Flightmode(_Process):
    """Ours without its Python part: settings from a file, news on its standard input."""

    name = "Flightmode"

    def __init__(self, front: Front, *, program: Path | None = None, **changed: object) -> None:
        super().__init__(front)
        self.program = program or flightmode_binary()
        self.changed = changed
        self.term = 1
        self.revision = 1

    def config(self) -> dict[str, object]:
        front = self.front
        rule = {"database": "all", "user": "all", "address": "0.0.0.0/0"}
        tls: dict[str, object] = {"mode": "disable"}
        if front.tls:
            cert, key = f"{front.home}/server.crt", f"{front.home}/server.key"
            tls = {"mode": "require", "cert": cert, "key": key}
        method = "scram-sha-256" if front.tls else "trust"
        config: dict[str, object] = {
            "listen": [{"host": HOST, "port": self.port}],
            "client_tls": tls,
            "server_tls": {"mode": "disable"},
            "nodes": {name: {"host": HOST, "port": port} for name, port in front.nodes.items()},
            "databases": {"*": {"pool_mode": "transaction", "pool_size": front.pool_size}},
            "auth": {
                "rules": [rule | {"type": "host", "method": method}],
                "users_file": str(self.base / "users.txt"),
            },
            "admin": {"unix": str(self.base / "admin"), "users": ["admin"]},
            "limits": {"max_clients": front.clients_max},
        }
        return config | self.changed

    def start(self) -> None:
        lines = [f'"{user}" "{secret}"' for user, secret in self.front.secrets.items()]
        (self.base / "users.txt").write_text("\n".join(lines) + "\n")
        (self.base / "users.txt").chmod(0o600)
        (self.base / "config.json").write_text(json.dumps(self.config()))
        self.spawn(self.program, self.base / "config.json", stdin=subprocess.PIPE)
        self.news(self.front.primary)

    def news(self, primary: str | None) -> None:
        self.revision += 1
        others = [name for name in self.front.nodes if name != primary]
        standbys = [
            {"node": name, "lag_bytes": 0, "lag_s": 0.0, "replayed": "0/0"} for name in others
        ]
        news = {
            "term": self.term,
            "revision": self.revision,
            "primary": primary,
            "fenced": False,
            "standbys": standbys,
        }
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(news).encode() + b"\n")
        self.process.stdin.flush()

    def no_primary(self) -> None:
        self.news(None)

    def primary(self, node: str) -> None:
        self.term += 1
        self.news(node)


def flightmode_binary() -> Path:
    """Built if it has to be; FLIGHTMODE_SERVE names another one."""
    if named := os.environ.get("FLIGHTMODE_SERVE"):
        return Path(named)
    subprocess.run(
        [
            "nice",
            "cargo",
            "build",
            "-q",
            "--release",
            "-p",
            "flightmode-proxy",
            "--example",
            "serve",
        ],
        cwd=ROOT,
        check=True,
    )
    return ROOT / "target/release/examples/serve"


TUNED = (
    "server_login_retry = 1\ntcp_user_timeout = 4000\ntcp_keepidle = 2\ntcp_keepintvl = 1\n"
    "tcp_keepcnt = 3\nserver_connect_timeout = 2\n"
)
