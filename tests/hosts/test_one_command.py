"""The slice of a cluster's life that every run of the tests looks at: one command, one death."""

import asyncio

import pytest

from tests.hosts.machines import acknowledged, founder, missing, told, writing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


async def test_one_command_makes_a_cluster_that_gets_over_the_death_of_its_primary() -> None:
    with founder() as me:
        me.begins()
        assert "the cluster is whole" in me.does("provision").out
        me.make_database()
        with me.tunnel() as conninfo:
            async with writing(conninfo) as application:
                await acknowledged(application, 50)
                first = me.primary
                await asyncio.to_thread(me.hosts.machines[first].kill)
                await acknowledged(application, 50)
                assert me.primary != first
                end = await told(application)
        end.as_promised()
