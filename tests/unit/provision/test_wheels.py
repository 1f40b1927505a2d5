"""What this Flightmode was installed from, and the wheels of sources that were before."""

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flightmode.provision.wheels import KEEP_S, _forget_old, _source_in


def told(path: Path, **more: object) -> dict[str, Any]:
    return {"url": path.as_uri(), **more}


def of_archive(content: bytes) -> dict[str, Any]:
    return {"hashes": {"sha256": hashlib.sha256(content).hexdigest()}}


def test_a_checkout_is_a_directory_that_is_still_there(tmp_path: Path) -> None:
    here = tmp_path / "two words"
    here.mkdir()
    assert _source_in(told(here, dir_info={"editable": True})) == here
    assert _source_in(told(here, dir_info={})) == here
    assert _source_in(told(tmp_path / "gone", dir_info={})) is None
    assert _source_in({"url": "https://example.org/flightmode", "vcs_info": {}}) is None


def test_a_wheel_that_it_was_installed_from_is_no_checkout(tmp_path: Path) -> None:
    wheel = tmp_path / "flightmode-0.1.0-cp311-abi3-linux_x86_64.whl"
    wheel.write_bytes(b"wheel")
    assert _source_in(told(wheel)) is None
    assert _source_in(told(wheel, archive_info={})) is None


@pytest.mark.skipif(sys.platform != "linux", reason="a host could not use it")
def test_a_wheel_is_brought_to_hosts_while_it_is_what_was_installed(tmp_path: Path) -> None:
    wheel = tmp_path / "flightmode-0.1.0-cp311-abi3-linux_x86_64.whl"
    sdist = tmp_path / "flightmode-0.1.0.tar.gz"
    for path in (wheel, sdist):
        path.write_bytes(b"wheel")
    assert _source_in(told(wheel, archive_info=of_archive(b"wheel"))) == wheel
    assert _source_in(told(sdist, archive_info=of_archive(b"wheel"))) is None
    wheel.write_bytes(b"another")
    assert _source_in(told(wheel, archive_info=of_archive(b"wheel"))) is None
    wheel.unlink()
    assert _source_in(told(wheel, archive_info=of_archive(b"wheel"))) is None


def test_a_wheel_that_another_run_may_still_read_stays(tmp_path: Path) -> None:
    for name, age_s in (("old", KEEP_S + 60), ("young", KEEP_S - 60)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.whl").touch()
        at_s = time.time() - age_s
        os.utime(tmp_path / name, (at_s, at_s))
    _forget_old(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["young"]
