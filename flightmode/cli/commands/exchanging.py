"""One machine makes room for another while the cluster serves.

What was begun is written down beside flightmode.toml (leaving.py), so that a command that was cut
off goes on where it stopped.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flightmode.cli.asking import Asking
from flightmode.cli.commands.anew import cleared, finish_anew, fits
from flightmode.cli.commands.provision import say
from flightmode.cli.commands.rolling import NOTHING_NEW, SWITCHOVER_WITHIN_S
from flightmode.cli.commands.ways import NETWORK, Ways
from flightmode.cli.leaving import coming_anew, leaving, record_of, write_down
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
from flightmode.provision.bundle import bundle_of, end_soon
from flightmode.provision.rejoin import existing, follow
from flightmode.provision.removal import removal
from flightmode.provision.succession import Exchange
from flightmode.provision.wanted import wanted

_POLL_S = 0.2


class Exchanging:
    """Exchanges of nodes of one cluster, one after the other."""

    def __init__(self, path: Path, *, wait_s: float, json: bool, ways: Ways = NETWORK) -> None:
        self._path, self._wait_s, self._json, self._ways = path, wait_s, json, ways

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
        await self._ways.nobody_has_moved(here)
        text = self._path.read_text()
        new_text = with_node_exchanged(text, exchange.out, exchange.name, exchange.settings)
        base = self._path.absolute().parent
        new = Place(parse(new_text, base=base, name=str(self._path)), self._path)
        self._tell(f"{exchange.out} leaves, {exchange.name} comes in its place")
        self._issue(new, exchange.name)
        self._certified(new)
        await fits(self._ways, new, exchange.name)
        status = await self._serving(without=exchange.out)
        if status["writes"] == exchange.out:
            await self._switch_over(here, exchange.out)
        write_down(record_of(self._path, exchange.out), text)
        replace_text(self._path, new_text)
        await self.finish()

    async def finish(self) -> None:
        """Bring what was begun to its end.  May be repeated after any failure."""
        for record in coming_anew(self._path):
            await finish_anew(
                self.here, record.stem, self._ways, wait_s=self._wait_s, json=self._json
            )
        for record in leaving(self._path):
            if record.stem in self.here.config.nodes:
                # flightmode.toml is written after the record, and all else after both.
                await self._is_not_an_old_file(record.stem)
                record.unlink()
                self._tell(f"{record.stem} stays: nothing of its exchange had begun")
            else:
                await self._finish(self.here, record.stem)

    async def _is_not_an_old_file(self, gone: str) -> None:
        """Raises RequestWrong: somebody has put the flightmode.toml of before in its place."""
        try:
            await self._ways.nobody_has_moved(self.here)
        except RequestWrong as moved:
            text = f"the exchange of {gone} had begun, and {self._path} is that of before it: put "
            text += f"back the one that it wrote ({moved.message})"
            raise RequestWrong(text, hint=f"flightmode node finish --config {self._path}") from None

    async def _finish(self, here: Place, gone: str) -> None:
        record = record_of(self._path, gone)
        old = self._as_it_was(record)
        stayers = [name for name in here.config.nodes if name in old.config.nodes]
        self._certified(here)
        await self._led_by_another(old, gone)
        newcomers = await self._etcd_follows(here, through=[*stayers, gone], old=old)
        for name in (*stayers, *here.config.provision.apps):
            await self._led_by_another(old, gone)
            await self._tells(here, name, stayers)
        await self._not_counted_on(gone)
        await self._take_off(old, gone)
        await cleared(self._ways, here, newcomers, json=self._json)
        extra = {name: (existing(member),) for name, member in newcomers.items()}
        names = [*here.config.nodes, *here.config.provision.apps]
        await self._ways.bring(here, names, extra=extra, wait_s=self._wait_s, json=self._json)
        shutil.rmtree(self._path.parent / "nodes" / gone, ignore_errors=True)
        record.unlink()

    def _as_it_was(self, record: Path) -> Place:
        """The cluster before the exchange; its paths count from where the file was."""
        base = self._path.absolute().parent
        return Place(parse(record.read_text(), base=base, name=str(record)), self._path)

    def _issue(self, new: Place, name: str) -> None:
        """Its certificate and secrets, where `init` puts those of the others.

        Anew each time: what a run before has left there may be for another address.
        """
        home = self._path.absolute().parent
        mine = home / "nodes" / name
        authority = Authority.load(home / "ca")
        authority.issue_node(name, [new.config.nodes[name].host]).save(mine / "tls", "node")
        shutil.copytree(home / "secrets", mine / "secrets", dirs_exist_ok=True)

    def _certified(self, new: Place) -> None:
        """In the end each machine gets its certificate: no time to learn that one is not good.

        Raises BundleMissing, CertificateInvalid.
        """
        toml = self._path.absolute()
        names = [*new.config.nodes, *new.config.provision.apps]
        for name in names:
            bundle_of(new.config, toml, name)
        end_soon(new.config, toml, names)

    async def _serving(self, without: str) -> dict[str, Any]:
        """The status, if all others are well.  Raises RequestWrong."""
        status = await self._ways.status(self.here)
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
        wish = Asking("/switchover", {}, SWITCHOVER_WITHIN_S, True, led_by_another)
        await self._ways.ask(here, wish)
        if (await self._ways.status(here))["writes"] == primary:
            raise RequestRefused(f"{primary} is the primary again", hint="flightmode why")

    async def _led_by_another(self, old: Place, gone: str) -> None:
        """Who goes may have taken over since it handed over: whoever goes by the new file does
        not know it, and would neither follow it nor take over from it.

        Raises RequestRefused: nobody can take over from it.
        """
        status = await self._until(lambda status: status["writes"] is not None, "a primary", old)
        if status["writes"] != gone:
            return
        try:
            await self._switch_over(old, gone)
        except RequestRefused as refusal:
            text = (
                f"{gone} is to go, is the primary, and nobody can take over from it: "
                f"{refusal.message}. It stays until somebody can"
            )
            hint = f"flightmode node finish --config {self._path}"
            raise RequestRefused(text, hint=hint) from None

    async def _tells(self, here: Place, name: str, stayers: list[str]) -> None:
        """One of those that stay hears of the change: its agent or proxy goes by the new file."""
        host = wanted(here.config, name, bundle_of(here.config, self._path.absolute(), name))
        async with self._ways.remotes(here, [host]) as remotes:
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
            await self._ways.ask(here, Asking("/reload", {"node": name}, self._wait_s, True))

    async def _etcd_follows(self, here: Place, through: list[str], old: Place) -> Mapping[str, int]:
        """Before the others close their firewalls to who goes: it may lead etcd."""
        async with self._ways.etcd(old, through) as members:
            return await follow(members, here.config)

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
            async with self._ways.remotes(old, [host]) as remotes:
                await carry_out(
                    [plan], remotes, NOTHING_NEW, lambda step: say(out, step, quiet=self._json)
                )
        except (HostUnreachable, HostRefused) as away:
            # etcd has struck it off and the others' firewalls are closed to it.
            self._tell(f"{name} is left as it is: {away.message}")

    async def _until(
        self, holds: Callable[[dict[str, Any]], bool], what: str, asked: Place | None = None
    ) -> dict[str, Any]:
        """The status of which it holds.  Raises RequestUnfinished."""
        until_s, last = time.monotonic() + self._wait_s, "no node has answered"
        while time.monotonic() < until_s:
            try:
                status = await self._ways.status(asked or self.here)
                if holds(status):
                    return status
                last = str(status["route"])
            except FlightmodeError as failure:
                last = failure.message
            await asyncio.sleep(_POLL_S)
        text = f"waited {self._wait_s:.0f} s for {what}: {last}"
        raise RequestUnfinished(text, hint=f"flightmode node finish --config {self._path}")

    def _tell(self, words: str) -> None:
        if not self._json:
            out.print(words, soft_wrap=True)


def replace_text(path: Path, text: str) -> None:
    """The whole new file or the whole old one, whatever happens meanwhile; its mode stays."""
    beside = path.with_name(f"{path.name}.new")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    shutil.copymode(path, beside)
    os.replace(beside, path)
