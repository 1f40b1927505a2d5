"""`flightmode upgrade`: another version of Flightmode, one machine after the other."""

import asyncio
import time
from typing import Annotated, Any

import typer

from flightmode.cli.asking import Asking, by_operator, carry, freshness
from flightmode.cli.commands.provision import is_whole, remotes_of, say, show_plan, whole
from flightmode.cli.options import DEFAULT_CONFIG, AsJson, ConfigPath, Place, place
from flightmode.cli.show import as_json, err, out
from flightmode.errors import RequestRefused, RequestWrong
from flightmode.model.member import NodeKind
from flightmode.provision.apply import carry_out, plan_all
from flightmode.provision.bundle import bundle_of
from flightmode.provision.wanted import Wanted, wanted
from flightmode.provision.wheels import Release, build

SWITCHOVER_WITHIN_S = 60.0
QUIET_S = 2.0
"""So long the cluster has to be whole without a break before the next machine's turn: a standby
that has just begun to restart is in the sync set for a moment still."""
_POLL_S = 0.2


def upgrade(
    config: ConfigPath = DEFAULT_CONFIG,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only say what would be done, in which order.")
    ] = False,
    wait_s: Annotated[
        float,
        typer.Option("--wait", help="So many seconds for the cluster to be whole again."),
    ] = 300.0,
    json: AsJson = False,
) -> None:
    """Bring the version that you are typing this with to all machines, one after the other.

    The witness first, then the standby, then a switchover, then the old primary; at last the
    proxies, whose clients go over to the new process. Nobody is disconnected; writes pause for
    the switchover, less than a second. Refused while the cluster is not whole. When it stops in
    the middle, type it again: what is done is not done twice.
    """
    here = place(config)
    asyncio.run(_Upgrade(here, wait_s, json).run(only_plan=plan))


class _Upgrade:
    def __init__(self, here: Place, wait_s: float, json: bool) -> None:
        self._here, self._wait_s, self._json = here, wait_s, json

    async def run(self, *, only_plan: bool) -> None:
        began_s = time.monotonic()
        status = await self._status()
        if not is_whole(status):
            text = f"the cluster is not whole: {status['route']}"
            raise RequestWrong(text, hint=f"flightmode status --config {self._here.path}")
        primary = str(status["writes"])
        self._tell("making the wheels of Flightmode")
        release = await asyncio.to_thread(build)
        if only_plan:
            await self._show(primary, release)
            return
        steps = 0
        for name in self._order(primary):
            if name == primary and await self._open(name, release):
                await self._switch_over(primary)
            steps += await self._bring(name, release)
        for name in self._here.config.provision.apps:
            steps += await self._bring(name, release)
        took_s = time.monotonic() - began_s
        if self._json:
            as_json({"release": release.name, "steps": steps, "took_s": round(took_s, 1)})
        elif steps == 0:
            out.print(f"nothing to do: all machines have {release.name}")
        else:
            out.print(f"all machines have {release.name}; this took {took_s:.0f} s")

    def _order(self, primary: str) -> list[str]:
        nodes = self._here.config.nodes.items()
        witnesses = [name for name, node in nodes if node.kind is NodeKind.WITNESS]
        standbys = [n for n, node in nodes if n != primary and n not in witnesses]
        return [*witnesses, *standbys, primary]

    async def _show(self, primary: str, release: Release) -> None:
        order = [*self._order(primary), *self._here.config.provision.apps]
        hosts = [self._wanted(name) for name in order]
        async with remotes_of(self._here, hosts) as remotes:
            plans = await plan_all(self._here.config, hosts, remotes, release, fence_too=True)
        if not self._json:
            out.print(f"in this order, with a switchover before {primary}: {', '.join(order)}")
        show_plan(plans, json=self._json)

    def _wanted(self, name: str) -> Wanted:
        config, toml = self._here.config, self._here.path.absolute()
        return wanted(config, name, bundle_of(config, toml, name))

    async def _open(self, name: str, release: Release) -> bool:
        """Whether there is anything left to do on this machine."""
        host = self._wanted(name)
        async with remotes_of(self._here, [host]) as remotes:
            (plan,) = await plan_all(self._here.config, [host], remotes, release, fence_too=True)
        return bool(plan.steps)

    async def _bring(self, name: str, release: Release) -> int:
        """Bring one machine along, and wait until the cluster is whole with it."""
        host = self._wanted(name)
        async with remotes_of(self._here, [host]) as remotes:
            plans = await plan_all(self._here.config, [host], remotes, release, fence_too=True)
            await carry_out(plans, remotes, release, lambda step: say(out, step, quiet=self._json))
        steps = len(plans[0].steps)
        if steps:
            await self._quiet()
        return steps

    async def _quiet(self) -> None:
        """Raises RequestUnfinished."""
        since_s = time.monotonic()
        while time.monotonic() - since_s < QUIET_S:
            await asyncio.sleep(_POLL_S)
            if not is_whole(await self._status()):
                await whole(self._here, self._wait_s)
                since_s = time.monotonic()

    async def _switch_over(self, primary: str) -> None:
        async with by_operator(self._here, self._here.tls(None, None)) as cluster:

            def led_by_another(status: dict[str, Any]) -> bool:
                return status["writes"] not in (None, primary)

            wish = Asking("/switchover", {}, SWITCHOVER_WITHIN_S, True, led_by_another)
            self._tell(f"switchover: {primary} is the primary and the last to be upgraded")
            await carry(cluster, wish)
        if (await self._status())["writes"] == primary:
            raise RequestRefused(f"{primary} is the primary again", hint="flightmode why")
        await self._quiet()

    async def _status(self) -> dict[str, Any]:
        async with by_operator(self._here, self._here.tls(None, None)) as cluster:
            status: dict[str, Any] = (await cluster.best("/status", freshness)).body
        return status

    def _tell(self, words: str) -> None:
        if not self._json:
            err.print(words)
