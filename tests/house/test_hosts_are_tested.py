"""The tests that need hosts are run where they are to be run, and never left out in silence."""

import os
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hosts.commands import HostsFailed
from hosts.image import MARK, made_once
from tests.hosts.machines import missing

ROOT = Path(__file__).resolve().parents[2]


def test_a_tool_that_hosts_need_is_a_failure_in_ci_and_elsewhere_a_reason(tmp_path: Path) -> None:
    with pytest.raises(HostsFailed, match="debootstrap, systemd-nspawn"):
        missing(root=True, ci=True, path=str(tmp_path))
    assert "systemd-nspawn" in str(missing(root=True, ci=False, path=str(tmp_path)))
    assert missing(root=False, ci=True) == "hosts need root"
    for tool in ("debootstrap", "systemd-nspawn", "nft", "ssh", "ssh-keygen"):
        (tmp_path / tool).touch(mode=0o755)
    assert missing(root=True, ci=True, path=str(tmp_path)) is None


def test_ci_says_that_it_is_ci() -> None:
    assert "export CI=true" in (ROOT / ".ci" / "run").read_text()


def run_dev(tmp_path: Path, verb: str, euid: int) -> list[str]:
    """What the verb asks for, in its order: `need` and what comes after it only say so."""
    text = (ROOT / "dev").read_text()
    body = re.search(rf"^verb_{verb}\(\) {{.*?^}}$", text, re.MULTILINE | re.DOTALL)
    assert body is not None
    script = f"""set -euo pipefail
ROOT={tmp_path}
need() {{ printf 'need %s\\n' "$@"; }}
need_all() {{ :; }}
need_image() {{ echo image; }}
need_bare_proxy() {{ :; }}
say() {{ :; }}
die() {{ echo "die $1"; exit 1; }}
sudo() {{ echo "sudo $*"; }}
exec() {{ "$@"; exit; }}
as_tester() {{ echo "$*"; }}
{body[0].replace("$EUID", str(euid))}
verb_{verb} -k it
"""
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, env={"PATH": os.environ["PATH"]}
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_who_is_root_gets_what_hosts_need_before_the_tests(tmp_path: Path) -> None:
    assert run_dev(tmp_path, "test", 0) == [
        "need peers",
        "need hosts",
        "image",
        "python -m pytest -k it",
    ]
    assert run_dev(tmp_path, "test", 1000) == ["need peers", "python -m pytest -k it"]


def test_who_is_not_root_becomes_root_for_the_hosts(tmp_path: Path) -> None:
    assert run_dev(tmp_path, "hosts-test", 1000) == [f"sudo -- {tmp_path}/dev hosts-test -k it"]
    told = run_dev(tmp_path, "hosts-test", 0)
    assert told == ["need hosts", "image", "python -m pytest tests/hosts -m hosts -s -k it"]


def test_runs_that_begin_together_make_one_image_and_a_killed_one_leaves_none(
    tmp_path: Path,
) -> None:
    (tmp_path / "it.draft").mkdir()
    (tmp_path / "it.draft" / "half").touch()
    made = list[Path]()

    def make(draft: Path) -> None:
        assert not draft.exists()
        draft.mkdir()
        made.append(draft)
        # The other one waits at the door while this one works.
        assert at_the_door.wait(timeout=10)

    at_the_door = threading.Event()
    with ThreadPoolExecutor(2) as runs:
        first = runs.submit(made_once, tmp_path, "it", make)
        second = runs.submit(made_once, tmp_path, "it", make)
        until_s = time.monotonic() + 10
        while not made:
            assert time.monotonic() < until_s
            time.sleep(0.01)
        at_the_door.set()
        assert {first.result(timeout=10), second.result(timeout=10)} == {tmp_path / "it"}
    assert len(made) == 1
    assert (tmp_path / "it" / MARK).exists()
    assert not (tmp_path / "it" / "half").exists()


def test_an_image_that_can_t_be_made_is_none(tmp_path: Path) -> None:
    def fails(draft: Path) -> None:
        draft.mkdir()
        raise HostsFailed("no network")

    with pytest.raises(HostsFailed):
        made_once(tmp_path, "it", fails)
    assert not (tmp_path / "it").exists()
    assert made_once(tmp_path, "it", Path.mkdir) == tmp_path / "it"
