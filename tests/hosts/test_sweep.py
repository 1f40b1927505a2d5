"""A run of hosts that was killed: the next one removes what it left."""

import os
import signal
import subprocess
import sys

import pytest

from flightmode.demo.namespaces import namespaces_of
from flightmode.demo.record import records
from flightmode.demo.sweep import sweep
from hosts.lab import KIND, remove
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
