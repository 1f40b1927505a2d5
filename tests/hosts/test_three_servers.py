"""From three bare servers to a cluster that gets over the death of each, in the order of a life.

One story, told once: each chapter begins with what the one before has left.
"""

import asyncio
import time

import pytest

from flightmode.demo.ledger import Outcome, check
from flightmode.demo.proxied import seen
from tests.hosts.machines import APP, NODES, acknowledged, founder, missing, writing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


async def test_the_life_of_a_cluster_of_three_servers() -> None:
    with founder() as me:
        me.begins()
        made = me.does("provision")
        assert "the cluster is whole" in made.out
        again = me.does("provision")
        assert "nothing to do" in again.out
        me.make_database()
        with me.tunnel() as conninfo:
            async with writing(conninfo) as application:
                await acknowledged(application, 50)

                # The primary's machine loses its power.
                first = me.primary
                began_s = time.monotonic()
                await asyncio.to_thread(me.hosts.machines[first].kill)
                await acknowledged(application, 20)
                gap_s = time.monotonic() - began_s
                assert me.primary != first
                await asyncio.to_thread(me.hosts.boot, first)
                back_s = await asyncio.to_thread(me.until_whole)

                # Somebody reboots the other one in an orderly way.
                second = me.primary
                await asyncio.to_thread(me.hosts.machines[second].shut_down)
                await acknowledged(application, 20)
                await asyncio.to_thread(me.hosts.boot, second)
                await asyncio.to_thread(me.until_whole)

                # The standby's machine burns down; a bare one takes its place.
                lost = next(name for name in ("ams", "fra") if name != me.primary)
                await asyncio.to_thread(me.hosts.machines[lost].kill)
                await asyncio.to_thread(me.hosts.replace, lost)
                await asyncio.to_thread(me.hosts.boot, lost)
                wrong_key = await asyncio.to_thread(me.types, "provision", "--config", str(me.toml))
                assert wrong_key.status == 77
                assert "FM803" in wrong_key.out
                replaced = await asyncio.to_thread(me.does, "node", "replace", lost)
                assert "the cluster is whole" in replaced.out
                await acknowledged(application, 20)

                # All three lose their power at once, and come back without a human.
                for name in NODES:
                    await asyncio.to_thread(me.hosts.machines[name].kill)
                await asyncio.to_thread(me.hosts.boot, *NODES)
                cold_s = await asyncio.to_thread(me.until_whole)
                await acknowledged(application, 20)

                await application.stop()
                rows, imbalance = await application.rows(), await application.imbalance()
        verdict = check(application.history, rows, imbalance=imbalance)
        errors = seen(application.faults)
        done = sum(each.outcome is Outcome.ACKNOWLEDGED for each in application.history)
        print(
            f"provisioned in {made.took_s:.0f} s; writes again {gap_s:.1f} s after the power loss, "
            f"whole {back_s:.1f} s after the boot; replaced in {replaced.took_s:.0f} s; "
            f"cold start {cold_s:.1f} s; "
            f"{done} acknowledged, {len(verdict.lost)} lost; errors {errors}"
        )
        assert verdict.sound, verdict
        assert errors.as_promised, errors
        assert me.hosts.machines[APP].running
        refused = me.types("destroy", "--name", "another", "--config", str(me.toml))
        assert refused.status == 1
        me.does("destroy", "--name", "main")
        left = me.hosts.ssh("ams", "systemctl list-units --no-legend 'flightmode*' | wc -l")
        assert int(left) == 0
        kept = me.hosts.ssh("ams", "ls /var/lib/flightmode")
        assert kept.startswith("postgres.of-")
