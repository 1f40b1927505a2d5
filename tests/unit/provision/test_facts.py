"""The script that looks at a host, run here by a shell, with a systemd that says what we want."""

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from flightmode.provision.facts import Facts, read, script
from tests.unit.provision.test_plan import want

SYSTEMCTL = """#!/bin/sh
for unit; do :; done
case "$1 $unit" in
    "show flightmode-agent.service") echo "MainPID=$AGENT"; echo NeedDaemonReload=no ;;
    "show flightmode-firewall.service")
        echo MainPID=0
        echo NeedDaemonReload=yes
        echo "StateChangeTimestamp=Mon 2026-01-05 10:11:12.250000 UTC" ;;
    show*) echo MainPID=0; echo StateChangeTimestamp= ;;
    is-enabled*) echo enabled ;;
    is-active*) echo active ;;
esac
"""


@pytest.fixture
def looked(tmp_path: Path) -> Facts:
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "systemctl").chmod(0o755)
    (tmp_path / "flightmode.toml").touch()
    os.utime(tmp_path / "flightmode.toml", (1_700_000_000.5, 1_700_000_000.5))
    (tmp_path / "0.1.0-abc").mkdir()
    (tmp_path / "0.1.0-abc" / ".complete").touch()
    (tmp_path / "current").symlink_to(tmp_path / "0.1.0-abc")
    text = script(want("ams"))
    for ours, here in (
        ("/var/lib/.flightmode", f"{tmp_path}/.flightmode"),
        ("/etc/flightmode/flightmode.toml", f"{tmp_path}/flightmode.toml"),
        ("/opt/flightmode/current", f"{tmp_path}/current"),
    ):
        assert ours in text
        text = text.replace(ours, here)
    # A name with a bracket and spaces is what makes /proc/PID/stat hard to read.
    shutil.copy2("/bin/sleep", tmp_path / "a) b (c")
    agent = subprocess.Popen([tmp_path / "a) b (c", "60"])
    try:
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "AGENT": str(agent.pid)}
        done = subprocess.run(["sh", "-c", text], capture_output=True, text=True, env=environment)
    finally:
        agent.kill()
        agent.wait()
    assert [path.name for path in tmp_path.glob(".flightmode*")] == [], "it leaves nothing behind"
    facts = read(done.stdout)
    assert facts is not None, done.stderr
    return facts


def test_a_look_says_since_when_everything_runs_and_when_it_was_written(
    looked: Facts, tmp_path: Path
) -> None:
    began_s = dict(looked.began_s)
    assert began_s.pop("flightmode-agent.service") == pytest.approx(time.time(), abs=30)
    assert began_s.pop("flightmode-firewall.service") == 1_767_607_872.25
    assert began_s == {}, "nothing is said of what does not run"
    assert looked.unread == {"flightmode-firewall.service"}
    written_s = dict(looked.written_s)
    assert written_s[f"{tmp_path}/flightmode.toml"] == pytest.approx(1_700_000_000.5, abs=0.01)
    assert written_s[f"{tmp_path}/current"] == pytest.approx(time.time(), abs=30)
    assert looked.release == "0.1.0-abc"
