"""A disk of its own for each node: a file system in a file, which can fill, stall, and lose power.

Full: a file takes what is left.  Stall: the file system is frozen (fsfreeze(8)), so that writes and
syncs wait and reads go on, as on a volume whose network is gone.  Power: the file system is shut
down without writing its journal (FS_IOC_SHUTDOWN, which ext4 has since Linux 4.11), so that all
that was written and not synced is gone after the next mount.
"""

import fcntl
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from flightmode.demo.command import run
from flightmode.errors import RehearsalFailed

SIZE_MB = 2048
_FILLER = "filler"
# _IOR('X', 125, __u32) of include/uapi/linux/fs.h, and its flag for "leave the journal as it is".
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_UNMOUNT_S = 10.0


class Disks:
    """The disks of one run.  Those of nodes that have none are left out of every verb."""

    def __init__(self, scratch: Path, nodes: Sequence[str]) -> None:
        self._images = {node: scratch / f"{node}.img" for node in nodes}
        self._where: dict[str, Path] = {}
        self._frozen: set[str] = set()

    def put_under(self, node: str, home: Path) -> None:
        """Move a node's directory onto a disk of its own, which is mounted in its place."""
        image = self._images.get(node)
        if image is None:
            return
        with image.open("wb") as file:
            file.truncate(SIZE_MB << 20)
        # No blocks kept for root: full is full.  A small journal, made at once.
        run(["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0", str(image)])
        owner = home.stat()
        seed = home.with_name(f"{home.name}.seed")
        home.rename(seed)
        home.mkdir()
        self._where[node] = home
        self.mount(node)
        run(["cp", "-a", f"{seed}/.", str(home)])
        os.chown(home, owner.st_uid, owner.st_gid)
        home.chmod(owner.st_mode & 0o777)
        shutil.rmtree(seed)
        # What was installed before the cluster was first started has long been on the disk.
        run(["sync", "--file-system", str(home)])

    def mount(self, node: str) -> None:
        """Mount it, if it is not; the kernel repairs what a power loss left (its journal)."""
        home = self._where.get(node)
        if home is not None and not home.is_mount():
            run(["mount", "-o", "loop,noatime", str(self._images[node]), str(home)])

    def lose_power(self, node: str) -> None:
        """All that was not synced is gone.  Its processes must be gone already."""
        home = self._where.get(node)
        if home is None or not home.is_mount():
            return
        self.thaw(node)
        directory = os.open(home, os.O_RDONLY)
        try:
            fcntl.ioctl(directory, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(directory)
        _unmount(home)

    def fill(self, node: str) -> None:
        """Leave no byte."""
        home = self._mounted(node)
        free = shutil.disk_usage(home).free
        filler = home / _FILLER
        with filler.open("wb") as file:
            # The file system needs some blocks for the file itself: take less until it fits.
            while free > 0:
                try:
                    os.posix_fallocate(file.fileno(), 0, free)
                except OSError:
                    free -= 1 << 20
                else:
                    return

    def empty(self, node: str) -> None:
        """Undo `fill`."""
        if self._where[node].is_mount():
            (self._where[node] / _FILLER).unlink(missing_ok=True)

    def freeze(self, node: str) -> None:
        """Let all writes wait."""
        run(["fsfreeze", "--freeze", str(self._mounted(node))])
        self._frozen.add(node)

    def thaw(self, node: str) -> None:
        """Undo `freeze`."""
        if node in self._frozen:
            self._frozen.remove(node)
            run(["fsfreeze", "--unfreeze", str(self._where[node])])

    def _mounted(self, node: str) -> Path:
        """Where the disk is.  Not mounted, it would be this machine's own disk that is harmed."""
        home = self._where[node]
        if not home.is_mount():
            raise RehearsalFailed(f"the disk of {node} is not mounted")
        return home


def thaw_all(scratch: Path) -> None:
    """End every stall of a run's disks; those that are not stalled say so, and stay as they are."""
    for home in _mounted_below(scratch):
        argv = ["fsfreeze", "--unfreeze", str(home)]
        subprocess.run(argv, capture_output=True, check=False)


def unmount_all(scratch: Path) -> None:
    """Take all disks of a run away; their files go with its directory.  May be repeated."""
    for home in _mounted_below(scratch):
        _unmount(home)


def _mounted_below(scratch: Path) -> list[Path]:
    mounts = (Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines())
    return [mount for mount in mounts if mount.is_relative_to(scratch)]


def _unmount(home: Path) -> None:
    """A process that is on its way out, or whoever lists directories, holds it for a moment."""
    until_s = time.monotonic() + _UNMOUNT_S
    while True:
        done = subprocess.run(["umount", str(home)], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        if time.monotonic() > until_s:
            raise RehearsalFailed(f"cannot unmount {home}: {done.stderr.strip()}")
        time.sleep(0.02)


def missing() -> str | None:
    """Why this machine cannot have such disks; None when it can."""
    lacking = [tool for tool in ("mkfs.ext4", "mount", "fsfreeze") if shutil.which(tool) is None]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    return None if Path("/dev/loop-control").exists() else "no loop devices"
