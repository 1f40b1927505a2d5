"""Wheels that were made once."""

import io
import os
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flightmode.errors import StepFailed
from flightmode.provision.kept import KEEP_DAYS, cache, kept
from flightmode.provision.wheels import FILES, TREES, _digest_of


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "flightmode" / "wheels"


def once(content: bytes) -> Callable[[], bytes]:
    left = [content]
    return left.pop


def refuses() -> bytes:
    raise StepFailed("no index answers")


def test_what_was_made_once_needs_no_index_again(home: Path) -> None:
    assert kept("0.1.0-abc-python3.11-x86_64", once(b"wheels")) == b"wheels"
    assert kept("0.1.0-abc-python3.11-x86_64", refuses) == b"wheels"
    (path,) = home.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700


def test_another_release_or_python_is_made_and_what_fails_is_not_kept(home: Path) -> None:
    kept("a", once(b"wheels"))
    with pytest.raises(StepFailed):
        kept("b", refuses)
    assert kept("b", once(b"others")) == b"others"


def test_what_nobody_has_asked_for_in_long_goes(home: Path) -> None:
    kept("old", once(b"old"))
    kept("used", once(b"used"))
    long_ago_s = time.time() - (KEEP_DAYS + 1) * 86400
    for name in ("old", "used"):
        os.utime(home / f"{name}.tar", (long_ago_s, long_ago_s))
    kept("used", refuses)
    kept("new", once(b"new"))
    assert sorted(path.name for path in home.iterdir()) == ["new.tar", "used.tar"]


@pytest.mark.parametrize("damaged", [b"", b"whee", b"wheels", b"x" * 38])
def test_what_is_damaged_is_made_anew(home: Path, damaged: bytes) -> None:
    kept("a", once(b"wheels"))
    (path,) = home.iterdir()
    path.write_bytes(damaged)
    assert kept("a", once(b"wheels")) == b"wheels"
    assert kept("a", refuses) == b"wheels"


def test_what_is_kept_is_still_an_archive(home: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.whl"))
    kept("a", once(buffer.getvalue()))
    (path,) = home.iterdir()
    with tarfile.open(path) as archive:
        assert archive.getnames() == ["a.whl"]


def test_a_cache_that_cannot_be_written_is_done_without(home: Path) -> None:
    home.parent.mkdir()
    home.write_text("no directory")
    assert kept("a", once(b"wheels")) == b"wheels"


def test_the_cache_is_the_user_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/anna")
    assert cache() == Path("/home/anna/.cache/flightmode/wheels")


def test_sources_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    for name in TREES:
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").write_text(name)
    for name in FILES:
        (tmp_path / name).write_text(name)
    first = _digest_of(tmp_path)
    (tmp_path / "rust" / "built.so").write_text("a build leaves things about")
    assert _digest_of(tmp_path) == first
    (tmp_path / "rust" / "deep" / "file").write_text("edited")
    assert _digest_of(tmp_path) != first
