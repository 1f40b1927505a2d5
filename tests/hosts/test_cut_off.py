"""A run of `provision` that ends in the middle, whatever the reason: the next one goes on."""

import signal
import subprocess
import sys
import time

import pytest

from tests.hosts.machines import Founder, founder, missing

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.story,
    pytest.mark.timeout(900),
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


def begun(me: Founder, sign: str, within_s: float = 240.0) -> subprocess.Popen[str]:
    """`flightmode provision`, until it has said so."""
    argv = [sys.executable, "-m", "flightmode.cli.main", "provision", "--config", str(me.toml)]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
    )
    assert process.stdout is not None
    until_s = time.monotonic() + within_s
    for line in process.stdout:
        print(line, end="")
        if sign in line:
            return process
        assert time.monotonic() < until_s, f"{sign!r} was not said in {within_s:.0f} s"
    raise AssertionError(f"it ended ({process.wait()}) and never said {sign!r}")


def test_a_run_that_is_cut_off_is_taken_up_by_the_next_one() -> None:
    with founder() as me:
        me.begins()

        # Packages are being unpacked on the database nodes when the command is killed.
        process = begun(me, "no cluster of Debian's own")
        me.hosts.until_true("ams", "pgrep -x dpkg", within_s=120)
        process.kill()
        process.communicate(timeout=20)

        # The next one loses its link to a node.
        process = begun(me, "write /etc/flightmode/firewall.nft")
        me.hosts.cut("ams")
        try:
            rest, _ = process.communicate(timeout=240)
        finally:
            process.kill()
            me.hosts.heal("ams")
        print(rest)
        assert process.returncode == 69, rest
        assert "ams: the link broke during" in rest

        # And Ctrl-C ends one.
        process = begun(me, "looking at")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
        assert process.returncode == 130

        assert "the cluster is whole" in me.does("provision").out
