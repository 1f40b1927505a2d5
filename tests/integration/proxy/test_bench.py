"""The benches work: their smallest runs end well and print what they are for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
# Until the data path is built, the benches measure the others.
OURS = (ROOT / "rust/proxy/Cargo.toml").exists()
pytestmark = [
    pytest.mark.integration,
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(shutil.which, ("pgbouncer", "haproxy", "strace"))),
        reason="./dev bench proxy installs PgBouncer, HAProxy and strace",
    ),
]


def bench(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [
            sys.executable,
            ROOT / "bench" / f"{name}.py",
            "--quick",
            *([] if OURS else ["--no-ours"]),
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_bench_of_costs_measures_both_sides_in_one_run():
    printed = bench("proxy", "--only", "latency,syscalls,logins,idle")
    assert "added p50, 1 client, simple" in printed
    assert ("Flightmode" in printed) == OURS
    assert "PgBouncer 1.18" in printed


def test_the_bench_of_holding_tells_what_each_client_saw():
    printed = bench("hold", "--faults", "kill", "--failovers", "1", "--limit", "6")
    assert "the primary is killed" in printed
    assert "held clients are answered" in printed
