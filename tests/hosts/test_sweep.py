"""A run of hosts that was killed: the next one removes what it left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flightmode.demo.namespaces import namespaces_of
from flightmode.demo.record import records
from flightmode.demo.sweep import sweep
from hosts.lab import KIND, Hosts, remove
from tests.hosts.machines import missing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]

ABANDONED = """
import os, signal
from hosts.lab import Hosts
with Hosts(["ams"]) as hosts:
    hosts.boot()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_hosts_whose_maker_was_killed_are_removed_with_their_disks() -> None:
    maker = subprocess.Popen([sys.executable, "-c", ABANDONED])
    assert maker.wait(timeout=100) == -signal.SIGKILL
    (left,) = [record for record in records() if record.owner[0] == maker.pid]
    assert (left.scratch / "ams" / "root").is_mount()

    assert left in sweep(kinds={KIND: remove})

    assert left not in records()
    assert namespaces_of(left.run_id) == []
    assert not left.scratch.exists()
    with open("/proc/self/mountinfo") as mounts:
        assert left.run_id not in mounts.read()
    nft = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    assert left.run_id not in nft.stdout
    assert not os.path.exists(f"/sys/class/net/{left.run_id}")
    assert cgroups_of(left.run_id) == []


def cgroups_of(run_id: str) -> list[Path]:
    top = Path("/sys/fs/cgroup")
    return [path for depth in ("*", "*/*") for path in top.glob(depth) if run_id in path.name]


def test_each_host_has_its_cgroups_for_itself_and_they_go_with_it() -> None:
    """In shared ones systemd keeps a unit that it has forgotten, for another host's processes."""
    with Hosts(["ams", "fra"]) as hosts:
        hosts.boot()
        run_id = hosts.scratch.name.split("-")[1]
        for name, machine in hosts.machines.items():
            for line in Path(f"/proc/{machine.init}/cgroup").read_text().splitlines():
                hierarchy, controllers, path = line.split(":", 2)
                if hierarchy == "0" or controllers == "name=systemd":
                    assert path.startswith(f"/flightmode-{run_id}/{name}/"), line
        assert cgroups_of(run_id) != []
    assert cgroups_of(run_id) == []
