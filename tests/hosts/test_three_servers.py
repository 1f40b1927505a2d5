"""From three bare servers to a cluster that gets over the death of each, in the order of a life.

One story, told once: each chapter begins with what the one before has left.  The commands are those
of docs/tutorial/three-servers.md, all of them (`Page`).
"""

import asyncio
import time
from typing import Any

import pytest

from flightmode.demo.proxied import Application
from tests.hosts.machines import APP, NODES, Founder, acknowledged, founder, missing, told, writing
from tests.hosts.tutorial import Page

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


def they_become_a_cluster(me: Founder, page: Page) -> str:
    page.types(
        "flightmode init cluster --database ams=10.0.0.1 --database fra=10.0.0.2 "
        "--witness wit=10.0.0.3"
    )
    page.describes()
    planned = page.types("flightmode provision --plan --config cluster/flightmode.toml")
    assert "things to do" in planned.out
    for name in (*NODES, APP):
        assert me.hosts.ssh(name, LEFT) == "", "it only says so"
    made = page.types("flightmode provision --config cluster/flightmode.toml")
    assert "the cluster is whole" in made.out
    assert "nothing to do" in me.does("provision").out
    assert "nothing had to restart" in page.types("flightmode config apply").out
    page.on_primary(
        "runuser -u postgres -- psql -h /run/flightmode/postgres -c "
        "'CREATE DATABASE shop OWNER app'"
    )
    return f"provisioned in {made.took_s:.0f} s"


async def the_primary_loses_its_power(me: Founder, page: Page, application: Application) -> str:
    first = me.primary
    began_s = time.monotonic()
    await asyncio.to_thread(me.hosts.machines[first].kill)
    await acknowledged(application, 20)
    gap_s = time.monotonic() - began_s
    assert me.primary != first
    shown = page.types("flightmode status --config cluster/flightmode.toml")
    assert f"{me.primary} is primary" in shown.out
    assert page.types("flightmode why --config cluster/flightmode.toml").out != ""
    await asyncio.to_thread(me.hosts.boot, first)
    back_s = await asyncio.to_thread(me.until_whole)
    return f"writes again {gap_s:.1f} s after the power loss, whole {back_s:.1f} s after the boot"


async def somebody_reboots_the_primary(me: Founder, application: Application) -> None:
    second = me.primary
    await asyncio.to_thread(me.hosts.machines[second].shut_down)
    await acknowledged(application, 20)
    await asyncio.to_thread(me.hosts.boot, second)
    await asyncio.to_thread(me.until_whole)


async def the_standby_burns_down(me: Founder, page: Page, application: Application) -> str:
    """A bare machine takes its place, at its address, and all get new certificates with it."""
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
    await asyncio.to_thread(page.types, "flightmode init cluster --renew")
    replaced = await asyncio.to_thread(
        page.types, "flightmode node replace fra --config cluster/flightmode.toml", {"fra": lost}
    )
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


def it_is_taken_down(me: Founder, page: Page) -> None:
    """Everywhere; and of the data, also of older copies, everything is still there and is named."""
    assert (
        page.answers("flightmode destroy --config cluster/flightmode.toml", "another").status == 1
    )
    older = "/var/lib/flightmode/postgres.old-20260102T030405"
    for name in ("ams", "fra"):
        me.hosts.ssh(name, f"mkdir {older} && echo 15 > {older}/PG_VERSION")
    done = page.answers("flightmode destroy --config cluster/flightmode.toml", "main")
    assert done.status == 0, done.out
    for name in (*NODES, APP):
        assert me.hosts.ssh(name, LEFT) == "", name
    for name in ("ams", "fra"):
        # A replaced host's member of etcd is put aside too.
        listing = "ls -d /var/lib/flightmode/* /var/lib/flightmode-* 2>/dev/null || true"
        kept = me.hosts.ssh(name, listing).split()
        assert older in kept
        (aside,) = (path for path in kept if "/postgres.of-" in path)
        me.hosts.ssh(name, f"test -s {aside}/global/pg_control && test -s {older}/PG_VERSION")
        named = [
            words[-1] for line in done.out.splitlines() if (words := line.split())[:1] == [name]
        ]
        assert sorted(path for path in named if path.startswith("/")) == sorted(kept)


async def test_the_life_of_a_cluster_of_three_servers() -> None:
    with founder() as me:
        page = Page(me)
        steps = [they_become_a_cluster(me, page)]
        with me.tunnel() as conninfo:
            async with writing(conninfo) as application:
                await acknowledged(application, 50)
                steps.append(await the_primary_loses_its_power(me, page, application))
                await somebody_reboots_the_primary(me, application)
                steps.append(await the_standby_burns_down(me, page, application))
                await it_comes_back_with_an_old_disk(me, application)
                steps.append(await all_lose_their_power_at_once(me, application))
                end = await told(application)
        print("; ".join((*steps, str(end))))
        end.as_promised()
        assert me.hosts.machines[APP].running
        it_is_taken_down(me, page)
        assert page.left == [], "the page has more commands"
