"""One machine makes room for another while the cluster serves.

What was begun is written down beside flightmode.toml (`leaving/NAME.toml`), so that a command
that was cut off goes on where it stopped.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flightmode.cli.asking import Asking, by_operator, carry, freshness
from flightmode.cli.commands.provision import bring, say
from flightmode.cli.commands.reaching import etcd_through, remotes_of
from flightmode.cli.commands.rolling import NOTHING_NEW, SWITCHOVER_WITHIN_S
from flightmode.cli.commands.standing import nobody_has_moved
from flightmode.cli.leaving import leaving, record_of
from flightmode.cli.options import Place, place
from flightmode.cli.show import out
from flightmode.config import locations_of, parse
from flightmode.config.edit import with_node_exchanged
from flightmode.errors import (
    FlightmodeError,
    HostRefused,
    HostUnreachable,
    RequestRefused,
    RequestUnfinished,
    RequestWrong,
)
from flightmode.model.member import NodeKind
from flightmode.pki import Authority
from flightmode.provision.apply import carry_out, plan_all
from flightmode.provision.bundle import bundle_of
from flightmode.provision.rejoin import clearing, existing, follow
from flightmode.provision.removal import removal
from flightmode.provision.succession import Exchange
from flightmode.provision.wanted import wanted

_POLL_S = 0.2


class Exchanging:
    """Exchanges of nodes of one cluster, one after the other."""

    def __init__(self, path: Path, *, wait_s: float, json: bool) -> None:
        self._path, self._wait_s, self._json = path, wait_s, json

    @property
    def here(self) -> Place:
        """As flightmode.toml says now: an exchange changes it."""
        return place(self._path)

    def rewrite(self, change: Callable[[str], str]) -> None:
        """flightmode.toml, changed."""
        replace_text(self._path, change(self._path.read_text()))

    async def exchange(self, exchange: Exchange) -> None:
        """Begin it, and bring it to its end.

        Nothing is changed before it is known that the new machine fits.  Raises RequestWrong,
        ConfigInvalid, and what `provision` documents.
        """
        here = self.here
        await nobody_has_moved(here)
        text = self._path.read_text()
        new_text = with_node_exchanged(text, exchange.out, exchange.name, exchange.settings)
        base = self._path.absolute().parent
        new = Place(parse(new_text, base=base, name=str(self._path)), self._path)
        self._tell(f"{exchange.out} leaves, {exchange.name} comes in its place")
        self._issue(new, exchange.name)
        await self._fits(new, exchange.name)
        status = await self._serving(without=exchange.out)
        if status["writes"] == exchange.out:
            await self._switch_over(here, exchange.out)
        record = record_of(self._path, exchange.out)
        record.parent.mkdir(mode=0o700, exist_ok=True)
        record.write_text(text)
        replace_text(self._path, new_text)
        await self.finish()

    async def finish(self) -> None:
        """Bring an exchange that was begun to its end.  May be repeated after any failure."""
        here = self.here
        for record in leaving(self._path):
            gone = record.stem
            old = self._as_it_was(record)
            stayers = [name for name in here.config.nodes if name in old.config.nodes]
            newcomers = await self._etcd_follows(here, through=[*stayers, gone], old=old)
            for name in (*stayers, *here.config.provision.apps):
                await self._tells(here, name, stayers)
            await self._not_counted_on(gone)
            await self._take_off(old, gone)
            await cleared(here, newcomers, json=self._json)
            extra = {name: (existing(member),) for name, member in newcomers.items()}
            names = [*here.config.nodes, *here.config.provision.apps]
            await bring(here, names, extra=extra, wait_s=self._wait_s, json=self._json)
            shutil.rmtree(self._path.parent / "nodes" / gone, ignore_errors=True)
            record.unlink()

    def _as_it_was(self, record: Path) -> Place:
        """The cluster before the exchange; its paths count from where the file was."""
        base = self._path.absolute().parent
        return Place(parse(record.read_text(), base=base, name=str(record)), self._path)

    def _issue(self, new: Place, name: str) -> None:
        """Its certificate and secrets, where `init` puts those of the others."""
        home = self._path.absolute().parent
        mine = home / "nodes" / name
        if not (mine / "tls" / "node.key").exists():
            authority = Authority.load(home / "ca")
            authority.issue_node(name, [new.config.nodes[name].host]).save(mine / "tls", "node")
        shutil.copytree(home / "secrets", mine / "secrets", dirs_exist_ok=True)

    async def _fits(self, new: Place, name: str) -> None:
        """Look at the new machine.  Raises HostUnfit, HostUnreachable."""
        host = wanted(new.config, name, bundle_of(new.config, self._path.absolute(), name))
        async with remotes_of(new, [host]) as remotes:
            await plan_all(new.config, [host], remotes, None)

    async def _serving(self, without: str) -> dict[str, Any]:
        """The status, if all others are well.  Raises RequestWrong."""
        status = await _status(self.here)
        silent = [n["name"] for n in status["nodes"] if not n["heard"] and n["name"] != without]
        if status["writes"] is None or silent:
            told = f"; nothing is heard of {', '.join(silent)}" if silent else ""
            text = f"the cluster is not well: {status['route']}{told}"
            raise RequestWrong(text, hint=f"flightmode status --config {self._path}")
        return status

    async def _switch_over(self, here: Place, primary: str) -> None:
        """Let another one lead.  Raises RequestRefused, RequestUnfinished."""

        def led_by_another(status: dict[str, Any]) -> bool:
            return status["writes"] not in (None, primary)

        self._tell(f"switchover: {primary} is the primary")
        async with by_operator(here, here.tls(None, None)) as cluster:
            await carry(
                cluster, Asking("/switchover", {}, SWITCHOVER_WITHIN_S, True, led_by_another)
            )
        if (await _status(here))["writes"] == primary:
            raise RequestRefused(f"{primary} is the primary again", hint="flightmode why")

    async def _tells(self, here: Place, name: str, stayers: list[str]) -> None:
        """One of those that stay hears of the change: its agent or proxy goes by the new file."""
        host = wanted(here.config, name, bundle_of(here.config, self._path.absolute(), name))
        async with remotes_of(here, [host]) as remotes:
            plans = await plan_all(here.config, [host], remotes, None)
            await carry_out(
                plans, remotes, NOTHING_NEW, lambda step: say(out, step, quiet=self._json)
            )

        def well(status: dict[str, Any]) -> bool:
            heard = {node["name"] for node in status["nodes"] if node["heard"]}
            return status["writes"] is not None and heard.issuperset(stayers)

        await self._until(well, f"{', '.join(stayers)} to be well again")
        node = here.config.nodes.get(name)
        if node is not None and node.kind is NodeKind.DATABASE:
            # Its rules of access name the nodes.
            async with by_operator(here, here.tls(None, None)) as cluster:
                await carry(cluster, Asking("/reload", {"node": name}, self._wait_s, True))

    async def _etcd_follows(self, here: Place, through: list[str], old: Place) -> Mapping[str, int]:
        """Before the others close their firewalls to who goes: it may lead etcd."""
        async with etcd_through(old, through) as store:
            return await follow(store.members, here.config)

    async def _not_counted_on(self, gone: str) -> None:
        """Until commits wait for another one, or for nobody where there is no other.

        The machine may go then, and no client waits for it.
        """

        def spared(status: dict[str, Any]) -> bool:
            others = [n for n in status["nodes"] if n["streaming"] and n["name"] != gone]
            sync = status["state"]["sync"]
            # Where no other follows yet, nothing is gained by waiting.
            return status["writes"] not in (None, gone) and (
                not others or (bool(sync) and gone not in sync)
            )

        await self._until(spared, f"commits to wait for {gone} no longer")

    async def _take_off(self, old: Place, name: str) -> None:
        """Nothing of ours runs there any more; its data stay, under another name."""
        host = wanted(old.config, name, bundle_of(old.config, self._path.absolute(), name))
        plan = removal(host, str(locations_of(old.config, name).data_dir))
        try:
            async with remotes_of(old, [host]) as remotes:
                await carry_out(
                    [plan], remotes, NOTHING_NEW, lambda step: say(out, step, quiet=self._json)
                )
        except (HostUnreachable, HostRefused) as away:
            # etcd has struck it off and the others' firewalls are closed to it.
            self._tell(f"{name} is left as it is: {away.message}")

    async def _until(self, holds: Callable[[dict[str, Any]], bool], what: str) -> None:
        until_s, last = time.monotonic() + self._wait_s, "no node has answered"
        while time.monotonic() < until_s:
            try:
                status = await _status(self.here)
                if holds(status):
                    return
                last = str(status["route"])
            except FlightmodeError as failure:
                last = failure.message
            await asyncio.sleep(_POLL_S)
        text = f"waited {self._wait_s:.0f} s for {what}: {last}"
        raise RequestUnfinished(text, hint=f"flightmode node finish --config {self._path}")

    def _tell(self, words: str) -> None:
        if not self._json:
            out.print(words, soft_wrap=True)


async def cleared(here: Place, newcomers: Mapping[str, int], *, json: bool) -> None:
    """Nothing of an earlier life is in the way of these members of etcd."""
    base = here.path.absolute()
    hosts = [wanted(here.config, name, bundle_of(here.config, base, name)) for name in newcomers]
    plans = [clearing(name, member) for name, member in newcomers.items()]
    async with remotes_of(here, hosts) as remotes:
        await carry_out(plans, remotes, NOTHING_NEW, lambda step: say(out, step, quiet=json))


def replace_text(path: Path, text: str) -> None:
    """The whole new file or the whole old one, whatever happens meanwhile."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text)
    os.replace(beside, path)


async def _status(here: Place) -> dict[str, Any]:
    async with by_operator(here, here.tls(None, None)) as cluster:
        status: dict[str, Any] = (await cluster.best("/status", freshness)).body
    return status
