"""What is deleted when Flightmode goes, and what never is: the commands are run, in a room here."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from flightmode.provision.removal import (
    KEPT,
    aside_command,
    kept_command,
    removal,
    stop_command,
)
from flightmode.provision.wanted import STATE
from tests.unit.provision.test_plan import want

COPIES = ("postgres.old-20260102T030405", "postgres.of-20260102T030405", "postgres.clone")


def sh(command: str, room: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it with /var/lib/flightmode in a room of the test's own."""
    assert STATE in command or path is not None
    text = command.replace(STATE, str(room))
    before = [] if path is None else [str(path)]
    environment = {**os.environ, "PATH": os.pathsep.join([*before, os.environ["PATH"]])}
    return subprocess.run(["sh", "-c", text], capture_output=True, text=True, env=environment)


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A node's state directory, after a clone, an earlier life and a year of decisions."""
    for name in ("postgres", *COPIES, "somebody-s-own"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "PG_VERSION").write_text("15\n")
    for name in ("journal.jsonl", "journal.jsonl.1", "journal.jsonl.3"):
        (tmp_path / name).write_text("{}\n")
    return tmp_path


def test_every_copy_of_data_outlives_a_removal_and_is_named(room: Path) -> None:
    steps = removal(want("ams"), f"{STATE}/postgres").steps
    texts = [step.command for step in steps if step.title in ("keep the data aside", KEPT)]
    for text in texts:
        done = sh(text, room)
        assert done.returncode == 0, done.stderr
    left = {path.name for path in room.iterdir()}
    (aside,) = (name for name in left if name.startswith("postgres.of-") and name not in COPIES)
    assert left == {*COPIES, aside, "somebody-s-own"}
    assert (room / aside / "PG_VERSION").read_text() == "15\n"
    assert done.stdout.split() == sorted(str(room / name) for name in left)
    assert steps[-1].tells
    (forget,) = (step.command for step in steps if "rm -rf" in step.command)
    assert STATE not in forget.split()


def test_a_removal_may_be_repeated_and_leaves_no_empty_directory(tmp_path: Path) -> None:
    room = tmp_path / "state"
    room.mkdir()
    (room / "journal.jsonl").touch()
    for _ in range(2):
        for text in (aside_command(f"{STATE}/postgres"), kept_command(f"{STATE}/postgres")):
            done = sh(text, room)
            assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert not room.exists()


def test_data_that_a_process_works_in_are_not_moved(room: Path) -> None:
    with subprocess.Popen(["sleep", "60"], cwd=room / "postgres") as process:
        try:
            done = sh(aside_command(f"{STATE}/postgres"), room)
        finally:
            process.kill()
    assert done.returncode == 1
    assert f"process {process.pid} works in" in done.stderr
    assert (room / "postgres").exists()


SYSTEMCTL = """#!/bin/sh
# One unit's states lie in a file of its name; `stop` leaves the state that is in NAME.after.
home=$(dirname "$0")
for unit; do :; done
case "$1 $2" in
    "show --property=LoadState") cat "$home/$unit.load" 2>/dev/null || echo not-found ;;
    "show --property=ActiveState") cat "$home/$unit.active" 2>/dev/null || echo inactive ;;
    stop*) [ ! -e "$home/$unit.after" ] || cp "$home/$unit.after" "$home/$unit.active"
           [ ! -e "$home/$unit.refuses" ] || { echo "no" >&2; exit 1; } ;;
    reset-failed*) echo inactive > "$home/$unit.active" ;;
    disable*) : ;;
esac
"""


@pytest.fixture
def systemctl(tmp_path: Path) -> Path:
    program = tmp_path / "systemctl"
    program.write_text(SYSTEMCTL)
    program.chmod(0o755)
    assert shutil.which("systemctl", path=str(tmp_path)) == str(program)
    return tmp_path


def test_what_is_not_there_or_stops_is_stopped(systemctl: Path) -> None:
    for name, after in (("a.service", "inactive"), ("b.service", "failed")):
        (systemctl / f"{name}.load").write_text("loaded\n")
        (systemctl / f"{name}.active").write_text("active\n")
        (systemctl / f"{name}.after").write_text(f"{after}\n")
    done = sh(stop_command(("a.service", "b.service", "c.service")), systemctl, systemctl)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("how", ["after", "refuses"])
def test_a_unit_that_does_not_stop_ends_the_removal(systemctl: Path, how: str) -> None:
    (systemctl / "a.service.load").write_text("loaded\n")
    (systemctl / "a.service.active").write_text("active\n")
    (systemctl / f"a.service.{how}").write_text("deactivating\n")
    done = sh(stop_command(("a.service",)), systemctl, systemctl)
    assert done.returncode != 0
    assert done.stderr != ""


def test_a_socket_is_closed_before_what_it_would_start_again() -> None:
    text = removal(want("web"), "").steps[0].command
    assert "for unit in flightmode-proxy.socket flightmode-proxy.service; do" in text
    text = removal(want("ams"), "").steps[0].command
    last_first = "agent.service flightmode-fence.service flightmode-etcd.service"
    assert f"for unit in flightmode-{last_first} flightmode-firewall.service; do" in text


NFT = """#!/bin/sh
case "$1" in
    list) [ -e "$HERE/table" ] ;;
    delete) rm "$HERE/table" ;;
esac
"""


def test_the_rules_of_the_firewall_go_once_everything_has_stopped(tmp_path: Path) -> None:
    """Its unit leaves them where they are."""
    told = [step.title for step in removal(want("wit"), "").steps]
    assert told[:2] == ["stop everything", "take the firewall away"]
    assert "take the firewall away" not in [s.title for s in removal(want("web"), "").steps]
    command = removal(want("ams"), "").steps[1].command
    (tmp_path / "nft").write_text(NFT)
    (tmp_path / "nft").chmod(0o755)
    (tmp_path / "table").touch()
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HERE": str(tmp_path)}
    for _ in ("once", "again"):
        done = subprocess.run(["sh", "-c", command], capture_output=True, env=environment)
        assert done.returncode == 0, done.stderr
        assert not (tmp_path / "table").exists()
