"""Hosts as network namespaces, joined by a switch that is a namespace too.

    root namespace --- veth ---+
    host 0 (eth0) ---- veth ---+--- bridge br0, in the namespace of the switch
    host 1 (eth0) ---- veth ---+

The bridge has a namespace of its own so that no firewall of this machine meddles with it, and so
that deleting namespaces deletes everything: a veth pair dies with either end.

A cut is made in the switch, by a rule that drops what passes, so that neither host can notice it
other than by silence.  A carrier that went down would be a hint that a broken network does not
give, a rule on the host itself would make its sends fail, and so would an ARP that nobody
answers: hosts in two data centres still have their routers, whatever breaks between them.
"""

import asyncio
import os
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from flightmode.demo.cgroup import Cgroups
from flightmode.demo.command import run, run_all, run_beside
from flightmode.demo.killing import alive, kill_until_none
from flightmode.demo.lab import Host
from flightmode.demo.record import Record
from flightmode.demo.spawning import spawn
from flightmode.errors import RehearsalFailed

FIREWALL = """
table bridge lab {
  set ports { type ifname; }
  set pairs { type ipv4_addr . ipv4_addr; }
  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname @ports ether type != arp drop
    oifname @ports ether type != arp drop
    ip saddr . ip daddr @pairs drop
  }
}
"""


class Wiring:
    """The names of one run's namespaces and links, and the commands that make and cut them.

    Pure.  Everything follows from the run's number and the hosts' order; addresses are of
    198.18.0.0/15, which no network routes (RFC 2544: benchmarks of network devices).
    """

    def __init__(self, number: int, names: Sequence[str]) -> None:
        self.run_id = f"fm{number:03x}"
        net = f"198.{18 + number // 256}.{number % 256}"
        self.hosts = {name: Host(name, f"{net}.{1 + at}") for at, name in enumerate(names)}
        self.entrance = f"{net}.254"
        self.switch = f"{self.run_id}-switch"

    def namespace(self, host: str) -> str:
        """The network namespace of a host."""
        return f"{self.run_id}-{host}"

    def port(self, host: str) -> str:
        """The switch's end of a host's cable; names of links have at most 15 characters."""
        return f"port{list(self.hosts).index(host)}"

    def build(self) -> list[list[str]]:
        """Make the switch, the way in from this machine, and every host."""
        ip, inside = ["ip"], ["ip", "-n", self.switch]
        return [
            [*ip, "netns", "add", self.switch],
            [*inside, "link", "add", "br0", "type", "bridge", "stp_state", "0"],
            [*inside, "link", "set", "br0", "up"],
            [*inside, "link", "add", "entrance", "type", "veth", "peer", "name", self.run_id],
            [*inside, "link", "set", self.run_id, "netns", str(os.getpid())],
            [*inside, "link", "set", "entrance", "master", "br0", "up"],
            [*ip, "address", "add", f"{self.entrance}/24", "dev", self.run_id],
            [*ip, "link", "set", self.run_id, "up"],
            *(command for host in self.hosts for command in self.build_host(host)),
        ]

    def build_host(self, host: str) -> list[list[str]]:
        """Make one host, with eth0 in the switch."""
        namespace, port = self.namespace(host), self.port(host)
        inside, switch = ["ip", "-n", namespace], ["ip", "-n", self.switch]
        address = f"{self.hosts[host].address}/24"
        return [
            ["ip", "netns", "add", namespace],
            [*inside, "link", "set", "lo", "up"],
            [*switch, "link", "add", port, "type", "veth", "peer", "eth0", "netns", namespace],
            [*switch, "link", "set", port, "master", "br0", "up"],
            [*inside, "address", "add", address, "dev", "eth0"],
            [*inside, "link", "set", "eth0", "up"],
        ]

    def port_of(self, host: str) -> str:
        """The element of the set `ports` that silences a host."""
        return f"ports {{ {self.port(host)} }}"

    def pair_of(self, one: str, other: str) -> str:
        """The elements of the set `pairs` that keep two hosts apart, both ways."""
        a, b = sorted((self.hosts[one].address, self.hosts[other].address))
        return f"pairs {{ {a} . {b}, {b} . {a} }}"

    def rule(self, verb: str, elements: str) -> list[str]:
        """`add` elements to a set of the firewall, or `delete` them: one transaction."""
        return [*self.enter(self.switch), "nft", f"{verb} element bridge lab {elements}"]

    def enter(self, namespace: str) -> list[str]:
        """Argv that runs what follows in a namespace.

        Not `ip netns exec`: that gives the command a /sys of its own, without cgroups.
        """
        return ["nsenter", f"--net=/run/netns/{namespace}"]


class NamespaceLab:
    """A lab of real hosts, as far as the network and the power go (see the port, `lab.Lab`)."""

    partitions = True
    kind = "namespaces"
    """Of its record: who sweeps it when its process is killed (`sweep.py`)."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)

    @staticmethod
    def missing() -> str | None:
        """Why this machine can't have such a lab; None when it can."""
        if os.geteuid() != 0:
            return "network namespaces need root"
        lacking = [tool for tool in ("ip", "nft", "nsenter") if shutil.which(tool) is None]
        return f"not installed: {', '.join(lacking)}" if lacking else refusal()

    @property
    def hosts(self) -> Mapping[str, Host]:
        return MappingProxyType(self._wiring.hosts)

    @property
    def scratch(self) -> Path:
        return self._record.scratch

    async def __aenter__(self) -> Self:
        self._record = Record.claim(self.kind)
        self._record.hosts = self._names
        self._record.save()
        self._wiring = Wiring(self._record.number, self._names)
        self._cgroups = Cgroups(self._record.run_id, self._names)
        self._blocked: set[str] = set()
        try:
            carry_out(self._wiring)
            self._cgroups.make()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def prefix(self, host: str) -> list[str]:
        return [*self._cgroups.prefix(host), *self._wiring.enter(self._wiring.namespace(host))]

    async def spawn(
        self, host: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        return await spawn([*self.prefix(host), *argv], log=log, env=env)

    async def cut(self, host: str) -> None:
        await self._block(self._wiring.port_of(host))

    async def heal(self, host: str) -> None:
        await self._unblock(self._wiring.port_of(host))

    async def cut_between(self, one: str, other: str) -> None:
        await self._block(self._wiring.pair_of(one, other))

    async def heal_between(self, one: str, other: str) -> None:
        await self._unblock(self._wiring.pair_of(one, other))

    async def power_loss(self, host: str) -> None:
        # The cable first: a dying process could still send a FIN, a host without power cannot.
        await self.cut(host)
        self._cgroups.kill(host)
        await asyncio.to_thread(self._kill_all_of, host)

    async def power_on(self, host: str) -> None:
        await self.heal(host)

    def keep(self) -> None:
        self._record.kept = True
        self._record.save()

    def close(self) -> None:
        if not self._record.kept:
            tear_down(self._record)

    async def _block(self, elements: str) -> None:
        await run_beside(self._wiring.rule("add", elements))
        self._blocked.add(elements)

    async def _unblock(self, elements: str) -> None:
        if elements in self._blocked:
            await run_beside(self._wiring.rule("delete", elements))
            self._blocked.remove(elements)

    def _kill_all_of(self, host: str) -> None:
        kill_until_none(partial(pids_in, self._wiring.namespace(host)))


def carry_out(wiring: Wiring) -> None:
    """Make the namespaces, links and rules of a run."""
    run_all(wiring.build())
    run([*wiring.enter(wiring.switch), "nft", "-f", "-"], stdin=FIREWALL)


def refusal() -> str | None:
    """What the kernel says when a switch without hosts is made; None when it makes one.

    Root of a container may not make namespaces, and a small kernel may lack bridges.
    """
    record = Record.claim("namespaces")
    try:
        carry_out(Wiring(record.number, ()))
    except RehearsalFailed as error:
        return error.message
    finally:
        tear_down(record)
    return None


def pids_in(namespace: str) -> list[int]:
    """The living processes of a namespace, also those that left their cgroup."""
    listed = run(["ip", "netns", "pids", namespace]).split()
    return [pid for pid in map(int, listed) if alive(pid)]


def namespaces_of(run_id: str) -> list[str]:
    """The namespaces that a run made and has not removed."""
    directory = Path("/run/netns")
    return sorted(path.name for path in directory.glob(f"{run_id}-*"))


def tear_down(record: Record) -> None:
    """Remove a run: its processes, cgroups, namespaces with their links, and files.

    Needs nothing but the record, and may be repeated: whatever is gone already stays gone.
    """
    for namespace in namespaces_of(record.run_id):
        if not namespace.endswith("-switch"):
            kill_until_none(partial(pids_in, namespace))
    Cgroups(record.run_id, record.hosts).remove()
    # The kernel takes a namespace apart later; the next run may want this link's name now.
    if Path(f"/sys/class/net/{record.run_id}").exists():
        run(["ip", "link", "delete", record.run_id])
    for namespace in namespaces_of(record.run_id):
        run(["ip", "netns", "delete", namespace])
    record.erase()
