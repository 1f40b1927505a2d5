"""PostgreSQL servers for a bench: made, copied, promoted and ended by it, on loopback.

They are for measuring what stands in front of them, so they neither flush nor log much.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import make_conninfo

BIN = Path("/usr/lib/postgresql/15/bin")
HOST = "127.0.0.1"
SETTINGS = """
listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = '128MB'
fsync = off
full_page_writes = off
max_wal_size = '4GB'
autovacuum = off
wal_keep_size = '64MB'
hot_standby = on
log_min_messages = warning
synchronous_commit = local
"""
HBA = """
local all all trust
host all all 127.0.0.1/32 {method}
host replication all 127.0.0.1/32 trust
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def eventually(what: str, happens: Callable[[], bool], within_s: float = 30.0) -> None:
    """Ask again and again until it happens.  Raises TimeoutError."""
    until = time.monotonic() + within_s
    while not happens():
        if time.monotonic() > until:
            raise TimeoutError(f"{what}: not within {within_s:g} s")
        time.sleep(0.01)


def server_user() -> str | None:
    """Who the servers run as: `postgres` when we are root, ourselves otherwise."""
    return "postgres" if os.geteuid() == 0 else None


@contextmanager
def room(prefix: str) -> Iterator[Path]:
    """A directory that the servers may write to; it goes when we do."""
    base = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    give(base)
    try:
        yield base
    finally:
        shutil.rmtree(base)


def give(path: Path) -> None:
    if (user := server_user()) is not None:
        entry = pwd.getpwnam(user)
        os.chown(path, entry.pw_uid, entry.pw_gid)


class Server:
    """One PostgreSQL, in `base`/`name`."""

    def __init__(self, base: Path, name: str, *, settings: str = "", method: str = "trust") -> None:
        self.name = name
        self.port = free_port()
        self.data = base / name
        self.log = base / f"{name}.log"
        self._settings = SETTINGS + settings + f"unix_socket_directories = '{base}'\n"
        self._method = method
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """A new, empty cluster."""
        self._run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "--no-sync", "-N")
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(self._settings)
        (self.data / "pg_hba.conf").write_text(HBA.format(method=self._method))

    def copy(self, other: "Server") -> None:
        """Become a standby of `other`; what was here is lost."""
        shutil.rmtree(self.data, ignore_errors=True)
        source = f"host={HOST} port={other.port} user=postgres"
        self._run("pg_basebackup", "-D", self.data, "-d", source, "-R", "-c", "fast", "--no-sync")

    def _run(self, program: str, *args: str | Path) -> None:
        subprocess.run(
            [BIN / program, *args],
            check=True,
            capture_output=True,
            user=server_user(),
            cwd="/tmp",
        )

    def start(self) -> None:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [BIN / "postgres", "-D", self.data, "-c", f"port={self.port}"],
                stdout=log,
                stderr=log,
                user=server_user(),
                cwd="/tmp",
                start_new_session=True,
            )
        eventually(f"{self.name} answers", self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended: {self.log.read_text()[-500:]}")
        try:
            with self.connect():
                return True
        except psycopg.OperationalError:
            return False

    def connect(self, **options: str) -> psycopg.Connection[tuple[object, ...]]:
        conninfo = make_conninfo(**self.address(**options))
        return psycopg.connect(conninfo, autocommit=True, connect_timeout=2)

    def address(self, **options: str) -> dict[str, str]:
        default = {"host": HOST, "port": str(self.port), "user": "postgres", "dbname": "postgres"}
        return default | {"sslmode": "disable"} | options

    def sql(self, *statements: str) -> None:
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def promote(self) -> None:
        """Ask for it; when it accepts writes is another matter."""
        self._run("pg_ctl", "promote", "-D", self.data, "--no-wait")

    @property
    def in_recovery(self) -> bool:
        with self.connect() as connection:
            row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
        return row is None or bool(row[0])

    def stop(self, *, immediate: bool = False) -> None:
        """As a planned switchover does: sessions are ended, the standby gets everything.

        `immediate`: as a fence does, which waits for nobody.
        """
        self._end(signal.SIGQUIT if immediate else signal.SIGINT)

    def kill(self) -> None:
        """The postmaster and all its children at once, as when power fails."""
        self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if how is signal.SIGKILL:
            self._kill_all(self._process.pid)
        else:
            self._process.send_signal(how)
        self._process.wait(timeout=30)
        self._process = None

    def _kill_all(self, postmaster: int) -> None:
        """Nobody of them sees another one die, and when this returns none has a socket any more."""
        _signal(postmaster, signal.SIGSTOP)
        children = _children(postmaster)
        for pid in (*children, postmaster):
            _signal(pid, signal.SIGKILL)
        eventually(f"{self.name} is gone", lambda: all(_is_over(pid) for pid in children))


def _children(pid: int) -> Sequence[int]:
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed]


def _is_over(pid: int) -> bool:
    """Nothing is left of it but, maybe, its number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")


def _signal(pid: int, how: signal.Signals) -> None:
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return  # It ended on its own: that is what was wanted.
