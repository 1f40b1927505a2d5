"""Another version of Flightmode, one machine after the other, under load."""

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.hosts.machines import NODES, acknowledged, founder, missing, told, writing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.story,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

PAUSE_S = 1.0
"""Longest, of all writes, in a rolling upgrade; for the switchover."""
ROOT = Path(__file__).parents[2]


def another_version(home: Path) -> dict[str, str]:
    """A checkout that differs, and the environment in which it is what is installed."""
    checkout = home / "checkout"
    checkout.mkdir()
    for name in ("flightmode", "rust"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("target"))
    for name in ("pyproject.toml", "setup.cfg", "Cargo.toml", "Cargo.lock", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, checkout / name)
    with (checkout / "README.md").open("a") as readme:
        readme.write("\nAnother version.\n")
    # The compiler need not begin from nothing.
    (checkout / "target").symlink_to(ROOT / "target")
    installed = checkout / "flightmode-0.1.0.dist-info"
    (real,) = Path(sys.prefix).glob("lib/python*/site-packages/flightmode-*.dist-info")
    shutil.copytree(real, installed)
    (installed / "direct_url.json").write_text(
        f'{{"dir_info": {{"editable": true}}, "url": "file://{checkout}"}}'
    )
    return {**os.environ, "PYTHONPATH": str(checkout)}


async def test_an_upgrade_disconnects_nobody() -> None:
    with founder() as me:
        me.begins()
        me.does("provision")
        me.make_database()
        # While clients write nothing may hold up this process, which is theirs too.
        before = me.primary
        environment = another_version(me.hosts.scratch)
        old = me.hosts.ssh(before, "readlink /opt/flightmode/current")
        with me.tunnel() as conninfo:
            async with writing(conninfo) as application:
                await acknowledged(application, 50)
                upgraded = await asyncio.to_thread(
                    me.does_in, environment, "upgrade", within_s=900.0
                )
                assert "all machines have" in upgraded.out
                await acknowledged(application, 50)
                found = await told(application)
        assert me.primary != before
        print(f"{found}; it took {upgraded.took_s:.0f} s")
        found.undisturbed(PAUSE_S)
        for name in NODES:
            assert me.hosts.ssh(name, "readlink /opt/flightmode/current") != old
        for name in ("ams", "fra"):
            current = me.hosts.ssh(name, "readlink /opt/flightmode/current").strip()
            pid = me.hosts.ssh(name, "systemctl show -p MainPID --value flightmode-fence").strip()
            assert me.hosts.ssh(name, f"readlink /proc/{pid}/exe").startswith(current)
        again = me.does_in(environment, "upgrade", within_s=300.0)
        assert "nothing to do" in again.out
