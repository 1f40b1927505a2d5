"""One machine after the other, and the cluster whole before and after each."""

import asyncio
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from flightmode.cli.asking import Asking, by_operator, carry
from flightmode.cli.commands.moved import nobody_has_moved
from flightmode.cli.commands.provision import say
from flightmode.cli.commands.reaching import remotes_of
from flightmode.cli.commands.wholeness import answers, lacks, quiet, status_of
from flightmode.cli.leaving import nothing_is_leaving
from flightmode.cli.options import Place
from flightmode.cli.show import err, out
from flightmode.errors import (
    HostRefused,
    HostUnreachable,
    RequestRefused,
    RequestUnfinished,
    RequestWrong,
    StepFailed,
)
from flightmode.provision import turns
from flightmode.provision.apply import carry_out
from flightmode.provision.bundle import bundle_of
from flightmode.provision.plan import Plan
from flightmode.provision.wanted import Wanted, wanted
from flightmode.provision.wheels import Release
from flightmode.remote.port import Remote

SWITCHOVER_WITHIN_S = 60.0
_POLL_S = 0.2
_ASK_WITHIN_S = 10.0
_BOOT = "cat /proc/sys/kernel/random/boot_id"

NOTHING_NEW = Release("")
"""For plans that bring no other Flightmode."""

Planner = Callable[[list[Wanted], Mapping[str, Remote]], Awaitable[list[Plan]]]
"""What is to be done on these machines."""


class Rolling:
    """A change of all machines that no client is to notice."""

    def __init__(
        self,
        here: Place,
        planner: Planner,
        release: Release,
        *,
        wait_s: float,
        json: bool,
        rounds: int = 1,
    ) -> None:
        """`rounds`: so often a machine is looked at again, as long as that finds something.

        Raises RequestWrong: an exchange of nodes was cut off.
        """
        nothing_is_leaving(here)
        self._here, self._planner, self._release = here, planner, release
        self._wait_s, self._json, self._rounds = wait_s, json, rounds

    async def primary(self) -> str:
        """Who accepts writes.  Raises RequestWrong: the cluster is not whole."""
        status = await self.status()
        lacking = lacks(status)
        if lacking:
            text = f"the cluster is not whole: {'; '.join(lacking)}"
            raise RequestWrong(text, hint=f"flightmode status --config {self._here.path}")
        return str(status["writes"])

    async def all(self, *, primary_last: bool) -> int:
        """Every machine's turn; how many steps that took.  May be repeated after any failure.

        `primary_last`: what is done there disturbs Postgres, so another one leads by then.
        Raises RequestWrong, RequestRefused, RequestUnfinished, and what `carry_out` does.
        """
        await nobody_has_moved(self._here)
        steps = 0
        for name in self.order(await self.primary()):
            # Asked each time: a failover in between has made another one the primary.
            leads = name == await self.primary()
            if primary_last and leads and (await self.plans([name]))[0].steps:
                await self.switch_over(name)
            steps += await self._bring(name)
        return steps

    def order(self, primary: str) -> list[str]:
        """Witnesses, standbys, the primary, and then the applications' machines."""
        config = self._here.config
        return [*turns.order(config, primary), *config.provision.apps]

    async def plans(self, names: list[str]) -> list[Plan]:
        """What is left to be done there.  Changes nothing."""
        hosts = [self.wanted(name) for name in names]
        async with remotes_of(self._here, hosts) as remotes:
            return await self._planner(hosts, remotes)

    async def _bring(self, name: str) -> int:
        """Bring one machine along, and wait until the cluster is whole with it."""
        host, steps = self.wanted(name), 0
        for _ in range(self._rounds):
            before = ""
            async with remotes_of(self._here, [host]) as remotes:
                (plan,) = await self._planner([host], remotes)
                if not plan.steps:
                    break
                if _reboots(plan):
                    before = (await remotes[name].run(_BOOT)).out
                await carry_out(
                    [plan], remotes, self._release, lambda step: say(out, step, quiet=self._json)
                )
            if _reboots(plan):
                await self._back(host, before)
            steps += len(plan.steps)
        if steps:
            await self._runs(host)
            await self.quiet()
        return steps

    async def _back(self, host: Wanted, before: str) -> None:
        """Until it answers after its reboot.  Raises RequestUnfinished, HostKeyChanged."""
        until_s, last = time.monotonic() + self._wait_s, "it has not begun"
        while time.monotonic() < until_s:
            try:
                async with remotes_of(self._here, [host]) as remotes:
                    answer = await remotes[host.name].run(_BOOT, within_s=_ASK_WITHIN_S)
                if answer.status == 0 and answer.out != before:
                    return
            except (HostUnreachable, HostRefused) as away:
                # Refused: while it goes down and comes up only root may log in.
                last = away.message
            await asyncio.sleep(_POLL_S)
        text = f"{host.name} is not back from its reboot after {self._wait_s:.0f} s: {last}"
        raise RequestUnfinished(
            text, hint=f"ssh {self._here.config.provision.ssh_user}@{host.host}"
        )

    async def _runs(self, host: Wanted) -> None:
        """Until all of its units do, and its agent answers: the next machine's etcd must not stop
        before this one serves.

        Raises StepFailed, RequestUnfinished.
        """
        services = tuple(name for name in host.units if name.endswith(".service"))
        units = " ".join(services)
        all_active = f"for unit in {units}; do systemctl is-active $unit; done"
        command = f"timeout {self._wait_s:.0f} sh -c {shlex.quote(_each_active(services))}"
        async with remotes_of(self._here, [host]) as remotes:
            link = remotes[host.name]
            if (await link.run(command, within_s=self._wait_s + _ASK_WITHIN_S)).status != 0:
                said = (await link.run(all_active)).out
                text = f"{host.name}: not all of its units run: {units}: {said.split()}"
                raise StepFailed(text, hint="flightmode logs")
        if host.name in self._here.config.nodes:
            await answers(self._here, host.name, self._wait_s)

    def wanted(self, name: str) -> Wanted:
        """What this machine shall have."""
        config, toml = self._here.config, self._here.path.absolute()
        return wanted(config, name, bundle_of(config, toml, name))

    async def quiet(self) -> None:
        """Until the cluster has been whole for a while.  Raises RequestUnfinished."""
        await quiet(self._here, self._wait_s)

    async def switch_over(self, primary: str) -> None:
        """Let another one lead.  Raises RequestRefused, RequestUnfinished."""
        async with by_operator(self._here, self._here.tls(None, None)) as cluster:

            def led_by_another(status: dict[str, Any]) -> bool:
                return status["writes"] not in (None, primary)

            wish = Asking("/switchover", {}, SWITCHOVER_WITHIN_S, True, led_by_another)
            self.tell(f"switchover: {primary} is the primary, and the last database's turn")
            await carry(cluster, wish)
        if (await self.status())["writes"] == primary:
            raise RequestRefused(f"{primary} is the primary again", hint="flightmode why")
        await self.quiet()

    async def ask(self, path: str, name: str) -> None:
        """Let a node do something with its Postgres, and wait until all is whole again."""
        async with by_operator(self._here, self._here.tls(None, None)) as cluster:
            await carry(cluster, Asking(path, {"node": name}, self._wait_s, True))
        await self.quiet()

    async def status(self) -> dict[str, Any]:
        """As the node that knows best has it."""
        return await status_of(self._here)

    def tell(self, words: str) -> None:
        """To whoever watches."""
        if not self._json:
            err.print(words, soft_wrap=True)


def _reboots(plan: Plan) -> bool:
    return any(step.reboots for step in plan.steps)


def _each_active(units: tuple[str, ...]) -> str:
    """`is-active` of several is content with one of them."""
    each = " && ".join(f"systemctl is-active --quiet {name}" for name in units)
    return f"until {each}; do sleep 0.2; done"
