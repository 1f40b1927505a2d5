"""The hosts: namespaces as the demo has them, with worse networks, and a disk for each node.

one-way      rules in the switch that drop only what goes to a host, or only what it sends
slow link    a token bucket on both ends of a host's cable (tc-tbf(8))
pause        the host's cgroup frozen: what a hypervisor does to a virtual machine
clock        a page that a preloaded library adds to the wall clock (`clock.c`)
disk         `disks.py`; power loss also loses what was not synced
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

from chaos.clocks import Clocks
from chaos.disks import Disks, thaw_all, unmount_all
from flightmode.demo import namespaces
from flightmode.demo.cgroup import Cgroups, mount_point
from flightmode.demo.command import run, run_beside
from flightmode.demo.killing import kill_until_none
from flightmode.demo.namespaces import NamespaceLab, namespaces_of, pids_in
from flightmode.demo.record import Record
from flightmode.errors import RehearsalFailed

ONE_WAY = """
table bridge chaos {
  set deaf { type ifname; }
  set mute { type ifname; }
  chain forward {
    type filter hook forward priority 1; policy accept;
    oifname @deaf ether type != arp drop
    iifname @mute ether type != arp drop
  }
}
"""
KIND = "chaos"
"""Of the records of such runs."""
_FROZEN_S = 5.0


class ChaosLab(NamespaceLab):
    """As the lab of the demo, and more that can go wrong.  Logs go to `logs`, not to the disks."""

    kind = KIND

    def __init__(self, names: Sequence[str], *, with_disks: Sequence[str], logs: Path) -> None:
        super().__init__(names)
        self._with_disks = tuple(with_disks)
        self._logs = logs

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        try:
            run([*self._wiring.enter(self._wiring.switch), "nft", "-f", "-"], stdin=ONE_WAY)
            self.disks = Disks(self.scratch, self._with_disks)
            self.clocks = Clocks.make(self.scratch, self._names)
        except BaseException:
            self.close()
            raise
        self._one_way: set[tuple[str, str]] = set()
        self._slow: set[str] = set()
        self.environment: dict[str, dict[str, str]] = {name: {} for name in self._names}
        """What the programs of a host are started with, from now on."""
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def close(self) -> None:
        if not self._record.kept:
            tear_down(self._record)

    async def spawn(
        self, host: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None
    ) -> asyncio.subprocess.Process:
        preload = self.clocks.environment(host) if self.clocks else {}
        whole = {**(env or {}), **preload, **self.environment[host]}
        where = self._logs / f"{host}-{log.name}"
        return await super().spawn(host, argv, log=where, env=whole)

    async def power_loss(self, host: str) -> None:
        """Nothing is left of its processes, nor of what they had written and not synced."""
        await self.cut(host)
        self._cgroups.kill(host)
        # A process that waits for a stalled disk cannot die before it goes on.
        await asyncio.to_thread(self.disks.thaw, host)
        await super().power_loss(host)
        await asyncio.to_thread(self.disks.lose_power, host)

    async def power_on(self, host: str) -> None:
        await asyncio.to_thread(self.disks.mount, host)
        await super().power_on(host)

    # ---------------------------------------------------------------- the network

    async def heal_surely(self, host: str, pair: tuple[str, str]) -> None:
        """Undo cuts that nobody knows to be there: add each again, then take it away."""
        await self.cut(host)
        await self.heal(host)
        await self.cut_between(*pair)
        await self.heal_between(*pair)

    async def deafen(self, host: str) -> None:
        """Drop what goes to the host; what it sends arrives."""
        await self._set_one_way("deaf", host)

    async def mute(self, host: str) -> None:
        """Drop what the host sends; it hears everything."""
        await self._set_one_way("mute", host)

    async def heal_one_way(self, host: str) -> None:
        """Undo `deafen` and `mute`."""
        for kind in ("deaf", "mute"):
            if (kind, host) in self._one_way:
                await run_beside(self._one_way_rule("delete", kind, host))
                self._one_way.remove((kind, host))

    async def _set_one_way(self, kind: str, host: str) -> None:
        await run_beside(self._one_way_rule("add", kind, host))
        self._one_way.add((kind, host))

    def _one_way_rule(self, verb: str, kind: str, host: str) -> list[str]:
        element = f"{kind} {{ {self._wiring.port(host)} }}"
        enter = self._wiring.enter(self._wiring.switch)
        return [*enter, "nft", f"{verb} element bridge chaos {element}"]

    async def slow(self, host: str, kbit: int) -> None:
        """Let so many kilobits a second through, each way, with a queue of half a second."""
        for argv in self._queues("add", host):
            await run_beside(
                [*argv, "tbf", "rate", f"{kbit}kbit", "burst", "8kb", "latency", "500ms"]
            )
        self._slow.add(host)

    async def heal_slow(self, host: str) -> None:
        """Undo `slow`."""
        if host in self._slow:
            self._slow.remove(host)
            for argv in self._queues("del", host):
                await run_beside(argv)

    def _queues(self, verb: str, host: str) -> list[list[str]]:
        ends = (
            (self._wiring.switch, self._wiring.port(host)),
            (self._wiring.namespace(host), "eth0"),
        )
        return [
            [*self._wiring.enter(namespace), "tc", "qdisc", verb, "dev", device, "root"]
            for namespace, device in ends
        ]

    # ---------------------------------------------------------------- the virtual machine

    @staticmethod
    def pauses() -> bool:
        """Whether hosts can be paused here."""
        return mount_point() is not None

    async def pause(self, host: str) -> None:
        """Stop all processes of a host at once, without their noticing.  Raises RehearsalFailed."""
        if not self._freeze(host, "1"):
            raise RehearsalFailed("no cgroups here: a host cannot be paused")
        events = self._group(host) / "cgroup.events"
        until_s = time.monotonic() + _FROZEN_S
        while "frozen 1" not in events.read_text():
            if time.monotonic() > until_s:
                raise RehearsalFailed(f"{host} did not freeze within {_FROZEN_S:.0f} s")
            await asyncio.sleep(0.005)

    async def resume(self, host: str) -> None:
        """Undo `pause`."""
        self._freeze(host, "0")

    def _group(self, host: str) -> Path:
        assert self._cgroups.root is not None
        return self._cgroups.root / host

    def _freeze(self, host: str, text: str) -> bool:
        if self._cgroups.root is None or not (path := self._group(host) / "cgroup.freeze").exists():
            return False
        path.write_text(text)
        return True


def tear_down(record: Record) -> None:
    """Remove a run: its programs, then its disks, then all that a lab of the demo has.

    Needs nothing but the record, and may be repeated.
    """
    # A program that waits for a stalled disk cannot end, and a disk that is used cannot go.
    thaw_all(record.scratch)
    cgroups = Cgroups(record.run_id, record.hosts)
    for host in record.hosts:
        cgroups.kill(host)
    for namespace in namespaces_of(record.run_id):
        if not namespace.endswith("-switch"):
            kill_until_none(partial(pids_in, namespace))
    unmount_all(record.scratch)
    namespaces.tear_down(record)
