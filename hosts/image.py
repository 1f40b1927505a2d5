"""The image that every host starts from: what a provider hands out, and nothing more."""

import os
import shutil
import subprocess
from pathlib import Path

SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"
CACHE = Path("/var/cache/flightmode-hosts")
PACKAGES = ("systemd-sysv", "dbus", "openssh-server", "iproute2", "ca-certificates", "procps")
"""A kernel and a network come from the machine; what is left of a cloud image is this."""

_SOURCES = f"""deb {MIRROR} {SUITE} main
deb {MIRROR} {SUITE}-updates main
deb {SECURITY} {SUITE}-security main
"""


class HostsFailed(Exception):
    """The machine can't make hosts, or one did not do as it should."""


def image(cache: Path = CACHE) -> Path:
    """The directory of the image; debootstrapped if it is not there (about a minute)."""
    home = cache / SUITE
    if (home / "etc" / "flightmode-image").exists():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    draft = cache / f"{SUITE}.{os.getpid()}"
    try:
        _run(
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            SUITE,
            str(draft),
            MIRROR,
        )
        _finish(draft)
        if home.exists():
            shutil.rmtree(home)
        draft.rename(home)
    finally:
        if draft.exists():
            shutil.rmtree(draft)
    return home


def _finish(root: Path) -> None:
    """What differs from machine to machine is made at each host's first boot, not here."""
    (root / "etc" / "apt" / "sources.list").write_text(_SOURCES)
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


def _run(*argv: str) -> None:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        raise HostsFailed(f"{' '.join(argv)}: {(done.stderr or done.stdout)[-2000:]}")
