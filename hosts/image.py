"""The image that every host starts from: what a provider hands out, and nothing more."""

import os
import shutil
import subprocess
from pathlib import Path

from hosts.commands import run

SUITE = "bookworm"
CACHE = Path("/var/cache/flightmode-hosts")
PACKAGES = ("systemd-sysv", "dbus", "openssh-server", "iproute2", "ca-certificates", "procps")
"""A kernel and a network come from the machine; what is left of a cloud image is this."""


def image(cache: Path = CACHE) -> Path:
    """The directory of the image; debootstrapped if it is not there (about a minute)."""
    home = cache / SUITE
    if (home / "etc" / "flightmode-image").exists():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    draft = cache / f"{SUITE}.{os.getpid()}"
    sources = _sources()
    mirror = [uri for uri, release in sources if release == SUITE][:1]
    include = f"--include={','.join(PACKAGES)}"
    try:
        run("debootstrap", "--variant=minbase", include, SUITE, str(draft), *mirror)
        _finish(draft, sources)
        if home.exists():
            shutil.rmtree(home)
        draft.rename(home)
    finally:
        if draft.exists():
            shutil.rmtree(draft)
    return home


def _sources() -> list[tuple[str, str]]:
    """Where this machine has its packages from: address and release; maybe none is known yet."""
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"]
    argv += ["Created-By: Packages", "Component: main"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    pairs = {tuple(line.split(" ", 1)) for line in done.stdout.splitlines() if " " in line}
    return sorted((uri, release) for uri, release in pairs if release.startswith(SUITE))


def _finish(root: Path, sources: list[tuple[str, str]]) -> None:
    """What differs from machine to machine is made at each host's first boot, not here."""
    if sources:
        lines = "".join(f"deb {uri} {release} main\n" for uri, release in sources)
        (root / "etc" / "apt" / "sources.list").write_text(lines)
    (root / "etc" / "machine-id").write_text("")
    for key in (root / "etc" / "ssh").glob("ssh_host_*"):
        key.unlink()
    # The network is there before the host boots, as a provider's is; nobody waits for it.
    for unit in (
        "systemd-networkd-wait-online.service",
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
    ):
        (root / "etc" / "systemd" / "system" / unit).symlink_to("/dev/null")
    (root / "etc" / "flightmode-image").write_text("1\n")
