"""The next Debian: another Python than this command's, PostgreSQL 17."""

import asyncio

import pytest

from tests.hosts.machines import acknowledged, founder, missing, told, writing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.story,
    pytest.mark.timeout(600),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


async def test_a_cluster_on_debian_13_gets_over_the_death_of_its_primary() -> None:
    with founder("trixie") as me:
        me.begins()
        refused = me.types("provision", "--config", str(me.toml))
        assert refused.status == 75
        assert "Debian 13 has 17 (cluster.postgres_major)" in refused.out
        me.edits("#postgres_major = 15", "postgres_major = 17")
        assert "the cluster is whole" in me.does("provision").out
        me.make_database()
        with me.tunnel() as conninfo:
            async with writing(conninfo) as application:
                await acknowledged(application, 50)
                first = me.primary
                await asyncio.to_thread(me.hosts.machines[first].kill)
                await acknowledged(application, 50)
                assert me.primary != first
                await asyncio.to_thread(me.hosts.boot, first)
                await asyncio.to_thread(me.until_whole)
                end = await told(application)
        end.as_promised()
