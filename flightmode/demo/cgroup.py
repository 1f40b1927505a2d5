"""One cgroup a host, so that one write ends everything on it in the same instant.

Source: kernel documentation, "Control Group v2", `cgroup.kill` (Linux 5.14).
"""

import errno
import time
from functools import partial
from pathlib import Path

from flightmode.demo.killing import alive, kill_until_none


def mount_point() -> Path | None:
    """Where cgroup v2 is mounted and writable; None on a machine without it."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" and "rw" in options.split(","):
            return Path(where)
    return None


class Cgroups:
    """The cgroups of one run, one a host, below one of the run's own."""

    def __init__(self, run_id: str, hosts: tuple[str, ...]) -> None:
        mount = mount_point()
        self.root = None if mount is None else mount / f"flightmode-{run_id}"
        self.hosts = hosts

    def make(self) -> None:
        """Make them, or do without: then the lab finds a host's processes by its namespace."""
        if self.root is None:
            return
        try:
            for host in self.hosts:
                (self.root / host).mkdir(parents=True)
        except OSError:
            # A container may show cgroup2 without letting its root write.
            self.remove()
            self.root = None

    def prefix(self, host: str) -> list[str]:
        """Argv that moves itself into the host's cgroup and then becomes the command."""
        if self.root is None:
            return []
        # "0" is the process that writes it: the shell, which exec turns into the command.
        script = 'echo 0 >"$0/cgroup.procs" && exec "$@"'
        return ["/bin/sh", "-c", script, str(self.root / host)]

    def kill(self, host: str) -> None:
        """End everything on the host, its sub-cgroups too, in one write."""
        if self.root is not None and (kill := self.root / host / "cgroup.kill").exists():
            kill.write_text("1")

    def pids(self, directory: Path) -> list[int]:
        """Who is still alive in a cgroup and below it; zombies are listed but do not count."""
        listed = (path.read_text().split() for path in directory.rglob("cgroup.procs"))
        return [int(pid) for pids in listed for pid in pids if alive(int(pid))]

    def remove(self) -> None:
        """Kill what is left and remove the directories, the deepest first."""
        root = self.root
        if root is None or not root.exists():
            return
        for host in self.hosts:
            self.kill(host)
        kill_until_none(partial(self.pids, root))
        remove_tree(root)


def remove_tree(root: Path) -> None:
    """Remove a cgroup that nobody lives in any more, after those below it, the deepest first."""
    below = [path for path in root.rglob("*") if path.is_dir()]
    for directory in sorted(below, key=lambda path: -len(path.parts)):
        _remove_when_empty(directory)
    _remove_when_empty(root)


def _remove_when_empty(directory: Path, *, within_s: float = 5.0) -> None:
    """A process that is still on its way out keeps its cgroup for a moment longer."""
    until_s = time.monotonic() + within_s
    while True:
        try:
            directory.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > until_s:
                raise
            time.sleep(0.01)
        else:
            return
