"""Three servers and an application's machine, as a founder has them: bare, and then a cluster."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flightmode.demo.ledger import Gap, Outcome, Verdict, check, write_gap
from flightmode.demo.proxied import Application, Seen, seen
from hosts.commands import HostsFailed
from hosts.image import SUITE
from hosts.lab import Hosts

NODES = ("ams", "fra", "wit")
APP = "web"
JOURNALS = Path(__file__).parents[2] / ".flightmode" / "journals"
_POLL_S = 0.2
ALL_RUN = """
units=$(systemctl list-unit-files --no-legend --state=enabled 'flightmode-*.service' |
    awk '{ print $1 }')
[ -n "$units" ] || exit 1
for unit in $units; do systemctl is-active "$unit" || exit 1; done
"""


@dataclass(frozen=True)
class Ran:
    status: int
    out: str
    took_s: float


@dataclass(frozen=True)
class Founder:
    """Somebody with a directory, an ssh key, and the command `flightmode`."""

    hosts: Hosts
    home: Path

    @property
    def toml(self) -> Path:
        return self.home / "flightmode.toml"

    def types(
        self, *words: str, within_s: float = 480.0, environment: Mapping[str, str] | None = None
    ) -> Ran:
        """`flightmode …`; the output is also printed, for who reads the test's."""
        began_s = time.monotonic()
        argv = [sys.executable, "-m", "flightmode.cli.main", *words]
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=within_s,
                env=environment,
                cwd="/",
            )
        except subprocess.TimeoutExpired as late:
            print(f"$ flightmode {' '.join(words)}\n{(late.stdout or b'').decode()}-> not ended")
            raise
        took_s = time.monotonic() - began_s
        print(
            f"$ flightmode {' '.join(words)}\n{done.stdout}-> {done.returncode} in {took_s:.1f} s"
        )
        return Ran(done.returncode, done.stdout, took_s)

    def does(self, verb: str, *words: str, within_s: float = 480.0) -> Ran:
        """The same, about this cluster, and it went well."""
        ran = self.types(verb, *words, "--config", str(self.toml), within_s=within_s)
        assert ran.status == 0, ran.out
        return ran

    def does_in(self, environment: Mapping[str, str], *words: str, within_s: float) -> Ran:
        """The same, with another version installed."""
        where = ("--config", str(self.toml))
        ran = self.types(*words, *where, within_s=within_s, environment=environment)
        assert ran.status == 0, ran.out
        return ran

    def begins(self, *more: str) -> None:
        """`flightmode init`, and the few lines that a founder adds."""
        address = {name: machine.address for name, machine in self.hosts.machines.items()}
        words = ["init", str(self.home), "--ssh-key", str(self.hosts.key), *more]
        for name in ("ams", "fra"):
            words += ["--database", f"{name}={address[name]}"]
        assert self.types(*words, "--witness", f"wit={address['wit']}").status == 0
        text = self.toml.read_text()
        self.toml.write_text(f'{text}\n[provision.apps.{APP}]\nhost = "{address[APP]}"\n')

    def edits(self, old: str, new: str) -> None:
        """A change of flightmode.toml."""
        text = self.toml.read_text()
        assert old in text
        self.toml.write_text(text.replace(old, new))

    def status(self) -> dict[str, Any] | None:
        """`flightmode status --json`; None: no node answers."""
        argv = [sys.executable, "-m", "flightmode.cli.main", "status", "--json"]
        argv += ["--config", str(self.toml)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        return json.loads(done.stdout) if done.stdout else None

    def until(self, holds: Callable[[dict[str, Any]], bool], what: str, within_s: float) -> float:
        """Wait until the status is so; how long that took."""
        began_s = time.monotonic()
        status: dict[str, Any] | None = None
        while time.monotonic() - began_s < within_s:
            status = self.status()
            if status is not None and holds(status):
                return time.monotonic() - began_s
            time.sleep(_POLL_S)
        raise AssertionError(f"waited {within_s:.0f} s for {what}: {status}")

    def until_whole(self, within_s: float = 90.0) -> float:
        """Also every unit on every machine runs: etcd's, and the proxy's."""
        took_s = self.until(is_whole, "the cluster to be whole", within_s)
        status = self.status()
        assert status is not None
        for name in [*(node["name"] for node in status["nodes"]), APP]:
            self.hosts.until_true(name, ALL_RUN, within_s=within_s)
        return took_s

    @property
    def primary(self) -> str:
        status = self.status()
        assert status is not None
        assert status["writes"] is not None, status["route"]
        return str(status["writes"])

    def make_database(self) -> None:
        """As a person would, on the primary, as the superuser."""
        psql = "runuser -u postgres -- psql -h /run/flightmode/postgres -qc"
        self.hosts.ssh(self.primary, f"{psql} 'CREATE DATABASE ledger OWNER app'")

    def password(self) -> str:
        return (self.home / "secrets" / "app").read_text().strip()

    @contextmanager
    def tunnel(self) -> Iterator[str]:
        """The way to the proxy on the application's machine; its conninfo here."""
        socket = self.hosts.scratch / ".s.PGSQL.6432"
        argv = ["ssh", "-N", "-i", str(self.hosts.key), "-o", "StrictHostKeyChecking=no"]
        argv += ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        argv += ["-L", f"{socket}:127.0.0.1:6432"]
        argv.append(f"root@{self.hosts.machines[APP].address}")
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        try:
            until_s = time.monotonic() + 20
            while not socket.exists():
                assert process.poll() is None, "the tunnel broke"
                assert time.monotonic() < until_s, "no tunnel after 20 s"
                time.sleep(0.05)
            where = f"host={socket.parent} port=6432 dbname=ledger user=app"
            yield f"{where} password={self.password()}"
        finally:
            process.terminate()
            process.wait(timeout=10)
            socket.unlink(missing_ok=True)


def is_whole(status: dict[str, Any]) -> bool:
    """A primary, and every other database node a standby of it, one of them a synchronous one; all
    heard of, the witness too; and etcd answers."""
    nodes = status["nodes"]
    standbys = [n for n in nodes if n["kind"] != "witness" and n["name"] != status["writes"]]
    return (
        status["writes"] is not None
        and status["store_reachable"]
        and all(node["heard"] for node in nodes)
        and all(node["streaming"] for node in standbys)
        and any(node["sync"] for node in standbys)
    )


@contextmanager
def founder(suite: str = SUITE, more: tuple[str, ...] = ()) -> Iterator[Founder]:
    """Bare hosts of that Debian that have booted; `more`: others than the cluster begins with."""
    with Hosts((*NODES, APP, *more), suite=suite) as hosts:
        hosts.boot()
        try:
            yield Founder(hosts, hosts.scratch / "cluster")
        except BaseException:
            print(f"what the hosts wrote down: {journals_kept(hosts)}")
            raise


def journals_kept(hosts: Hosts, home: Path = JOURNALS) -> Path:
    """Where the journals of all hosts are, as text: they go with the hosts otherwise."""
    house = home / time.strftime("%Y%m%dT%H%M%S")
    house.mkdir(parents=True)
    for name, machine in hosts.machines.items():
        argv = ["journalctl", "-q", "--no-pager", "-o", "short-iso-precise"]
        argv += ["-D", str(machine.root / "var" / "log" / "journal")]
        with (house / f"{name}.log").open("wb") as log:
            subprocess.run(argv, stdout=log, stderr=log, check=False)
    return house


@asynccontextmanager
async def writing(conninfo: str, writers: int = 8) -> AsyncIterator[Application]:
    """An application's clients, all the while."""
    async with Application(conninfo, writers=writers, idle=4, newcomers=1) as application:
        await application.prepare()
        application.start()
        yield application


async def acknowledged(application: Application, count: int, within_s: float = 60.0) -> float:
    """Wait for so many more commits that were acknowledged; how long that took."""
    began_s, before = time.monotonic(), commits(application)
    while commits(application) - before < count:
        assert time.monotonic() - began_s < within_s, f"no {count} commits in {within_s:.0f} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - began_s


def commits(application: Application) -> int:
    """So many were acknowledged; what was rejected, or got no answer, is no commit."""
    return sum(each.outcome is Outcome.ACKNOWLEDGED for each in application.history)


@dataclass(frozen=True)
class Told:
    """What all clients were told in the end, held against what the database has."""

    verdict: Verdict
    errors: Seen
    pause: Gap
    """The longest stretch without an acknowledgement to anybody."""
    faults: tuple[str, ...] = ()
    """What clients were told, and when: to be found in the journals of the hosts."""

    def __str__(self) -> str:
        lost = f"{self.verdict.acknowledged} acknowledged, {len(self.verdict.lost)} lost"
        pause = f"longest pause {self.pause.length_s:.2f} s, from {utc(self.pause.from_s)}"
        return "; ".join((lost, str(self.errors), pause, *self.faults))

    def as_promised(self) -> None:
        """Nothing acknowledged is missing, and clients were told what guarantees.md says."""
        assert self.verdict.sound, self.verdict
        assert self.errors.as_promised, self.errors

    def undisturbed(self, pause_s: float) -> None:
        """No client saw an error, not even one that may be tried again; writes paused so long."""
        assert self.verdict.sound, self.verdict
        assert self.errors == Seen(0, 0, 0, ()), self.errors
        assert self.verdict.rejected == self.verdict.unknown == 0, self.verdict
        assert self.pause.length_s <= pause_s, str(self)


async def told(application: Application) -> Told:
    """Stop it, and look."""
    await application.stop()
    rows, imbalance = await application.rows(), await application.imbalance()
    verdict = check(application.history, rows, imbalance=imbalance)
    times = [each.ended_s for each in application.history]
    pause = write_gap(application.history, fault_s=min(times), until_s=max(times))
    faults = [f"{utc(each.at_s)} {each.who}: {each.message}" for each in application.faults]
    return Told(verdict, seen(application.faults), pause, tuple(faults))


def utc(boottime_s: float) -> str:
    """As the journals have it."""
    at_s = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + boottime_s
    return f"{time.strftime('%H:%M:%S', time.gmtime(at_s))}.{int(at_s % 1 * 1000):03}"


TOOLS = ("debootstrap", "systemd-nspawn", "nft", "ssh", "ssh-keygen")


def missing(
    root: bool = os.geteuid() == 0,
    ci: bool = os.environ.get("CI") == "true",
    path: str | None = None,
) -> str | None:
    """Why this machine can't have hosts; None when it can.

    In CI nobody reads why a test was left out.  Raises HostsFailed there: a tool is missing.
    """
    if not root:
        return "hosts need root"
    lacking = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if not lacking:
        return None
    told = f"{', '.join(lacking)}: not installed; ./dev hosts-test installs it"
    if ci:
        raise HostsFailed(told)
    return told
