"""A lab of hosts: a switch, a way out to the world, and machines.

The switch, its cables and their cutting are the demo's (`flightmode.demo.namespaces`).  What is
added is a route: hosts reach Debian's packages through this machine by NAT, in a table of nftables
of the run's own; the machine's forwarding is put back at the end.
"""

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from flightmode.demo.cgroup import Cgroups, remove_tree
from flightmode.demo.killing import bearing, kill_until_none
from flightmode.demo.namespaces import Wiring, carry_out, namespaces_of, pids_in, tear_down
from flightmode.demo.record import Record
from flightmode.demo.sweep import sweep
from hosts.commands import HostsFailed, run
from hosts.image import CACHE, SUITE, image
from hosts.machine import MARK, Machine, unmounted

_POLL_S = 0.1

KIND = "hosts"
"""The kind of a run's record."""

FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


class Hosts:
    """Made by `with`; leaving it removes every trace."""

    def __init__(self, names: Sequence[str], *, suite: str = SUITE, cache: Path = CACHE) -> None:
        self._names = tuple(names)
        self._image = partial(image, cache, suite)
        self._machines: dict[str, Machine] = {}
        self._forwarded = FORWARD.read_text()
        self._closing = threading.Event()
        self._tender = threading.Thread(target=self._tend, daemon=True)

    @property
    def machines(self) -> Mapping[str, Machine]:
        return MappingProxyType(self._machines)

    @property
    def key(self) -> Path:
        """The private key that opens every host as root."""
        return self._record.scratch / "id_ed25519"

    @property
    def scratch(self) -> Path:
        """A directory of this run."""
        return self._record.scratch

    def __enter__(self) -> Self:
        sweep(kinds={KIND: remove})
        base = self._image()
        self._record = Record.claim(KIND)
        self._record.hosts = self._names
        self._record.save()
        self._wiring = Wiring(self._record.number, self._names)
        self._cgroups = Cgroups(self._record.run_id, self._names)
        try:
            carry_out(self._wiring)
            self._cgroups.make()
            self._route()
            keygen = ("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "flightmode-hosts")
            run(*keygen, "-f", str(self.key))
            for name in self._names:
                self._machines[name] = self._machine(name, base)
        except BaseException:
            self.close()
            raise
        self._tender.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _tend(self) -> None:
        while not self._closing.wait(_POLL_S):
            for machine in tuple(self._machines.values()):
                machine.boot_if_it_reboots()

    def _machine(self, name: str, base: Path) -> Machine:
        made = Machine(
            name,
            self._wiring.hosts[name].address,
            self._wiring.namespace(name),
            base,
            self._record.scratch / name,
            self.key.with_suffix(".pub").read_text(),
            tuple(self._cgroups.prefix(name)),
        )
        made.prepare()
        return made

    def boot(self, *names: str) -> None:
        """Power on those (or all), and wait until they can be reached."""
        chosen = [self._machines[name] for name in names or self._names]
        for machine in chosen:
            if not machine.running:
                machine.boot()
        for machine in chosen:
            machine.wait_for_ssh()

    def replace(self, name: str) -> None:
        """A fresh host of that name and address: an empty disk, other host keys."""
        old = self._machines[name]
        old.erase()
        run("rm", "-rf", "--one-file-system", str(old.home))
        self._machines[name] = self._machine(name, self._image())

    def ssh(self, name: str, command: str, *, within_s: float = 120.0) -> str:
        """What a command printed, run as root there.  Raises HostsFailed."""
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        options += ["-o", "LogLevel=ERROR", "-o", "BatchMode=yes", "-i", str(self.key)]
        argv = ["ssh", *options, f"root@{self._machines[name].address}", command]
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=within_s
        )
        if done.returncode != 0:
            raise HostsFailed(f"{name}: {command}: {done.stdout[-1500:]}{done.stderr[-1500:]}")
        return done.stdout

    def until_true(self, name: str, command: str, *, within_s: float) -> None:
        """Ask again and again, until the command ends well there.  Raises HostsFailed."""
        until_s = time.monotonic() + within_s
        while True:
            try:
                self.ssh(name, command)
                return
            except HostsFailed:
                if time.monotonic() > until_s:
                    raise
            time.sleep(_POLL_S)

    def cut(self, name: str) -> None:
        """Silence its cable."""
        run(*self._wiring.rule("add", self._wiring.port_of(name)))

    def heal(self, name: str) -> None:
        """Undo `cut`."""
        run(*self._wiring.rule("delete", self._wiring.port_of(name)))

    def _route(self) -> None:
        for name in self._names:
            inside = ["ip", "-n", self._wiring.namespace(name)]
            run(*inside, "route", "add", "default", "via", self._wiring.entrance)
        FORWARD.write_text("1")
        subnet = f"{self._wiring.entrance}/24"
        table = f"table ip {self._record.run_id}"
        rules = f"""{table} {{
  chain out {{ type nat hook postrouting priority srcnat; ip saddr {subnet} masquerade; }}
  chain through {{ type filter hook forward priority filter - 10; ip saddr {subnet} accept; }}
}}
"""
        done = subprocess.run(["nft", "-f", "-"], input=rules, capture_output=True, text=True)
        if done.returncode != 0:
            raise HostsFailed(f"nft: {done.stderr}")

    def close(self) -> None:
        """Everything off, and gone.  May be repeated."""
        self._closing.set()
        if self._tender.is_alive():
            self._tender.join()
        for machine in self._machines.values():
            machine.erase()
        FORWARD.write_text(self._forwarded)
        remove(self._record)


def remove(record: Record) -> None:
    """Remove a run of hosts, also one that was killed.  Needs only its record; may be repeated.

    The end of what is in a host's network namespace is the end of its init, and so of all of it;
    what ran it then removes files of its own, and has to be gone before the directory goes.
    """
    table = ["nft", "delete", "table", "ip", record.run_id]
    subprocess.run(table, capture_output=True, check=False)
    for namespace in namespaces_of(record.run_id):
        if not namespace.endswith("-switch"):
            kill_until_none(partial(pids_in, namespace))
    kill_until_none(partial(bearing, f"{MARK}={record.scratch}/"))
    for name in record.hosts:
        unmounted(record.scratch / name / "root")
    for mirror in mirrors(record.run_id):
        remove_tree(mirror)
    tear_down(record)


def mirrors(run_id: str) -> list[Path]:
    """Where a machine has cgroups of both versions, systemd-nspawn makes a second cgroup of the
    same path in the hierarchy `name=systemd`, and leaves it there."""
    found = []
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup" and "name=systemd" in options.split(","):
            found.append(Path(where) / f"flightmode-{run_id}")
    return [each for each in found if each.exists()]
