"""A cluster that serves gets new settings, certificates and Debian packages; nobody is lost."""

import asyncio

import pytest

from flightmode.demo.proxied import Application
from tests.hosts.machines import NODES, Founder, acknowledged, founder, missing, told, writing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.story,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

PAUSE_S = 10.0
"""Longest, of all writes: a primary restarts in its place for a setting that shrinks."""
DATABASES = ("ams", "fra")
PSQL = "runuser -u postgres -- psql -h /run/flightmode/postgres -qAtc"

# A package at version 1 here, and version 2 where apt finds it.
TRIFLE = """
set -e
build() {
    mkdir -p /srv/apt/tree/DEBIAN
    {
        echo "Package: trifle"
        echo "Version: $1"
        echo "Architecture: all"
        echo "Maintainer: Nobody <nobody@example.org>"
        echo "Description: a trifle"
    } > /srv/apt/tree/DEBIAN/control
    dpkg-deb --build -Znone /srv/apt/tree /srv/apt/trifle_$1.deb >/dev/null
}
build 1
dpkg -i /srv/apt/trifle_1.deb >/dev/null
build 2
cd /srv/apt
{
    cat tree/DEBIAN/control
    echo "Filename: ./trifle_2.deb"
    echo "Size: $(stat -c %s trifle_2.deb)"
    echo "SHA256: $(sha256sum trifle_2.deb | cut -d' ' -f1)"
} > Packages
echo 'deb [trusted=yes] file:/srv/apt ./' > /etc/apt/sources.list.d/trifle.list
"""


def setting(me: Founder, node: str, name: str) -> str:
    return me.hosts.ssh(node, f"{PSQL} 'SHOW {name}'").strip()


async def settings_change(me: Founder, application: Application) -> None:
    """One that is only read again, one that grows, a rule of access; then that one shrinks."""
    first = me.primary
    pids = {name: postmaster(me, name) for name in DATABASES}
    more = "\n[postgres.parameters]\nwork_mem = '7MB'\n"
    more += "\n[[postgres.hba]]\ndatabase = 'ledger'\nuser = 'app'\naddress = '10.9.9.9/32'\n"
    me.toml.write_text(me.toml.read_text() + more)
    applied = await asyncio.to_thread(me.does, "config", "apply")
    assert "nothing had to restart" in applied.out
    for name in DATABASES:
        assert setting(me, name, "work_mem") == "7MB"
        rules = me.hosts.ssh(name, f"{PSQL} 'SELECT address FROM pg_hba_file_rules'")
        assert "10.9.9.9" in rules
    assert {name: postmaster(me, name) for name in DATABASES} == pids
    assert me.primary == first

    me.edits("work_mem = '7MB'", "work_mem = '7MB'\nmax_connections = 321")
    await asyncio.to_thread(me.does, "config", "apply")
    assert [setting(me, name, "max_connections") for name in DATABASES] == ["321", "321"]
    assert me.primary != first
    await acknowledged(application, 20)

    second = me.primary
    me.edits("max_connections = 321", "max_connections = 222")
    await asyncio.to_thread(me.does, "config", "apply")
    assert [setting(me, name, "max_connections") for name in DATABASES] == ["222", "222"]
    assert me.primary == second
    await acknowledged(application, 20)


def postmaster(me: Founder, node: str) -> str:
    return me.hosts.ssh(node, f"{PSQL} 'SELECT pg_postmaster_start_time()'").strip()


async def provision_brings_an_edit_too(me: Founder, application: Application) -> None:
    """What is only read again is in force; what waits for a restart is named, and waits on."""
    first, pids = me.primary, {name: postmaster(me, name) for name in DATABASES}
    me.edits("work_mem = '7MB'", "work_mem = '8MB'")
    me.edits("max_connections = 222", "max_connections = 333")
    brought = await asyncio.to_thread(me.does, "provision")
    assert "the cluster is whole" in brought.out
    for name in DATABASES:
        assert setting(me, name, "work_mem") == "8MB"
        assert f"{name}: waiting for a restart: max_connections" in brought.out
    assert "flightmode config apply" in brought.out
    assert {name: postmaster(me, name) for name in DATABASES} == pids
    assert me.primary == first
    await asyncio.to_thread(me.does, "config", "apply")
    assert [setting(me, name, "max_connections") for name in DATABASES] == ["333", "333"]
    await acknowledged(application, 20)


async def what_a_cut_off_run_did_not_tell_is_told(me: Founder, application: Application) -> None:
    """It had written the file and restarted the agents, and was gone before their PostgreSQL was
    told to read its settings: the next run has nothing to write."""
    me.edits("work_mem = '8MB'", "work_mem = '9MB'")
    for name in NODES:
        me.hosts.ssh(name, "sed -i s/8MB/9MB/ /etc/flightmode/flightmode.toml")
        me.hosts.ssh(name, "systemctl restart flightmode-agent")
    only = [word for name in NODES for word in ("--only", name)]
    again = await asyncio.to_thread(me.does, "provision", *only)
    assert "nothing to do" in again.out
    assert [setting(me, name, "work_mem") for name in DATABASES] == ["9MB", "9MB"]
    await acknowledged(application, 20)


async def certificates_are_renewed(me: Founder, application: Application) -> None:
    files = ("/etc/flightmode/tls/node.crt", "/etc/flightmode/etcd-tls/node.crt")
    first = me.primary
    before = [me.hosts.ssh(name, f"sha256sum {' '.join(files)}") for name in NODES]
    await asyncio.to_thread(me.does, "certs", "renew")
    after = [me.hosts.ssh(name, f"sha256sum {' '.join(files)}") for name in NODES]
    assert all(old != new for old, new in zip(before, after, strict=True))
    assert me.primary == first
    await acknowledged(application, 20)


async def debian_is_upgraded(me: Founder, application: Application) -> None:
    """A package on all; Postgres' program is replaced on one, and the other two want a reboot."""
    first = me.primary
    standby = next(name for name in DATABASES if name != first)
    started = postmaster(me, first)
    for name in NODES:
        me.hosts.ssh(name, TRIFLE)
    binary = "/usr/lib/postgresql/15/bin/postgres"
    me.hosts.ssh(first, f"cp -a {binary} {binary}.new && mv {binary}.new {binary}")
    boots = {name: me.hosts.ssh(name, "cat /proc/sys/kernel/random/boot_id") for name in NODES}
    for name in ("wit", standby):
        me.hosts.ssh(name, "touch /run/reboot-required")
    planned = await asyncio.to_thread(me.does, "upgrade", "--system", "--plan")
    assert "trifle" in planned.out
    await asyncio.to_thread(me.does, "upgrade", "--system")
    assert me.primary == standby
    for name in NODES:
        assert me.hosts.ssh(name, "dpkg-query -W -f '${Version}' trifle") == "2"
        boot = me.hosts.ssh(name, "cat /proc/sys/kernel/random/boot_id")
        assert (boot != boots[name]) is (name != first)
    assert postmaster(me, first) != started
    await acknowledged(application, 20)
    again = await asyncio.to_thread(me.does, "upgrade", "--system", "--plan")
    assert "nothing to do" in again.out


async def test_a_cluster_is_changed_while_it_serves() -> None:
    with founder() as me:
        me.begins()
        me.does("provision")
        me.make_database()
        with me.tunnel() as conninfo:
            async with writing(conninfo) as application:
                await acknowledged(application, 50)
                await settings_change(me, application)
                await provision_brings_an_edit_too(me, application)
                await what_a_cut_off_run_did_not_tell_is_told(me, application)
                await certificates_are_renewed(me, application)
                await debian_is_upgraded(me, application)
                found = await told(application)
        print(found)
        found.undisturbed(PAUSE_S)
