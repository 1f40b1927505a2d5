"""A bounded slice of `./dev chaos`: real faults on a real cluster, and its disks by themselves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos import disks
from chaos.checkers import judge
from chaos.disks import Disks, thaw_all, unmount_all
from chaos.history import History, Way, load
from chaos.lab import KIND, tear_down
from flightmode.demo.namespaces import NamespaceLab
from flightmode.demo.sweep import dead_runs, sweep
from flightmode.errors import RehearsalFailed
from tests.integration.live_cluster import needs_servers

ROOT = Path(__file__).parents[2]
MISSING = NamespaceLab.missing() or disks.missing()
KINDS = {KIND: tear_down}

pytestmark = [
    pytest.mark.integration,
    pytest.mark.hosts,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]


def chaos(*words: str) -> list[str]:
    return [sys.executable, "-m", "chaos", *words]


@pytest.mark.slow
@pytest.mark.timeout(240)
@needs_servers
def test_a_cluster_under_faults_keeps_every_promise(tmp_path: Path) -> None:
    kinds = "power,partition-nodes,disk-stall,kill-postmaster"
    options = ["--seed=11", "--count=4", f"--only={kinds}", f"--to={tmp_path}"]
    ran = subprocess.run(chaos(*options), cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    history = load(tmp_path)
    assert judge(history) == []
    assert {fault.nemesis for round_ in history.rounds for fault in round_.faults} == set(
        kinds.split(",")
    )
    assert acknowledged_by(history) == set(Way), "on every way somebody was told that it is done"
    again = subprocess.run(chaos("check", str(tmp_path)), cwd=ROOT, check=False)
    assert again.returncode == 0
    lose_a_row(tmp_path)
    again = subprocess.run(chaos("check", str(tmp_path)), cwd=ROOT, check=False)
    assert again.returncode == 1, "what was lost from the history's end is missed"


def acknowledged_by(history: History) -> set[Way]:
    return {txn.way for txn in history.txns if txn.acknowledged and txn.writes}


def lose_a_row(directory: Path) -> None:
    path = directory / "final.json"
    path.write_text(path.read_text().replace('"rows": [[', '"rows": [[9', 1))


# ------------------------------------------------------------------ what was killed is swept


@pytest.mark.slow
@pytest.mark.timeout(120)
@needs_servers
def test_a_killed_run_with_a_stalled_disk_is_swept(tmp_path: Path) -> None:
    options = ["--count=1", "--only=disk-stall", f"--to={tmp_path / 'kept'}"]
    log = tmp_path / "log"
    with log.open("w") as output:
        run = subprocess.Popen(chaos(*options), cwd=ROOT, stdout=output, stderr=output)
        try:
            until_s = time.monotonic() + 90
            while "round 1: disk-stall" not in log.read_text():
                assert run.poll() is None, log.read_text()
                assert time.monotonic() < until_s, log.read_text()
                time.sleep(0.05)
        finally:
            os.kill(run.pid, signal.SIGKILL)
            run.wait()
            mine = [record for record in dead_runs(kinds=KINDS) if record.owner[0] == run.pid]
            sweep(kinds=KINDS)
    assert len(mine) == 1
    assert not mine[0].scratch.exists()
    assert str(mine[0].scratch) not in Path("/proc/mounts").read_text()


# ------------------------------------------------------------------ the disks


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Disks, Path]]:
    home = tmp_path / "ams"
    home.mkdir()
    (home / "seed").write_text("was there before")
    made = Disks(tmp_path, ["ams"])
    made.put_under("ams", home)
    try:
        yield made, home
    finally:
        thaw_all(tmp_path)
        unmount_all(tmp_path)


def test_power_loss_takes_what_was_not_synced(disk: tuple[Disks, Path]) -> None:
    made, home = disk
    with (home / "synced").open("w") as file:
        file.write("kept")
        file.flush()
        os.fsync(file.fileno())
    (home / "written").write_text("lost")
    made.lose_power("ams")
    assert list(home.iterdir()) == []
    made.mount("ams")
    assert (home / "seed").read_text() == "was there before"
    assert (home / "synced").read_text() == "kept"
    assert not (home / "written").exists() or (home / "written").read_text() == ""


def test_a_full_disk_takes_nothing_until_it_is_emptied(disk: tuple[Disks, Path]) -> None:
    made, home = disk
    made.fill("ams")
    with pytest.raises(OSError, match="No space left"):
        (home / "more").write_bytes(b"x" * (1 << 20))
    made.empty("ams")
    (home / "more").write_bytes(b"x" * (1 << 20))


def test_a_stalled_disk_lets_writers_wait_and_readers_go_on(disk: tuple[Disks, Path]) -> None:
    made, home = disk
    made.freeze("ams")
    writer = subprocess.Popen(["touch", str(home / "more")])
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            writer.wait(0.5)
        assert (home / "seed").read_text() == "was there before"
    finally:
        made.thaw("ams")
    assert writer.wait(5) == 0


def test_the_disk_of_this_machine_is_never_harmed(disk: tuple[Disks, Path]) -> None:
    made, _ = disk
    made.lose_power("ams")
    for harm in (made.fill, made.freeze):
        with pytest.raises(RehearsalFailed, match="not mounted"):
            harm("ams")
