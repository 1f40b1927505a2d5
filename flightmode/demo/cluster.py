"""A whole cluster in a lab: its files, its processes, and what it says of itself."""

import asyncio
import os
import pwd
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self
from urllib.parse import quote, urlencode

from flightmode.config import Config, etcd_endpoints, parse, policy_of
from flightmode.config.derive import locations_of
from flightmode.config.etcd import etcd_argv, initial_cluster
from flightmode.demo.command import run_beside
from flightmode.demo.lab import Lab
from flightmode.demo.preference import prefer
from flightmode.errors import RehearsalFailed, StoreError
from flightmode.model.cluster import ClusterState, Mode
from flightmode.model.member import OPERATOR, Member, NodeKind
from flightmode.model.policy import Policy
from flightmode.model.server import Run
from flightmode.pki import Authority, client_context, make_secrets, read_secret
from flightmode.postgres.programs import major_in
from flightmode.store import codec, keys
from flightmode.store.etcd import EtcdStore
from flightmode.store.etcd_members import EtcdMembers

DATABASES = ("ams", "fra")
WITNESS = "wit"
NODES = (*DATABASES, WITNESS)
APP = "app"
"""The host of the application and its proxy, in labs that have one."""

_SETTLE_S = 60.0
_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class Picture:
    """The cluster as its store tells it."""

    state: ClusterState
    members: dict[str, Member]

    @property
    def standby(self) -> str:
        """The database node that does not lead."""
        return next(name for name in DATABASES if name != self.state.leader)

    @property
    def whole(self) -> bool:
        """The leader serves, and the other one is a streaming, promotable standby of it."""
        leader, standby = self.members.get(self.state.leader), self.members.get(self.standby)
        return (
            self.state.mode is Mode.SYNC
            and self.state.sync == (self.standby,)
            and leader is not None
            and leader.run is Run.PRIMARY
            and leader.admits_clients
            and leader.term == self.state.term
            and standby is not None
            and standby.run is Run.STANDBY
            and standby.streaming
            and standby.term == self.state.term
        )


class DemoCluster:
    """Two database nodes and a witness in `lab`, with everything a real one has."""

    def __init__(
        self,
        lab: Lab,
        bin_dir: Path,
        *,
        timing: Mapping[str, float] = MappingProxyType({}),
        guards: Mapping[str, float] = MappingProxyType({}),
        tls: bool = True,
    ) -> None:
        """`timing` and `guards`: settings of flightmode.toml other than the defaults.

        `tls`: of PostgreSQL, whose programs may be built without; all else has it always.
        """
        self.lab = lab
        self.directory = lab.scratch / "cluster"
        self._user = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        self._toml = self.directory / "flightmode.toml"
        self._tls = tls
        self._write_files(bin_dir, timing, guards)
        self.config: Config = parse(self._toml.read_text(), base=self.directory)
        self.policy: Policy = policy_of(self.config)
        self._store = EtcdStore(
            etcd_endpoints(self.config),
            client_context(self.directory / "operator", "client"),
            clock=time.monotonic,
        )
        self._processes: dict[tuple[str, str], asyncio.subprocess.Process] = {}

    # ---------------------------------------------------------------- files

    def _write_files(
        self, bin_dir: Path, timing: Mapping[str, float], guards: Mapping[str, float]
    ) -> None:
        self.directory.mkdir(parents=True)
        self.directory.chmod(0o755)
        hosts = self.lab.hosts
        lines = [
            f'[cluster]\nname = "demo"\npostgres_major = {major_in(bin_dir)}\n',
            *(
                f'[nodes.{name}]\nkind = "{_kind(name)}"\nhost = "{hosts[name].address}"\n'
                for name in NODES
            ),
            f'[postgres]\ndata_dir = "{{node}}/data"\nsocket_dir = "{{node}}/run"\n'
            f'bin_dir = "{bin_dir}"\nuser = "{self._user.pw_name}"\n'
            f"tls = {str(self._tls).lower()}\n"
            'parameters = { shared_buffers = "64MB", max_connections = 60 }\n'
            f'[[postgres.hba]]\ntype = "{"hostssl" if self._tls else "host"}"\n'
            'address = "0.0.0.0/0"\n',
            '[[postgres.hba]]\ntype = "local"\n',
            '[tls]\ndirectory = "{node}/tls"\n[secrets]\ndirectory = "{node}/secrets"\n'
            '[paths]\nrun_dir = "{node}/run"\nstate_dir = "{node}/state"\n',
            "[timing]\n" + "".join(f"{key} = {value}\n" for key, value in timing.items()),
            "[fence]\ncgroup = false\n[guards]\n"
            + "".join(f"{key} = {value}\n" for key, value in guards.items()),
        ]
        self._toml.write_text("\n".join(lines))
        authority = Authority.create("demo")
        shared = self.directory / "secrets"
        make_secrets(shared)
        for name in NODES:
            home = self.directory / name
            for room in ("", "run", "state", "etcd"):
                (home / room).mkdir(mode=0o700)
            authority.issue_node(name, [hosts[name].address]).save(home / "tls", "node")
            shutil.copytree(shared, home / "secrets")
            self._give_away(home)
        authority.issue_client(OPERATOR).save(self.directory / "operator", "client")
        shutil.copytree(shared, self.directory / "operator" / "secrets")
        if APP in hosts:
            self._write_app(authority, shared)

    def make_etcd_room(self, name: str) -> None:
        """An empty directory for the node's member of etcd, when it has none any more."""
        room = self.directory / name / "etcd"
        room.mkdir(mode=0o700, exist_ok=True)
        self._give_away(room)

    def _write_app(self, authority: Authority, shared: Path) -> None:
        """What a host of the application has: its own certificate, and one password."""
        home = self.directory / APP
        for room in ("run", "secrets"):
            (home / room).mkdir(mode=0o700, parents=True)
        shutil.copy(shared / "app", home / "secrets")
        authority.issue_client(APP).save(home / "tls", "client")
        text = self._toml.read_text().replace("{node}", APP)
        text += f'[proxy]\nsocket_dir = "{APP}/run"\n'
        (self.directory / "app.toml").write_text(text)
        self._give_away(home)

    def _give_away(self, home: Path) -> None:
        """The node's own files belong to the user that its agent and Postgres run as."""
        if os.geteuid() != 0:
            return
        for path in (home, *home.rglob("*")):
            os.chown(path, self._user.pw_uid, self._user.pw_gid)

    def operator_toml(self) -> Path:
        """A flightmode.toml for commands of a person, with the operator's certificate."""
        text = self._toml.read_text().replace('"{node}/tls"', '"operator"')
        path = self.directory / "operator.toml"
        path.write_text(text.replace('"{node}/secrets"', '"operator/secrets"'))
        return path

    # ---------------------------------------------------------------- processes

    async def start(self) -> None:
        """Everything on every host; returns when the cluster is whole."""
        await asyncio.gather(*(self.start_host(name) for name in NODES))
        if APP in self.lab.hosts:
            await self.start_proxy()
        await self.until(lambda picture: picture.whole, "the cluster to come up")

    async def start_host(self, name: str) -> None:
        """What systemd would start at boot: etcd, the fence, the agent."""
        await self.start_etcd(name)
        if self.config.nodes[name].kind is NodeKind.DATABASE:
            await self.start_fence(name)
        await self.start_agent(name)

    async def start_etcd(self, name: str) -> asyncio.subprocess.Process:
        """The node's member of etcd alone, with the data it has."""
        home, tls = self.directory / name, locations_of(self.config, name).tls_dir
        argv = [*self._as_user(), *etcd_argv(self.config, name, home / "etcd", tls)]
        argv.append(f"--initial-cluster={initial_cluster(self.config)}")
        return await self._spawn(name, "etcd", argv, first=True)

    async def start_fence(self, name: str) -> asyncio.subprocess.Process:
        """The fence alone; it holds nothing until the agent asks it to."""
        return await self._spawn(name, "fence", self._flightmode("fence", name))

    async def start_agent(self, name: str) -> asyncio.subprocess.Process:
        """The agent alone, as after an upgrade of it."""
        argv = [*self._as_user(reads_all=True), *self._flightmode("agent", name)]
        return await self._spawn(name, "agent", argv, first=True)

    async def start_proxy(self, *, take_over: bool = False) -> asyncio.subprocess.Process:
        """The proxy on the application's host, also in the place of the one that runs."""
        what = [sys.executable, "-m", "flightmode.cli.main", "proxy"]
        toml = ["--config", str(self.directory / "app.toml")]
        toml += ["--take-over"] if take_over else []
        return await self._spawn(APP, "proxy", [*self._as_user(reads_all=True), *what, *toml])

    async def power_on(self, name: str) -> None:
        """The host is back: its cable, and what starts at boot."""
        await self.lab.power_on(name)
        await self.start_host(name)

    async def _spawn(
        self, name: str, what: str, argv: list[str], *, first: bool = False
    ) -> asyncio.subprocess.Process:
        log = self.directory / name / f"{what}.log"
        process = await self.lab.spawn(name, argv, log=log)
        if first:
            prefer(process.pid)
        self._processes[name, what] = process
        return process

    def process(self, name: str, what: str) -> asyncio.subprocess.Process:
        """The `agent`, `fence` or `etcd` that was last started on a node."""
        return self._processes[name, what]

    def _flightmode(self, verb: str, node: str) -> list[str]:
        options = ["--config", str(self._toml), "--node", node]
        return [sys.executable, "-m", "flightmode.cli.main", verb, *options]

    def _as_user(self, *, reads_all: bool = False) -> list[str]:
        """Argv that gives up root.  An agent may read all files: the checkout may be root's own."""
        if os.geteuid() != 0:
            return []
        argv = ["setpriv", f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}"]
        argv.append("--clear-groups")
        if reads_all:
            argv += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        return argv

    # ---------------------------------------------------------------- what it says

    async def picture(self) -> Picture | None:
        """The state and the members now; None when there is no state yet, or no answer."""
        prefix = keys.prefix("demo")
        try:
            snapshot = await self._store.read(prefix)
        except StoreError:
            return None
        entry = snapshot.entries.get(keys.state("demo"))
        if entry is None:
            return None
        members = (
            codec.load(Member, record.value)
            for key, record in snapshot.entries.items()
            if keys.node_of("demo", key) is not None
        )
        return Picture(codec.load(ClusterState, entry.value), {m.name: m for m in members})

    async def until(
        self, holds: Callable[[Picture], bool], what: str, within_s: float = _SETTLE_S
    ) -> Picture:
        """Wait until the picture is as wanted.  Raises RehearsalFailed with what it is instead."""
        until_s = time.monotonic() + within_s
        picture: Picture | None = None
        while time.monotonic() < until_s:
            picture = await self.picture() or picture
            if picture is not None and holds(picture):
                return picture
            await asyncio.sleep(_POLL_S)
        raise RehearsalFailed(f"waited {within_s:.0f} s for {what}; {_told(picture)}")

    async def make_database(self) -> None:
        """The application's own database, made as a person would: locally, as the superuser."""
        picture = await self.until(lambda picture: picture.whole, "the cluster to be whole")
        where = locations_of(self.config, picture.state.leader).socket_dir
        psql = [str(self.postgres_binary.with_name("psql")), f"--host={where}", "--no-psqlrc"]
        make = "CREATE DATABASE ledger OWNER app"
        who = ["--username=postgres", "--dbname=postgres", f"--command={make}"]
        await run_beside([*self._as_user(), *psql, *who])

    def conninfo(self, host: str) -> str:
        """How a client reaches the Postgres of one node, as the application's user."""
        settings = self.config.nodes[host]
        ca = self.directory / "operator" / "ca.crt"
        encryption = f"sslmode=verify-full sslrootcert={ca}" if self._tls else "sslmode=disable"
        return (
            f"host={settings.host} port={settings.postgres_port} dbname=ledger user=app "
            f"password={self._app_password} {encryption}"
        )

    def local(self, host: str) -> str:
        """How a client on a node itself reaches its Postgres: by the socket, without a network."""
        where = locations_of(self.config, host).socket_dir
        port = self.config.nodes[host].postgres_port
        return f"host={where} port={port} dbname=ledger user=app password={self._app_password}"

    def proxied(self) -> str:
        """How a client reaches the proxy, on the socket beside it."""
        where = f"host={self.directory / APP / 'run'} port={self.config.proxy.port}"
        return f"{where} dbname=ledger user=app password={self._app_password}"

    def proxied_url(self) -> str:
        """The same as a URL, as programs are configured."""
        where = urlencode(
            {"host": str(self.directory / APP / "run"), "port": self.config.proxy.port}
        )
        return f"postgresql://app:{quote(self._app_password)}@/ledger?{where}"

    @property
    def _app_password(self) -> str:
        return read_secret(self.directory / "secrets", "app")

    def postmaster(self, name: str) -> int:
        """The pid of the node's postmaster, from the file it keeps.  Raises RehearsalFailed."""
        path = locations_of(self.config, name).data_dir / "postmaster.pid"
        pid = int(path.read_text().splitlines()[0])
        if not os.path.samefile(f"/proc/{pid}/exe", self.postgres_binary):
            raise RehearsalFailed(f"process {pid} of {path} is not a Postgres")
        return pid

    def postmaster_or_none(self, name: str) -> int | None:
        """The same, None when there is none any more."""
        try:
            return self.postmaster(name)
        except (FileNotFoundError, ProcessLookupError):
            return None

    @property
    def etcd(self) -> EtcdMembers:
        """The members of etcd, as a person with the operator's certificate manages them."""
        return self._store.members

    @property
    def postgres_binary(self) -> Path:
        bin_dir = self.config.postgres.bin_dir
        assert bin_dir is not None
        return bin_dir / "postgres"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Let go of the store; the lab ends the processes."""
        await self._store.close()


def _kind(name: str) -> str:
    return "witness" if name == WITNESS else "database"


def _told(picture: Picture | None) -> str:
    """What the cluster says of itself, for a message."""
    if picture is None:
        return "the store has no state to show"
    state = picture.state
    members = "; ".join(
        f"{m.name}: {m.run}{' streaming' if m.streaming else ''}"
        f"{f', job {m.job}' if m.job else ''}{f', {m.problem}' if m.problem else ''}"
        for m in picture.members.values()
    )
    return f"term {state.term}, leader {state.leader}, {state.mode} {state.sync}; {members}"
