"""The image that every host starts from: what a provider hands out, and nothing more."""

import fcntl
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from hosts.commands import HostsFailed, run

SUITE = "bookworm"
"""Debian 12; `trixie` is Debian 13."""

CACHE = Path("/var/cache/flightmode-hosts")
MARK = Path("etc/flightmode-image")
"""In an image that is whole."""
PACKAGES = ("systemd-sysv", "dbus", "openssh-server", "iproute2", "ca-certificates", "procps")
"""A kernel and a network come from the machine; what is left of a cloud image is this."""


def image(cache: Path = CACHE, suite: str = SUITE) -> Path:
    """The directory of that Debian's image; debootstrapped if it is not there: about a minute.

    All runs of this machine share it: the first one makes it, and the others wait for that.
    """
    return made_once(cache, suite, lambda draft: _bootstrap(draft, suite))


def made_once(cache: Path, suite: str, make: Callable[[Path], None]) -> Path:
    """The directory that `make` fills: whole, or not there; never while another run uses it."""
    home = cache / suite
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{suite}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / MARK).exists():
            for left in (home, draft := cache / f"{suite}.draft"):
                # Of a run that was killed: nobody has used it.
                shutil.rmtree(left, ignore_errors=True)
            make(draft)
            (draft / MARK).parent.mkdir(exist_ok=True)
            (draft / MARK).write_text("1\n")
            draft.rename(home)
    return home


def _bootstrap(draft: Path, suite: str) -> None:
    sources = _sources(suite)
    mirror = [uri for uri, release in sources if release == suite][:1]
    include = f"--include={','.join(PACKAGES)}"
    run("debootstrap", "--variant=minbase", include, suite, str(draft), *mirror)
    _finish(draft, sources)


def _sources(suite: str) -> list[tuple[str, str]]:
    """Where that Debian's packages are, going by where this machine has its own from.

    Address and release; maybe nothing is known yet.
    """
    argv = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"]
    argv += ["Created-By: Packages", "Component: main"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    pairs = {tuple(line.split(" ", 1)) for line in done.stdout.splitlines() if " " in line}
    mine = _codename()
    return sorted(
        (uri, release.replace(mine, suite, 1)) for uri, release in pairs if release.startswith(mine)
    )


def _codename() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise HostsFailed("this machine's /etc/os-release has no VERSION_CODENAME")


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
