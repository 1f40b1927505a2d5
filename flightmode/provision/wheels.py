"""Flightmode itself and what it needs, as wheels: hosts then need no package index.

The versions are those of the environment that runs this command: what was tested here runs there.
A host with another Python gets the same versions, made for its own.
"""

import fcntl
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from flightmode import __version__
from flightmode.errors import StepFailed
from flightmode.provision.kept import kept

OLDEST_GLIBC, GLIBC = 5, 36
"""Of the wheels that a host can use: 2.36 is Debian 12's."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What decides whether a host can use a wheel."""

    python: str
    """Like `3.11`."""
    machine: str
    """As `uname -m` has it."""

    @property
    def options(self) -> list[str]:
        """pip's, to get wheels for such a host on another one."""
        tags = [f"manylinux_2_{glibc}" for glibc in range(GLIBC, OLDEST_GLIBC - 1, -1)]
        words = ["--only-binary=:all:", "--implementation", "cp", "--python-version", self.python]
        for abi in (f"cp{self.python.replace('.', '')}", "abi3", "none"):
            words += ["--abi", abi]
        for tag in (*tags, "manylinux2014", "manylinux2010", "manylinux1", "linux"):
            words += ["--platform", f"{tag}_{self.machine}"]
        return words


TREES = ("flightmode", "rust")
FILES = ("pyproject.toml", "setup.cfg", "Cargo.toml", "Cargo.lock", "README.md", "LICENSE")
"""What of a checkout goes into its wheel."""

KEEP_S = 86400.0
"""How long the wheel of other sources stays after it was last asked for."""

HERE = Kind(f"{sys.version_info.major}.{sys.version_info.minor}", platform.machine())


@dataclass(frozen=True, slots=True)
class Release:
    """A Flightmode to be brought to hosts."""

    name: str
    """Version and content: two of one name are the same."""
    own: Path | None = None
    """The wheel of this Flightmode, for every Python; None: it is an index that has them."""
    _packed: dict[Kind, bytes] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def archive_for(self, kind: Kind) -> bytes:
        """The wheels for such a host, packed; fetched when first asked for, in a minute or less.

        What was fetched for this name before is in the user's cache and is not fetched again.

        Raises StepFailed with what pip said.  May be called from several threads.
        """
        with self._turn:
            if kind not in self._packed:
                name = f"{self.name}-python{kind.python}-{kind.machine}"
                self._packed[kind] = kept(name, lambda: _gathered(self.own, kind))
            return self._packed[kind]


def build() -> Release:
    """Make ready what hosts like this machine need; a minute where it is run from its sources.

    Raises StepFailed with what pip said.
    """
    source = _source()
    own = _made(source) if source is not None and source.is_dir() else source
    digest = hashlib.sha256(_pins().encode())
    if own is not None:
        digest.update(_digest(own).encode())
    release = Release(f"{__version__}-{digest.hexdigest()[:12]}", own)
    if sys.platform == "linux":
        release.archive_for(HERE)
    return release


def _source() -> Path | None:
    """What this Flightmode was installed from: a checkout, or a wheel; None: an index."""
    for each in distributions():
        told = each.read_text("direct_url.json") if _name(each) == "flightmode" else None
        if told is not None:
            return _source_in(json.loads(told))
    return None


def _source_in(told: dict[str, Any]) -> Path | None:
    """Of a direct_url.json (PyPA, "Recording the Direct URL Origin of installed distributions").

    None also where it is gone since, or is another file by now, or hosts could not use it.
    """
    url = urlsplit(told["url"])
    path = Path(unquote(url.path))
    if url.scheme != "file":
        return None
    if "dir_info" in told:
        return path if path.is_dir() else None
    known = told.get("archive_info", {}).get("hashes", {}).get("sha256")
    usable = sys.platform == "linux" and path.suffix == ".whl" and path.is_file()
    same = usable and hashlib.sha256(path.read_bytes()).hexdigest() == known
    return path if same else None


def _made(checkout: Path) -> Path:
    """The wheel of a checkout.  It keeps to Python's stable interface: one for every Python."""
    if sys.platform != "linux":
        text = (
            "Flightmode is run from its sources here, and a host's programs are made on Linux: "
            "run it from a Linux machine, or install a release"
        )
        raise StepFailed(text, hint="pip install flightmode")
    room = checkout / ".flightmode"
    house = room / "wheels" / _digest_of(checkout)
    room.mkdir(exist_ok=True)
    with (room / "wheels.lock").open("w") as lock:
        # Another run of this checkout builds in the same place.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not house.exists():
            _build(_copied(checkout), house, checkout / "target")
        os.utime(house)
    (wheel,) = house.glob("flightmode-*.whl")
    return wheel


def _build(copy: Path, house: Path, target: Path) -> None:
    """`house` is there when it is whole."""
    beside = copy.parent / "wheels.new"
    shutil.rmtree(beside, ignore_errors=True)
    argv = ["wheel", "--no-deps", "--wheel-dir", str(beside), str(copy)]
    if _is_installed("setuptools-rust"):
        argv.append("--no-build-isolation")
    _pip(argv, CARGO_TARGET_DIR=str(target))
    house.parent.mkdir(parents=True, exist_ok=True)
    _forget_old(house.parent)
    beside.rename(house)


def _forget_old(houses: Path) -> None:
    """Those of sources that were before; but not what a run that goes on still may read."""
    before_s = time.time() - KEEP_S
    for each in houses.iterdir():
        if each.stat().st_mtime < before_s:
            shutil.rmtree(each, ignore_errors=True)


def _sources(checkout: Path) -> list[Path]:
    """What a wheel is made of."""
    trees = [path for name in TREES for path in sorted((checkout / name).rglob("*"))]
    own = [path for path in trees if path.is_file() and not _is_built(path.relative_to(checkout))]
    return [*own, *(checkout / name for name in FILES)]


def _is_built(path: Path) -> bool:
    return path.suffix == ".so" or bool({"__pycache__", "target"} & set(path.parts))


def _digest_of(checkout: Path) -> str:
    digest = hashlib.sha256(sys.version.encode())
    for path in _sources(checkout):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(checkout)} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


def _copied(checkout: Path) -> Path:
    """The sources, elsewhere: a build leaves things about.  The same place each time, and with
    their times, so that the compiler sees what has not changed."""
    copy = checkout / ".flightmode" / "wheel"
    shutil.rmtree(copy, ignore_errors=True)
    for path in _sources(checkout):
        there = copy / path.relative_to(checkout)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, there)
    return copy


def _gathered(own: Path | None, kind: Kind) -> bytes:
    if own is not None and kind.machine != HERE.machine:
        text = (
            f"the sources here make programs for {HERE.machine}, and a host is a {kind.machine}: "
            "run it from a machine of that kind, or install a release"
        )
        raise StepFailed(text, hint="pip install flightmode")
    with tempfile.TemporaryDirectory(prefix="flightmode-wheels-") as directory:
        house = Path(directory)
        pins = house / "pins"
        pins.write_text(_pins())
        wanted = [f"flightmode=={__version__}"] if own is None else [str(own)]
        alike = sys.platform == "linux" and kind == HERE
        argv = ["wheel", "--wheel-dir"] if alike else ["download", *kind.options, "--dest"]
        _pip([*argv, str(house / "wheels"), "--constraint", str(pins), *wanted])
        return _archive(sorted((house / "wheels").glob("*.whl")))


def _pip(argv: list[str], **environment: str) -> None:
    command = [sys.executable, "-m", "pip", *argv, "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}
    )
    if done.returncode != 0:
        raise StepFailed(f"the wheels can't be made: {done.stderr.strip()[-1500:]}")


def _pins() -> str:
    """The versions here, of what Flightmode needs directly or not; other things are left out."""
    found = {_name(each): each for each in distributions()}
    needed, open_ = dict[str, str](), ["flightmode"]
    while open_:
        name = open_.pop()
        if name in needed or name not in found:
            continue
        needed[name] = found[name].version
        open_ += [
            canonicalize_name(each.name)
            for each in map(Requirement, found[name].requires or ())
            if each.marker is None or each.marker.evaluate({"extra": ""})
        ]
    needed.pop("flightmode", None)
    return "".join(f"{name}=={version}\n" for name, version in sorted(needed.items()))


def _name(each: Distribution) -> str:
    return canonicalize_name(each.metadata["Name"])


def _is_installed(name: str) -> bool:
    return any(_name(each) == name for each in distributions())


def _digest(wheel: Path) -> str:
    """Of contents, not of the archive: a wheel that is built again has other time stamps."""
    digest = hashlib.sha256()
    with zipfile.ZipFile(wheel) as archive:
        for info in sorted(archive.infolist(), key=lambda info: info.filename):
            digest.update(f"{info.filename} {info.CRC} {info.file_size}\n".encode())
    return digest.hexdigest()


def _archive(wheels: list[Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for wheel in wheels:
            archive.add(wheel, wheel.name)
    return buffer.getvalue()
