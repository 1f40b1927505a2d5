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
MADE_AS = 2
"""Grows when images are made in another way; hosts of another version may stand on an old one."""
LATER = ("etcd-server", "nftables", "postgresql", "python3", "python3-venv", "systemd-timesyncd")
"""What hosts will install: it lies in apt's cache there, so that no run waits for a mirror."""
PACKAGES = ("systemd-sysv", "dbus", "openssh-server", "iproute2", "ca-certificates", "procps")
"""A kernel and a network come from the machine; what is left of a cloud image is this."""


def image(cache: Path = CACHE, suite: str = SUITE) -> Path:
    """The directory of that Debian's image; debootstrapped if it is not there: about a minute.

    All runs of this machine share it: the first one makes it, and the others wait for that.
    """
    return made_once(cache, f"{suite}-{MADE_AS}", lambda draft: _bootstrap(draft, suite))


def made_once(cache: Path, name: str, make: Callable[[Path], None]) -> Path:
    """The directory of that name, filled by `make`: whole, or not there.

    One run at a time makes it.  What a run that was killed has left is removed.
    """
    home, draft = cache / name, cache / f"{name}.draft"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / MARK).exists():
            for left in (home, draft):
                if left.exists():
                    shutil.rmtree(left)
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
    for words in (["update"], ["install", "--download-only", "--no-install-recommends", *LATER]):
        run("chroot", str(draft), "apt-get", "-q", "-y", *words)


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
    # Nobody reads translations, and power goes here without taking what the kernel has to write.
    (root / "etc" / "apt" / "apt.conf.d" / "90hosts").write_text('Acquire::Languages "none";\n')
    (root / "etc" / "dpkg" / "dpkg.cfg.d" / "hosts").write_text("force-unsafe-io\n")
    # The network is there before the host boots, as a provider's is; nobody waits for it.
    for unit in (
        "systemd-networkd-wait-online.service",
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
    ):
        (root / "etc" / "systemd" / "system" / unit).symlink_to("/dev/null")
