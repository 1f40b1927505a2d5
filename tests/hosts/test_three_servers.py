"""From three bare servers to a cluster that gets over the death of each, in the order of a life.

One story, told once: each chapter begins with what the one before has left.
"""

import asyncio
import json
import time
from typing import Any

import pytest

from flightmode.demo.ledger import check
from flightmode.demo.proxied import Application, seen
from tests.hosts.machines import APP, NODES, Founder, acknowledged, founder, missing, writing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.story,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


LEFT = """
systemctl list-units --no-legend --all 'flightmode*.service'
ls -d /etc/flightmode /opt/flightmode /var/lib/flightmode-etcd /run/flightmode 2>/dev/null
ls -d /etc/systemd/system/flightmode* /etc/sysctl.d/*flightmode* 2>/dev/null
nft list table inet flightmode_firewall 2>/dev/null
pgrep -a 'postgres|etcd|flightmode'
true
"""
"""What Flightmode could leave on a host; of which nothing is to be left."""


async def the_primary_loses_its_power(me: Founder, application: Application) -> str:
    first = me.primary
    began_s = time.monotonic()
    await asyncio.to_thread(me.hosts.machines[first].kill)
    await acknowledged(application, 20)
    gap_s = time.monotonic() - began_s
    assert me.primary != first
    await asyncio.to_thread(me.hosts.boot, first)
    back_s = await asyncio.to_thread(me.until_whole)
    return f"writes again {gap_s:.1f} s after the power loss, whole {back_s:.1f} s after the boot"


async def somebody_reboots_the_primary(me: Founder, application: Application) -> None:
    second = me.primary
    await asyncio.to_thread(me.hosts.machines[second].shut_down)
    await acknowledged(application, 20)
    await asyncio.to_thread(me.hosts.boot, second)
    await asyncio.to_thread(me.until_whole)


async def the_standby_burns_down(me: Founder, application: Application) -> str:
    """A bare machine takes its place, at its address."""
    lost = standby(me)
    alive = await asyncio.to_thread(me.types, "node", "replace", lost, "--config", str(me.toml))
    assert alive.status == 64, alive.out
    assert f"{lost} is still heard of" in alive.out
    await asyncio.to_thread(me.hosts.machines[lost].kill)
    await asyncio.to_thread(me.hosts.replace, lost)
    await asyncio.to_thread(me.hosts.boot, lost)
    wrong_key = await asyncio.to_thread(me.types, "provision", "--config", str(me.toml))
    assert wrong_key.status == 77
    assert "FM803" in wrong_key.out
    await silence_of(me, lost)
    replaced = await asyncio.to_thread(me.does, "node", "replace", lost)
    assert "the cluster is whole" in replaced.out
    await acknowledged(application, 20)
    return f"replaced in {replaced.took_s:.0f} s"


async def it_comes_back_with_an_old_disk(me: Founder, application: Application) -> None:
    """It was struck off while it was away, and what its etcd has is of no use any more."""
    lost = standby(me)
    await asyncio.to_thread(me.hosts.machines[lost].kill)
    await silence_of(me, lost)
    away = await asyncio.to_thread(me.types, "node", "replace", lost, "--config", str(me.toml))
    assert away.status == 69, away.out
    await asyncio.to_thread(me.hosts.boot, lost)
    again = await asyncio.to_thread(me.does, "node", "replace", lost, "--force")
    assert "the cluster is whole" in again.out
    (kept,) = (line.split()[-1] for line in again.out.splitlines() if "-etcd.old-" in line)
    assert me.hosts.ssh(lost, f"ls {kept}/member") != ""
    await acknowledged(application, 20)


def standby(me: Founder) -> str:
    first = me.primary
    return next(name for name in ("ams", "fra") if name != first)


async def silence_of(me: Founder, lost: str) -> None:
    def silent(status: dict[str, Any]) -> bool:
        return any(each["name"] == lost and not each["heard"] for each in status["nodes"])

    await asyncio.to_thread(me.until, silent, f"silence of {lost}", 60)


async def all_lose_their_power_at_once(me: Founder, application: Application) -> str:
    """Nobody types anything."""
    for name in NODES:
        await asyncio.to_thread(me.hosts.machines[name].kill)
    await asyncio.to_thread(me.hosts.boot, *NODES)
    cold_s = await asyncio.to_thread(me.until_whole)
    await acknowledged(application, 20)
    return f"cold start {cold_s:.1f} s"


def it_is_taken_down(me: Founder) -> None:
    """Everywhere; and of the data, also of older copies, everything is still there and is named."""
    refused = me.types("destroy", "--name", "another", "--config", str(me.toml))
    assert refused.status == 1
    older = "/var/lib/flightmode/postgres.old-20260102T030405"
    for name in ("ams", "fra"):
        me.hosts.ssh(name, f"mkdir {older} && echo 15 > {older}/PG_VERSION")
    told = json.loads(me.does("destroy", "--name", "main", "--json").out)
    for name in (*NODES, APP):
        assert me.hosts.ssh(name, LEFT) == "", name
    for name in ("ams", "fra"):
        kept = me.hosts.ssh(name, "ls -d /var/lib/flightmode/*").split()
        assert older in kept
        (aside,) = (path for path in kept if "/postgres.of-" in path)
        me.hosts.ssh(name, f"test -s {aside}/global/pg_control && test -s {older}/PG_VERSION")
        assert told["kept"][name] == kept


async def test_the_life_of_a_cluster_of_three_servers() -> None:
    with founder() as me:
        me.begins()
        made = me.does("provision")
        assert "the cluster is whole" in made.out
        assert "nothing to do" in me.does("provision").out
        me.make_database()
        with me.tunnel() as conninfo:
            async with writing(conninfo) as application:
                await acknowledged(application, 50)
                told = [f"provisioned in {made.took_s:.0f} s"]
                told.append(await the_primary_loses_its_power(me, application))
                await somebody_reboots_the_primary(me, application)
                told.append(await the_standby_burns_down(me, application))
                await it_comes_back_with_an_old_disk(me, application)
                told.append(await all_lose_their_power_at_once(me, application))
                await application.stop()
                rows, imbalance = await application.rows(), await application.imbalance()
        verdict = check(application.history, rows, imbalance=imbalance)
        errors = seen(application.faults)
        told.append(f"{verdict.acknowledged} acknowledged, {len(verdict.lost)} lost; {errors}")
        print("; ".join(told))
        assert verdict.sound, verdict
        assert errors.as_promised, errors
        assert me.hosts.machines[APP].running
        it_is_taken_down(me)
