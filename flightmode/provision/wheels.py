"""Flightmode itself and what it needs, as wheels: hosts then need no package index.

The versions are those of the environment that runs this command: what was tested here runs there.
"""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flightmode import __version__
from flightmode.errors import StepFailed


@dataclass(frozen=True, slots=True)
class Release:
    """Wheels, packed."""

    name: str
    """Version and content: two of one name are the same."""
    python: str
    """The Python that they are for, like `3.11`."""
    archive: bytes


def build() -> Release:
    """Make the wheels.  Takes a minute where Flightmode is run from its sources.

    Raises StepFailed with what pip said.
    """
    with tempfile.TemporaryDirectory(prefix="flightmode-wheels-") as directory:
        house = Path(directory)
        pins = house / "pins"
        pins.write_text(_pins())
        argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
        argv += ["--wheel-dir", str(house / "wheels"), "--constraint", str(pins)]
        if _is_installed("setuptools-rust"):
            argv.append("--no-build-isolation")
        source = _source()
        targets = {"CARGO_TARGET_DIR": str(Path(source).parents[1] / "target")}
        env = {**os.environ, **(targets if Path(source).is_dir() else {})}
        done = subprocess.run([*argv, source], capture_output=True, text=True, env=env)
        if done.returncode != 0:
            raise StepFailed(f"the wheels can't be made: {done.stderr.strip()[-1500:]}")
        wheels = sorted((house / "wheels").glob("*.whl"))
        return Release(
            f"{__version__}-{_digest(wheels)}",
            f"{sys.version_info.major}.{sys.version_info.minor}",
            _packed(wheels),
        )


def _source() -> str:
    """Where pip finds this Flightmode: a copy of its checkout, else its version."""
    for each in distributions():
        told = each.read_text("direct_url.json") if _name(each) == "flightmode" else None
        if told is not None:
            url = urlsplit(json.loads(told)["url"])
            if url.scheme == "file":
                return str(_copied(Path(unquote(url.path))))
    return f"flightmode=={__version__}"


def _copied(checkout: Path) -> Path:
    """The sources, elsewhere: a build leaves things about.  The same place each time, and with
    their times, so that the compiler sees what has not changed."""
    copy = checkout / ".flightmode" / "wheel"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    built = shutil.ignore_patterns("__pycache__", "*.so", "target")
    for name in ("flightmode", "rust"):
        shutil.copytree(checkout / name, copy / name, ignore=built)
    for name in ("pyproject.toml", "Cargo.toml", "Cargo.lock", "README.md", "LICENSE"):
        shutil.copy2(checkout / name, copy / name)
    return copy


def _pins() -> str:
    others = (each for each in distributions() if _name(each) not in ("flightmode", "pip"))
    return "".join(f"{_name(each)}=={each.version}\n" for each in others)


def _name(each: Distribution) -> str:
    return each.metadata["Name"].lower()


def _is_installed(name: str) -> bool:
    return any(_name(each) == name for each in distributions())


def _digest(wheels: list[Path]) -> str:
    """Of contents, not of archives: a wheel that is built again has other time stamps."""
    digest = hashlib.sha256()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for info in sorted(archive.infolist(), key=lambda info: info.filename):
                digest.update(f"{info.filename} {info.CRC} {info.file_size}\n".encode())
    return digest.hexdigest()[:12]


def _packed(wheels: list[Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for wheel in wheels:
            archive.add(wheel, wheel.name)
    return buffer.getvalue()
