"""Bad days: each a clear error with its code, or a documented behaviour, and nothing lost.

docs/bad-days.md tells the same to a person; each of its rows names the test that makes it happen.
"""

import asyncio
import datetime
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from chaos import disks
from flightmode.config.derive import locations_of
from flightmode.demo.cluster import DATABASES, NODES
from flightmode.demo.killing import alive
from flightmode.demo.loopback import LoopbackLab
from flightmode.model.cluster import Mode
from flightmode.pki import Authority
from tests.integration.live_cluster import (
    BIN,
    Live,
    acknowledged,
    command,
    errors_since,
    live,
    needs_servers,
    owner,
    unborn,
    until,
)
from tests.integration.postgres_server import FLAVOURS, need

pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.timeout(150),
    pytest.mark.asyncio(loop_scope="module"),
    needs_servers,
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def here() -> AsyncIterator[Live]:
    """One cluster for all: each test finds it whole, and leaves it whole."""
    async with live(LoopbackLab) as made:
        yield made


# ------------------------------------------------------------------ an agent that can't start


async def test_an_agent_does_not_start_with_a_wrong_toml(here: Live) -> None:
    wrong = here.cluster.directory / "wrong.toml"
    wrong.write_text(here.toml.read_text().replace("stable_after_flap_s", "stable_after_flop_s"))
    ran = await command("agent", "--config", str(wrong), "--node", "wit")
    assert ran.status == 78
    assert "FM402" in ran.err
    assert "timing.stable_after_flop_s" in ran.err
    assert "stable_after_flap_s" in ran.err.replace("stable_after_flop_s", ""), "the nearest key"
    assert f"hint: sensible-editor {wrong}" in ran.err


async def test_an_agent_whose_port_is_taken_says_so_and_ends(here: Live) -> None:
    await end_agent(here, "wit")
    settings = here.cluster.config.nodes["wit"]
    with taken(settings.host, settings.api_port):
        agent = await here.cluster.start_agent("wit")
        assert await asyncio.wait_for(agent.wait(), 30) == 69
    told = here.log("wit").strip().splitlines()[-2:]
    assert "FM511" in told[0]
    assert str(settings.api_port) in told[0]
    assert told[1].strip() == f"hint: ss -ltnp 'sport = :{settings.api_port}'"
    await here.cluster.start_agent("wit")
    await until(lambda: well(here, "wit"), "the witness's agent to be well")


async def test_an_agent_refuses_a_key_that_others_can_read(here: Live) -> None:
    await end_agent(here, "wit")
    key = here.home("wit") / "tls" / "node.key"
    key.chmod(0o644)
    agent = await here.cluster.start_agent("wit")
    assert await asyncio.wait_for(agent.wait(), 30) == 77
    told = here.log("wit").strip().splitlines()[-2:]
    assert "FM410" in told[0]
    assert told[1].strip() == f"hint: chmod 600 {key}"
    key.chmod(0o600)
    await here.cluster.start_agent("wit")
    await until(lambda: well(here, "wit"), "the witness's agent to be well")


async def test_an_agent_does_not_start_with_another_version_of_postgres(here: Live) -> None:
    need("18")
    other = FLAVOURS["18"].bin_dir
    wrong = here.cluster.directory / "other-version.toml"
    text = (here.cluster.directory / "flightmode.toml").read_text()
    wrong.write_text(text.replace(f'"{BIN}"', f'"{other}"'))
    for verb in ("agent", "check"):
        ran = await command(verb, "--config", str(wrong), "--node", "fra")
        assert ran.status == 78
        assert f"PostgreSQL 15 is wanted, and in {other} is 'postgres (PostgreSQL) 18" in (
            ran.out + ran.err
        )
    assert "FM402" in (await command("agent", "--config", str(wrong), "--node", "fra")).err


async def test_an_agent_whose_certificate_is_of_the_future_asks_for_the_clock(here: Live) -> None:
    """As on a machine whose clock is behind.  Nothing else of the cluster is touched."""
    begins = certificate_of_tomorrow(here.cluster.directory / "tomorrow", "wit")
    wrong = here.cluster.directory / "tomorrow.toml"
    text = here.toml.read_text()
    wrong.write_text(text.replace('directory = "operator"', 'directory = "tomorrow"'))
    assert wrong.read_text() != text
    ran = await command("agent", "--config", str(wrong), "--node", "wit")
    assert ran.status == 78
    assert "FM412" in ran.err
    assert f"{begins:%Y-%m-%d}" in ran.err
    assert "hint: timedatectl" in ran.err


def certificate_of_tomorrow(directory: Path, node: str) -> datetime.datetime:
    """What a node needs for TLS, valid from tomorrow on; returns when."""
    authority = Authority.create("demo")
    today = authority.issue_node(node, ["127.0.0.1"])
    like = x509.load_pem_x509_certificate(today.certificate)
    begins = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(like.subject)
        .issuer_name(like.issuer)
        .public_key(like.public_key())
        .serial_number(like.serial_number)
        .not_valid_before(begins)
        .not_valid_after(like.not_valid_after_utc)
    )
    for each in like.extensions:
        builder = builder.add_extension(each.value, critical=each.critical)
    made = builder.sign(authority.key, hashes.SHA256())
    pem = made.public_bytes(serialization.Encoding.PEM)
    replace(today, certificate=pem).save(directory, "node")
    return begins


# ------------------------------------------------------------------ a standby's bad data


@dataclass(frozen=True)
class Spoiling:
    """What happened to a data directory, and what undoes it."""

    code: str
    spoil: Callable[[Path], None]
    mend: Callable[[Path], None]


def swap_for_another_clusters(data: Path) -> None:
    data.rename(data.with_name("ours"))
    argv = [str(BIN / "initdb"), f"--pgdata={data}", "--username=postgres", "--no-sync"]
    uid = owner() if os.geteuid() == 0 else None
    subprocess.run(argv, user=uid, check=True, capture_output=True, timeout=60, cwd="/")


def swap_back(data: Path) -> None:
    data.rename(data.with_name("foreign"))
    data.with_name("ours").rename(data)


SPOILINGS = {
    "another cluster's": Spoiling("FM606", swap_for_another_clusters, swap_back),
    "another major version's": Spoiling(
        "FM607",
        lambda data: (data / "PG_VERSION").write_text("14\n") and None,
        lambda data: (data / "PG_VERSION").write_text("15\n") and None,
    ),
    "without a control file": Spoiling(
        "FM605",
        lambda data: (data / "global/pg_control").rename(data / "global/hidden") and None,
        lambda data: (data / "global/hidden").rename(data / "global/pg_control") and None,
    ),
    "open to others": Spoiling(
        "FM204", lambda data: data.chmod(0o755), lambda data: data.chmod(0o700)
    ),
}


@pytest.mark.parametrize("spoiling", SPOILINGS.values(), ids=SPOILINGS.keys())
async def test_a_standby_does_not_touch_data_that_are(here: Live, spoiling: Spoiling) -> None:
    async with here.clients() as workload:
        node = (await here.whole()).standby
        data = locations_of(here.cluster.config, node).data_dir
        await end_agent(here, node)
        await end_postgres(here, node)
        spoiling.spoil(data)
        before = prints(data)
        await here.cluster.start_agent(node)
        await here.cluster.until(
            lambda p: (p.members[node].problem or "").startswith(spoiling.code),
            f"{node} to say {spoiling.code}",
        )
        await acknowledged(workload)
        shown = await here.node(node)
        assert shown["problem"].startswith(f"{spoiling.code}: ")
        assert (shown["run"], shown["sync"]) == ("stopped", False)
        assert prints(data) == before, "nothing was changed"
        spoiling.mend(data)
        after = await here.whole()
        assert after.standby == node
    shutil.rmtree(data.with_name("foreign"), ignore_errors=True)


def prints(data: Path) -> dict[str, tuple[int, int]]:
    """Every file with its size and time of change."""
    files = (path for path in data.rglob("*") if path.is_file())
    stats = {str(path): path.stat() for path in files}
    return {path: (each.st_size, each.st_mtime_ns) for path, each in stats.items()}


async def test_a_standby_whose_port_is_taken_says_so_and_comes_back(here: Live) -> None:
    async with here.clients() as workload:
        node = (await here.whole()).standby
        settings = here.cluster.config.nodes[node]
        await end_agent(here, node)
        await end_postgres(here, node)
        with taken(settings.host, settings.postgres_port):
            await here.cluster.start_agent(node)
            await here.cluster.until(
                lambda p: str(settings.postgres_port) in (p.members[node].problem or ""),
                f"{node} to name the port",
            )
            shown = await here.node(node)
            assert shown["problem"].startswith("FM205: "), shown["problem"]
            assert (await here.types("status")).status == 0, "writes are accepted"
            assert (await here.types("status", "--strict")).status == 1, "a person is needed"
            await acknowledged(workload)
        await here.whole()


NO_DISKS = "needs root" if os.geteuid() != 0 else disks.missing()


@pytest.mark.hosts
@pytest.mark.timeout(240)
@pytest.mark.skipif(NO_DISKS is not None, reason=str(NO_DISKS))
async def test_a_full_disk_of_the_standby_stops_no_client_and_is_told() -> None:
    """A cluster of its own: the standby's home is a file system that can fill."""
    async with unborn(LoopbackLab) as here, on_a_disk(here, "fra") as disk:
        await here.cluster.start()
        await here.cluster.make_database()
        async with here.clients() as workload:
            before, began = await here.whole(), len(workload.history)
            assert before.standby == "fra"
            disk.fill("fra")
            # So much that the standby needs new files for its WAL.
            more = "CREATE TABLE big AS SELECT repeat('x', 500) FROM generate_series(1, 120000)"
            writing = asyncio.create_task(here.sql("ams", more))
            solo = await here.cluster.until(lambda p: p.state.mode is Mode.SOLO, "ams alone")
            await writing
            await acknowledged(workload, 50)
            await here.cluster.until(
                lambda p: any("disk is free" in each for each in p.members["fra"].warnings),
                "fra to warn of its disk",
            )
            shown = await here.types("status", "--strict")
            assert shown.status == 1
            assert "fra: only 0% of the disk is free" in " ".join(shown.out.split())
            assert (await here.types("status")).status == 0, "writes go on"
            disk.empty("fra")
            after = await here.whole()
            assert errors_since(workload, began) == []
        assert (solo.state.term, after.state.term) == (before.state.term,) * 2
        assert after.standby == "fra"


@asynccontextmanager
async def on_a_disk(here: Live, node: str) -> AsyncIterator[disks.Disks]:
    """The node's home, but for its etcd and what journald would hold: those have their own."""
    scratch, home = here.lab.scratch, here.home(node)
    disk = disks.Disks(scratch, [node])
    disk.put_under(node, home)
    try:
        elsewhere = scratch / "elsewhere"
        elsewhere.mkdir()
        (home / "etcd").rename(home / "etcd.empty")
        shutil.copytree(home / "etcd.empty", elsewhere / "etcd")
        os.chown(elsewhere / "etcd", owner(), -1)
        for name in ("etcd", "agent.log", "fence.log", "etcd.log"):
            (home / name).symlink_to(elsewhere / name)
        yield disk
    finally:
        for name in NODES:
            await here.lab.power_loss(name)
        disks.unmount_all(scratch)


# ------------------------------------------------------------------ etcd


@pytest.mark.parametrize("away_s", [2.0, 9.0], ids=["shortly", "for longer than the ttl"])
async def test_nobody_notices_that_etcd_is_away(here: Live, away_s: float) -> None:
    """Shorter than what is left of a permission; and longer, by the standby's promise (S6)."""
    async with here.clients() as workload:
        before, began = await here.whole(), len(workload.history)
        members = [here.pid(name, "etcd") for name in NODES]
        for pid in members:
            os.kill(pid, signal.SIGSTOP)
        try:
            until_s = time.monotonic() + away_s
            while time.monotonic() < until_s:
                await acknowledged(workload)
        finally:
            for pid in members:
                os.kill(pid, signal.SIGCONT)
        await acknowledged(workload)
        after = await here.whole()
        assert errors_since(workload, began) == []
    assert after.state.term == before.state.term


async def test_without_etcd_and_its_standby_the_primary_is_fenced_in_time_and_comes_back(
    here: Live,
) -> None:
    async with here.clients():
        before = await here.whole()
        postmaster = here.cluster.postmaster(before.state.leader)
        await end(here.cluster.process(before.standby, "agent"))
        began_s = time.monotonic()
        for name in NODES:
            await end(here.cluster.process(name, "etcd"))
        await until(lambda: not alive(postmaster), "the primary to be fenced", 10)
        assert time.monotonic() - began_s < here.cluster.policy.ttl_s + 1
        ran = await here.types("status", "--json")
        assert ran.status == 1
        assert (ran.json["writes"], ran.json["store_reachable"]) == (None, False)
        await until(lambda: time.monotonic() > began_s + 10, "ten seconds to pass")
        for name in NODES:
            await here.cluster.start_etcd(name)
        await here.cluster.start_agent(before.standby)
        await here.whole()


@pytest.mark.parametrize("etcd", ["with everything", "later"])
async def test_a_cluster_comes_back_after_a_power_cut_everywhere(here: Live, etcd: str) -> None:
    async with here.clients():
        await asyncio.gather(*(here.lab.power_loss(name) for name in NODES))
        if etcd == "with everything":
            await asyncio.gather(*(here.cluster.power_on(name) for name in NODES))
        else:
            await asyncio.gather(*(here.lab.power_on(name) for name in NODES))
            await asyncio.gather(*(here.cluster.start_fence(name) for name in DATABASES))
            await asyncio.gather(*(here.cluster.start_agent(name) for name in NODES))
            for name in NODES:
                await until(lambda name=name: waits_for_etcd(here, name), "FM101")
            await asyncio.gather(*(here.cluster.start_etcd(name) for name in NODES))
        await here.whole()


async def waits_for_etcd(here: Live, node: str) -> bool:
    ran = await here.types("status", "--node", node, "--json")
    return ran.status == 1 and (ran.json["problem"] or "").startswith("FM101")


# ------------------------------------------------------------------ Postgres dies


async def test_while_paused_a_dead_primary_stays_down_until_it_is_resumed(here: Live) -> None:
    async with here.clients():
        before = await here.whole()
        leader = before.state.leader
        await here.done("pause", "--for", "30m")
        await end_postgres(here, leader)
        await here.cluster.until(
            lambda p: (p.members[leader].problem or "").startswith("FM604"), "FM604"
        )
        shown = await here.types("status")
        assert shown.status == 1
        assert "FM604" in shown.out
        assert "paused" in shown.out
        assert "FM604" in (await here.done("why", "--node", leader)).out
        down = await here.picture()
        assert (down.state.term, down.state.leader) == (before.state.term, leader)
        assert here.cluster.postmaster_or_none(leader) is None
        await here.done("resume")
        await here.whole()
    assert (await here.types("status")).status == 0


async def test_a_primary_that_dies_again_and_again_is_restarted_in_place(here: Live) -> None:
    guard = here.cluster.policy.crashes_max
    async with here.clients():
        for _ in range(guard + 1):
            before = await here.whole()
            crashes = len(before.state.crashes_wall_s)
            await end_postgres(here, before.state.leader)
            if crashes >= guard:
                break
            await here.cluster.until(lambda p, b=before: p.state.term > b.state.term, "a new term")
        after = await here.whole()
    assert (after.state.term, after.state.leader) == (before.state.term, before.state.leader)
    told = (await here.done("why", "--node", after.state.leader, "--count", "100")).out
    assert "starting Postgres" in told


# ------------------------------------------------------------------ somebody else's settings


async def test_names_that_somebody_else_sets_are_a_degrade_and_are_told(here: Live) -> None:
    async with here.clients():
        before = await here.whole()
        leader = before.state.leader
        await as_superuser(here, leader, "ALTER SYSTEM SET synchronous_standby_names = ''")
        try:
            await here.cluster.until(lambda p: p.state.mode is Mode.SOLO, "mode solo")
            await here.cluster.until(
                lambda p: (p.members[leader].problem or "").startswith("FM631"), "FM631"
            )
            shown = " ".join((await here.done("status")).out.split())
            assert "FM631" in shown
            assert "ALTER SYSTEM RESET synchronous_standby_names" in shown
        finally:
            await as_superuser(here, leader, "ALTER SYSTEM RESET synchronous_standby_names")
        after = await here.whole()
        assert (after.state.term, after.state.leader) == (before.state.term, leader)
    assert "FM631" not in (await here.done("status")).out


# ------------------------------------------------------------------ what the tests do


async def as_superuser(here: Live, node: str, query: str) -> None:
    """As a person does on the node itself; and a reload."""
    port = here.cluster.config.nodes[node].postgres_port
    where = locations_of(here.cluster.config, node).socket_dir
    psql = [str(BIN / "psql"), f"--host={where}", f"--port={port}", "--no-psqlrc"]
    who = ["--username=postgres", "--dbname=postgres"]
    what = [f"--command={query}", "--command=SELECT pg_reload_conf()"]
    ran = await asyncio.create_subprocess_exec(*psql, *who, *what, stdout=-1, user=owner())
    await ran.communicate()
    assert ran.returncode == 0


async def end(process: asyncio.subprocess.Process) -> None:
    process.kill()
    await process.wait()


async def end_agent(here: Live, node: str) -> None:
    await end(here.cluster.process(node, "agent"))


async def end_postgres(here: Live, node: str) -> None:
    pid = here.cluster.postmaster(node)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not alive(pid), "the postmaster to be gone")


async def well(here: Live, node: str) -> bool:
    ran = await here.types("status", "--node", node, "--json")
    return ran.status == 0


@contextmanager
def taken(host: str, port: int) -> Iterator[None]:
    """Another program listens there."""
    deadline_s = time.monotonic() + 10
    while True:
        try:
            listening = socket.create_server((host, port))
            break
        except OSError:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
    with listening:
        yield
