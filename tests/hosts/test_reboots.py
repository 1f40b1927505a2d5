"""Any two nodes reboot at once, and the application's machine does: nobody types anything."""

import asyncio
from collections.abc import Sequence
from itertools import combinations

import psycopg
import pytest

from flightmode.demo.proxied import Application
from tests.hosts.machines import APP, NODES, Founder, acknowledged, founder, missing, told, writing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.story,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

PORT_IS_HELD = "systemctl is-active flightmode-proxy.socket && ss -Hltn 'sport = :6432' | grep -q ."


async def reboot(me: Founder, *names: str) -> float:
    """All of them at once, as one does that is told to; how long until the cluster is whole."""
    machines = [me.hosts.machines[name] for name in names]
    await asyncio.gather(*(asyncio.to_thread(machine.shut_down) for machine in machines))
    await asyncio.to_thread(me.hosts.boot, *names)
    return await asyncio.to_thread(me.until_whole, 180.0)


async def two_reboot(me: Founder, pair: Sequence[str], application: Application) -> str:
    whole_s = await reboot(me, *pair)
    again_s = await acknowledged(application, 20)
    return f"{' and '.join(pair)}: whole {whole_s:.1f} s after the boot, {again_s:.1f} s for 20"


async def the_applications_machine_reboots(me: Founder) -> str:
    """Its proxy serves again by itself, and its port is held by systemd from the boot on."""
    with me.tunnel() as conninfo, psycopg.connect(conninfo, autocommit=True) as link:
        link.execute("CREATE TABLE kept (at timestamptz DEFAULT now())")
        link.execute("INSERT INTO kept DEFAULT VALUES")
    whole_s = await reboot(me, APP)
    me.hosts.until_true(APP, PORT_IS_HELD, within_s=60)
    with me.tunnel() as conninfo, psycopg.connect(conninfo, autocommit=True) as link:
        link.execute("INSERT INTO kept DEFAULT VALUES")
        assert link.execute("SELECT count(*) FROM kept").fetchone() == (2,)
    return f"{APP}: served {whole_s:.1f} s after the boot"


async def test_any_two_nodes_and_the_applications_machine_reboot_and_nothing_is_lost() -> None:
    with founder() as me:
        me.begins()
        me.does("provision")
        me.make_database()
        steps = [await the_applications_machine_reboots(me)]
        with me.tunnel() as conninfo:
            async with writing(conninfo) as application:
                await acknowledged(application, 50)
                for pair in combinations(NODES, 2):
                    steps.append(await two_reboot(me, pair, application))
                end = await told(application)
        print("; ".join((*steps, str(end))))
        end.as_promised()
        assert "nothing to do" in me.does("provision").out, "a reboot makes nothing old"
