"""The hand on a primary and its standbys: copies, proof of waiting, promotion, return."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from flightmode.errors import PostgresCommandFailed, SourceNotReady
from flightmode.model.lsn import NOWHERE
from flightmode.model.server import Role, Run, Server
from flightmode.model.timeline import Switch
from flightmode.postgres.server import PostgresServer
from tests.integration.fence_process import eventually
from tests.integration.postgres_server import SMALL, Machine, Node

pytestmark = pytest.mark.integration


async def promoted(node: Node) -> Server:
    """As the agent does it: detach, no receiver left, promote, prepare."""
    await detached(node)
    await node.server.promote()
    seen = await node.until("it is a primary", lambda seen: seen.run is Run.PRIMARY)
    await node.server.prepare(tuple(peer.name for peer in node.config.peers))
    return seen


async def detached(node: Node) -> Server:
    await node.server.detach()
    return await node.until(
        "no receiver is left", lambda seen: seen.receiver is None and seen.following is None
    )


async def caught_up(node: Node, of: Node) -> None:
    target = (await of.observe()).position
    await node.until(f"it has replayed {target}", lambda seen: seen.replayed >= target)


async def follows_again(node: Node, leader: Node) -> Server:
    await node.start(Role.STANDBY, leader)
    return await node.until(
        "it streams", lambda seen: bool(seen.receiver and seen.receiver.streaming)
    )


async def table(node: Node) -> None:
    await node.sql("CREATE TABLE rows (i int PRIMARY KEY)")


async def add(node: Node, number: int) -> None:
    await node.sql("INSERT INTO rows VALUES (%s)", number)


async def rows(node: Node) -> list[int]:
    return [row[0] for row in await node.sql("SELECT i FROM rows ORDER BY i")]


# ------------------------------------------------------------------------- copies


async def test_a_copy_streams_from_its_primary(machine: Machine) -> None:
    ams = await machine.primary()
    await table(ams)
    fra = await machine.standby("fra", ams)
    await add(ams, 1)
    await caught_up(fra, ams)
    assert await rows(fra) == [1]
    seen, leader = await fra.observe(), await ams.observe()
    assert (seen.run, seen.following) == (Run.STANDBY, "ams")
    assert seen.receiver is not None
    assert (seen.receiver.streaming, seen.receiver.timeline) == (True, 1)
    assert seen.data is not None
    assert leader.data is not None
    assert seen.data.system_identifier == leader.data.system_identifier
    replica = leader.replica("fra")
    assert replica is not None
    assert (replica.streaming, replica.sync_state) == (True, "async")
    slot = leader.slot("fra")
    assert slot is not None
    assert (slot.active, slot.wal_status) == (True, "reserved")


async def test_connections_between_the_nodes_are_encrypted(machine: Machine) -> None:
    if not machine.flavour.tls:
        pytest.skip("this PostgreSQL was built without TLS")
    ams = await machine.primary()
    await machine.standby("fra", ams)
    assert await ams.sql(
        "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)"
    ) == [(True,)]


async def test_a_cut_off_copy_can_be_begun_again(machine: Machine) -> None:
    ams = await machine.primary()
    fra = machine.node("fra")
    copying = asyncio.create_task(fra.server.clone("ams"))
    beside = fra.config.data_dir.with_name("data.clone")

    async def begun() -> bool:
        return (beside / "PG_VERSION").exists() or copying.done()

    await eventually("the copy has begun", begun)
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert (await fra.observe()).run is Run.ABSENT, "half a copy is none"
    assert not [each for each in fra.living() if each.name() == "pg_basebackup"]
    await fra.server.clone("ams")
    await follows_again(fra, ams)


async def test_a_copy_keeps_what_stood_there(machine: Machine) -> None:
    ams = await machine.primary()
    fra = await machine.standby("fra", ams)
    await fra.stop()
    (fra.config.data_dir / "mark").write_text("old")
    await fra.server.clone("ams")
    kept = list(fra.config.data_dir.parent.glob("data.old-*/mark"))
    assert [path.read_text() for path in kept] == ["old"]
    await follows_again(fra, ams)


async def test_a_copy_of_nobody_fails_and_leaves_what_was_there(machine: Machine) -> None:
    ams = await machine.primary()
    fra = await machine.standby("fra", ams)
    await fra.stop()
    await ams.stop()
    with pytest.raises(PostgresCommandFailed):
        await fra.server.clone("ams")
    seen = await fra.observe()
    assert (seen.run, seen.data and seen.data.unfinished) == (Run.STOPPED, None)


async def test_a_lost_slot_is_told_and_a_new_copy_gets_a_new_one(machine: Machine) -> None:
    ams = await machine.primary(parameters=(*SMALL, ("wal_keep_size", "0")))
    await table(ams)
    fra = await machine.standby("fra", ams)
    await fra.stop()
    await ams.sql("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
    await ams.server.apply_settings()
    for number in range(3):
        await add(ams, number)
        await ams.sql("SELECT pg_switch_wal()")
    await ams.sql("CHECKPOINT")
    lost = await ams.until("the slot is lost", lambda seen: seen.slot("fra").wal_status == "lost")
    assert not lost.slot("fra").active  # type: ignore[union-attr]
    await fra.server.clone("ams")
    await follows_again(fra, ams)
    assert (await ams.observe()).slot("fra").wal_status != "lost"  # type: ignore[union-attr]
    assert await rows(fra) == [0, 1, 2]


# ------------------------------------------------------------------------- waiting (S2)


async def test_the_proof_of_waiting_is_told_and_void_after_a_restart(machine: Machine) -> None:
    ams = await machine.primary()
    await machine.standby("fra", ams)
    since = await ams.server.set_sync_names(("fra",))
    seen = await ams.until(
        "fra is of the quorum", lambda seen: seen.replica("fra").sync_state == "quorum"
    )
    assert (seen.sync_names, seen.sync_since) == (("fra",), since)
    assert since > NOWHERE
    await ams.stop()
    again = await ams.start(Role.PRIMARY)
    assert (again.sync_names, again.sync_since) == (("fra",), None)


async def test_the_proof_is_void_after_a_crash_that_nobody_saw(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.server.set_sync_names(("fra",))
    assert (await ams.observe()).sync_since is not None
    await ams.stop(signal.SIGKILL)
    kept, ams.server = ams.server, PostgresServer(ams.config)
    await ams.start(Role.PRIMARY)
    await ams.server.close()
    ams.server = kept
    assert (await ams.observe()).sync_since is None


async def test_the_proof_is_of_these_names_only(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.server.set_sync_names(("fra",))
    await ams.sql("ALTER SYSTEM SET synchronous_standby_names = ''")
    await ams.sql("SELECT pg_reload_conf()")
    seen = await ams.until("the names are gone", lambda seen: seen.sync_names == ())
    assert seen.sync_since is None


async def test_an_old_proof_says_nothing_when_the_same_names_are_set_again(
    machine: Machine,
) -> None:
    ams = await machine.primary()
    await table(ams)
    first = await ams.server.set_sync_names(("fra",))
    await ams.server.set_sync_names(())
    await ams.sql("INSERT INTO rows SELECT generate_series(1, 200000)")
    alone_until = (await ams.observe()).position
    setting = asyncio.create_task(ams.server.set_sync_names(("fra",)))
    while not setting.done():
        seen = await ams.observe()
        assert seen.sync_since is None or seen.sync_since >= alone_until > first
    assert await setting >= alone_until


async def test_after_the_proof_every_commit_waits_also_in_old_sessions(machine: Machine) -> None:
    ams = await machine.primary()
    await table(ams)
    async with await psycopg.AsyncConnection.connect(ams.client("app"), autocommit=True) as client:
        await ams.sql("GRANT INSERT ON rows TO app")
        await client.execute("INSERT INTO rows VALUES (0)")
        await ams.server.set_sync_names(("fra",))
        inserting = asyncio.create_task(client.execute("INSERT INTO rows VALUES (1)"))
        await eventually_waits(ams)
        assert not inserting.done()
        await ams.server.set_sync_names(())
        async with asyncio.timeout(10):
            await inserting


async def eventually_waits(node: Node) -> None:
    async def waits() -> bool:
        query = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        return bool(await node.sql(query))

    await eventually("a commit waits", waits)


async def test_our_own_acts_do_not_wait_for_a_standby_that_is_gone(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.server.set_sync_names(("fra",))
    (ams.config.secrets_dir / "monitor").write_text("another")
    async with asyncio.timeout(10):
        await ams.server.prepare(("fra",))


# ------------------------------------------------------------------------- promotion (S3)


async def test_detach_leaves_no_receiver(machine: Machine) -> None:
    ams = await machine.primary()
    fra = await machine.standby("fra", ams)
    await table(ams)
    await detached(fra)
    position = (await fra.observe()).position
    assert fra.backend("walreceiver") is None
    await add(ams, 1)
    assert (await ams.observe()).position > position
    await ams.until("it is gone there too", lambda seen: seen.replica("fra") is None)
    assert (await fra.observe()).position == position
    await fra.server.follow("ams")
    await caught_up(fra, ams)


async def test_a_promoted_standby_tells_its_new_timeline_at_once(machine: Machine) -> None:
    ams = await machine.primary()
    await table(ams)
    fra = await machine.standby("fra", ams)
    await ams.server.set_sync_names(("fra",))
    await add(ams, 1)
    await ams.stop(signal.SIGKILL)
    received = (await detached(fra)).position
    await fra.server.promote()
    # Not one look may show a primary of the old timeline.
    seen = await fra.until("it is a primary", lambda seen: seen.run is Run.PRIMARY)
    assert seen.data is not None
    assert (seen.data.timeline, seen.history and seen.history.timeline) == (2, 2)
    assert seen.history is not None
    assert [switch.timeline for switch in seen.history.ancestors] == [1]
    assert seen.history.ancestors[0].end >= received
    assert await rows(fra) == [1]
    await add(fra, 2)


async def test_a_third_node_follows_the_new_primary(machine: Machine) -> None:
    ams = await machine.primary()
    await table(ams)
    fra = await machine.standby("fra", ams)
    lhr = await machine.standby("lhr", ams)
    await caught_up(lhr, ams)
    await caught_up(fra, ams)
    await ams.stop(signal.SIGKILL)
    await promoted(fra)
    await lhr.server.follow("fra")
    await add(fra, 5)
    await caught_up(lhr, fra)
    seen = await lhr.observe()
    assert await rows(lhr) == [5]
    assert seen.data is not None
    assert (seen.following, seen.data.timeline) == ("fra", 2)
    assert seen.history is not None
    assert seen.history.timeline == 2
    # Its control file learns of the new timeline only at its next restartpoint.
    alone = await detached(lhr)
    assert alone.data is not None
    assert alone.data.timeline == 2
    again = PostgresServer(lhr.config)
    renewed = await again.observe(lhr.view())
    await again.close()
    assert renewed.data is not None
    assert renewed.data.timeline == 2, "also to an agent that has just come up"


async def test_a_standby_starts_with_fewer_connections_than_its_primary(machine: Machine) -> None:
    """A setting that was lowered takes force on the primary first; meanwhile the standby runs."""
    ams = await machine.primary()
    fewer = (("shared_buffers", "16MB"), ("max_connections", "20"), ("max_wal_senders", "5"))
    fra = await machine.standby("fra", ams, parameters=fewer)
    assert await fra.sql("SHOW max_connections") == [("30",)]
    await fra.stop()
    await follows_again(fra, ams)
    await fra.server.apply_settings()
    assert await fra.sql("SHOW max_connections") == [("30",)]
    assert await fra.sql("SHOW max_wal_senders") == [("10",)]


# ------------------------------------------------------------------------- return (S9)


async def test_a_killed_primary_that_went_its_own_way_is_rewound(machine: Machine) -> None:
    ams = await machine.primary()
    await table(ams)
    fra = await machine.standby("fra", ams)
    await add(ams, 1)
    await caught_up(fra, ams)
    await detached(fra)
    for number in range(100, 200):
        await add(ams, number)
    await ams.stop(signal.SIGKILL)
    await promoted(fra)
    await add(fra, 2)
    await ams.server.rewind("fra")
    seen = await ams.observe()
    assert seen.data is not None
    assert (seen.data.unfinished, seen.data.standby_signal) == (None, True)
    await follows_again(ams, fra)
    await caught_up(ams, fra)
    assert await rows(ams) == [1, 2]


async def test_a_rewind_waits_for_the_source_to_tell_its_timeline(machine: Machine) -> None:
    ams = await machine.primary()
    await table(ams)
    fra = await machine.standby("fra", ams)
    await detached(fra)
    await add(ams, 100)
    await ams.stop(signal.SIGKILL)
    await fra.server.promote()
    await fra.until("it is a primary", lambda seen: seen.run is Run.PRIMARY)
    rewinding = asyncio.create_task(ams.server.rewind("fra"))
    await fra.server.prepare(("ams",))
    await rewinding
    await follows_again(ams, fra)
    assert await rows(ams) == []


async def test_a_rewind_from_nobody_touches_nothing(machine: Machine) -> None:
    ams = await machine.primary()
    await ams.stop(signal.SIGKILL)
    before = await ams.observe()
    with pytest.raises(SourceNotReady):
        await ams.server.rewind("fra")
    assert await ams.observe() == before


async def test_a_rewind_from_a_server_that_hangs_is_given_up(machine: Machine) -> None:
    ams = await machine.primary()
    fra = await machine.standby("fra", ams)
    await ams.stop(signal.SIGKILL)
    await promoted(fra)
    os.kill(fra.pid, signal.SIGSTOP)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(SourceNotReady):
                await ams.server.rewind("fra")
    finally:
        os.kill(fra.pid, signal.SIGCONT)
    seen = await ams.observe()
    assert seen.data is not None
    assert seen.data.unfinished is None


async def test_a_rewind_that_was_cut_off_says_so(machine: Machine) -> None:
    ams = await machine.primary()
    fra = await machine.standby("fra", ams)
    await detached(fra)
    await ams.sql("CREATE TABLE big AS SELECT repeat('x', 500) FROM generate_series(1, 100000)")
    await ams.stop(signal.SIGKILL)
    await promoted(fra)
    await fra.sql("CREATE TABLE other AS SELECT repeat('y', 500) FROM generate_series(1, 100000)")
    rewinding = asyncio.create_task(ams.server.rewind("fra"))
    marker = ams.config.data_dir / "flightmode.unfinished"

    async def begun() -> bool:
        return marker.exists()

    await eventually("the rewind has begun", begun)
    rewinding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await rewinding
    seen = await ams.observe()
    assert seen.data is not None
    assert seen.data.unfinished == "rewind"
    await ams.server.clone("fra")
    await follows_again(ams, fra)


async def test_a_planned_stop_leaves_less_than_the_standby_received(machine: Machine) -> None:
    """What a cleanly stopped primary tells is where its shutdown checkpoint begins.

    A standby that is beyond it has the whole of it: the rule of the switchover.
    """
    ams = await machine.primary()
    await table(ams)
    fra = await machine.standby("fra", ams)
    await ams.server.set_sync_names(("fra",))
    await add(ams, 1)
    stopped = await ams.stop()
    assert stopped.data is not None
    assert stopped.data.control_state == "shut down"
    seen = await fra.until(
        "it has all of it", lambda seen: seen.position > stopped.position, within_s=5
    )
    after = await promoted(fra)
    assert after.history is not None
    assert after.history.contains(1, stopped.position)
    assert after.history.ancestors[0] == Switch(1, after.history.ancestors[0].end)
    assert stopped.position < after.history.ancestors[0].end
    assert seen.position <= after.history.ancestors[0].end


async def test_a_standby_that_missed_the_end_is_not_beyond_it(machine: Machine) -> None:
    ams = await machine.primary()
    fra = await machine.standby("fra", ams)
    await caught_up(fra, ams)
    await detached(fra)
    stopped = await ams.stop()
    assert (await fra.observe()).position <= stopped.position


async def test_after_a_clean_switchover_the_old_primary_needs_no_rewind(machine: Machine) -> None:
    ams = await machine.primary()
    await table(ams)
    fra = await machine.standby("fra", ams)
    await add(ams, 1)
    stopped = await ams.stop()
    await fra.until("it has all of it", lambda seen: seen.position > stopped.position)
    await promoted(fra)
    await add(fra, 2)
    await follows_again(ams, fra)
    await caught_up(ams, fra)
    assert await rows(ams) == [1, 2]
    seen = await ams.observe()
    assert seen.data is not None
    assert seen.data.timeline == 2


async def test_a_stopped_standby_tells_how_far_it_was_and_goes_on(machine: Machine) -> None:
    ams = await machine.primary()
    await table(ams)
    fra = await machine.standby("fra", ams)
    await add(ams, 1)
    await caught_up(fra, ams)
    stopped = await fra.stop()
    assert stopped.data is not None
    assert stopped.data.control_state == "shut down in recovery"
    assert (stopped.data.was_primary, stopped.data.standby_signal) == (False, True)
    assert NOWHERE < stopped.position <= (await ams.observe()).position
    await add(ams, 2)
    await follows_again(fra, ams)
    await caught_up(fra, ams)
    assert await rows(fra) == [1, 2]


async def test_a_planned_stop_is_not_held_up_by_a_receiver_that_hangs(machine: Machine) -> None:
    ams = await machine.primary()
    fra = await machine.standby("fra", ams)
    await ams.observe()
    receiver = fra.backend("walreceiver")
    assert receiver is not None
    receiver.suspend()
    try:
        await table(ams)
        os.kill(ams.pid, signal.SIGINT)
        await ams.until("it refuses new ones", lambda seen: seen.run is not Run.PRIMARY)
        assert ams.backend("walsender") is not None, "else nothing is shown"
        began_s = time.monotonic()
        await ams.server.end_walsenders(())
        await ams.gone()
        assert time.monotonic() - began_s < 3, "and not its time-out, 4 s"
    finally:
        receiver.resume()


# ------------------------------------------------------------------------- a full disk (S9)


@contextmanager
def small_disk(at: Path, megabytes: int) -> Iterator[None]:
    at.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(at)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
async def test_a_full_disk_of_a_standby_does_not_stop_the_primary(machine: Machine) -> None:
    ams = await machine.primary()
    await table(ams)
    disk = machine.base / "disk"
    with small_disk(disk, 180):
        os.chown(disk, machine.user.pw_uid, machine.user.pw_gid)
        fra = await machine.standby("fra", ams, data_dir=disk / "data")
        try:
            await add(ams, 1)
            await caught_up(fra, ams)
            (disk / "ballast").write_bytes(b"\0" * (os.statvfs(disk).f_bavail * 4096 - (1 << 20)))
            await ams.sql(
                "CREATE TABLE big AS SELECT repeat('x', 500) FROM generate_series(1, 60000)"
            )
            await ams.until(
                "fra is gone", lambda seen: not getattr(seen.replica("fra"), "streaming", False)
            )
            await add(ams, 2)
            again = PostgresServer(fra.config)
            assert (await again.observe(fra.view())).disk_free < 0.05
            await again.close()
            (disk / "ballast").unlink()
            if not fra.view().running:
                await fra.gone()
                await fra.start(Role.STANDBY, ams)
            await caught_up(fra, ams)
            assert await rows(fra) == [1, 2]
        finally:
            await fra.end()
