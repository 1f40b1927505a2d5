"""Debian's own packages: what is old on a host, what still runs old files, and what to do.

A package's new files serve nobody until the programs that have the old ones open start again; the
kernel's, until the host does.
"""

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flightmode.config import Config
from flightmode.errors import StepFailed
from flightmode.provision.plan import (
    Plan,
    Step,
    fence_restart,
    locked_apt,
    proxy_takeover,
)
from flightmode.provision.wanted import FENCE, PROXY, Role, Wanted
from flightmode.remote.port import Remote

LOOK_WITHIN_S = 300.0
_TAIL = 1200
_UPGRADE = "upgrade --with-new-pkgs -y -q"
"""Never `dist-upgrade`: it may remove packages, and it might be one that we run."""


@dataclass(frozen=True, slots=True)
class Age:
    """What is old on a host."""

    packages: tuple[str, ...]
    """For which Debian has newer ones."""
    stale: frozenset[str]
    """Units of ours with a process that runs files which are replaced."""
    reboot: bool
    """A package has asked for it, or a newer kernel is there than the one that runs."""


def script(wanted: Wanted) -> str:
    """A shell command that fetches the lists of packages and says what is old."""
    listed = " ".join(shlex.quote(name) for name in wanted.units)
    return f"""
{locked_apt("update -q")} >/dev/null || exit 1
apt-get -s -q {_UPGRADE} | awk '$1 == "Inst" {{ print "package " $2 }}'
old=' /(usr|lib|lib64|bin|sbin)/.*\\(deleted\\)$'
for unit in {listed}; do
    group=$(systemctl show --property=ControlGroup --value "$unit")
    [ -n "$group" ] || continue
    for pid in $(find "/sys/fs/cgroup$group" -name cgroup.procs -exec cat {{}} + 2>/dev/null); do
        if grep -qE "$old" "/proc/$pid/maps" 2>/dev/null; then
            echo "stale $unit"
            break
        fi
    done
done
[ ! -e /run/reboot-required ] || echo reboot
if ! systemd-detect-virt --container --quiet; then
    newest=$(ls /boot/vmlinuz-* 2>/dev/null | sort -V | tail -n 1)
    [ -z "$newest" ] || [ "$newest" = "/boot/vmlinuz-$(uname -r)" ] || echo reboot
fi
echo end
"""


def read(answer: str) -> Age | None:
    """None: the answer was cut off."""
    lines = [line.split() for line in answer.splitlines() if line.strip()]
    if not lines or lines[-1] != ["end"]:
        return None
    return Age(
        packages=tuple(sorted(rest[0] for kind, *rest in lines if kind == "package")),
        stale=frozenset(rest[0] for kind, *rest in lines if kind == "stale"),
        reboot=["reboot"] in lines,
    )


def plan(config: Config, wanted: Wanted, age: Age) -> Plan:
    """The next steps: packages first; what those make old is known only afterwards.  Pure.

    An application's machine is never rebooted: what else runs there is not ours.
    """
    if age.packages:
        title = f"upgrade {', '.join(age.packages)}"
        steps = [Step(title, locked_apt(_UPGRADE))]
    elif age.reboot and wanted.role is not Role.APP:
        # Later than the answer, so that the link ends well.
        later = "systemd-run --quiet --on-active=1 systemctl reboot"
        steps = [Step("reboot", later, reboots=True)]
    else:
        steps = [_restart(config, wanted, name) for name in wanted.units if name in age.stale]
    return Plan(wanted.name, (), tuple(steps))


def _restart(config: Config, wanted: Wanted, name: str) -> Step:
    if name == FENCE:
        return fence_restart(config, wanted)
    if name == PROXY:
        return proxy_takeover()
    return Step(f"restart {name}", f"systemctl restart {name}")


async def plan_all(
    config: Config, hosts: Sequence[Wanted], remotes: Mapping[str, Remote]
) -> list[Plan]:
    """What is next on each.  Raises StepFailed, HostUnreachable."""
    ages = await asyncio.gather(*(look(remotes[each.name], each) for each in hosts))
    return [plan(config, each, age) for each, age in zip(hosts, ages, strict=True)]


async def look(remote: Remote, wanted: Wanted) -> Age:
    """What is old there.  Raises StepFailed, HostUnreachable."""
    answer = await remote.run(script(wanted), within_s=LOOK_WITHIN_S)
    age = read(answer.out)
    if age is None:
        said = answer.err.strip()[-_TAIL:]
        raise StepFailed(f"{wanted.name}: apt did not say what is old: {said}")
    return age
