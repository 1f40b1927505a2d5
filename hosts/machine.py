"""One host: booted, switched off in an instant, booted again on the disk it had."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from hosts.commands import HostsFailed, run

BOOTS_WITHIN_S = 60.0
SSH_PORT = 22
MARK = "FLIGHTMODE_HOST"
"""In the environment of what runs a host: its directory."""
REBOOTS = 133
"""What systemd-nspawn with --keep-unit ends with, so that whoever started it starts it again."""
_POLL_S = 0.1


@dataclass
class Machine:
    """A container on an overlay of the image.

    `home` holds its disk; `namespace` is the network that it finds when it boots.  `into` is the
    argv that moves a command into the host's own cgroup: two systemds in one would take each
    other's units for their own.
    """

    name: str
    address: str
    namespace: str
    base: Path
    home: Path
    public_key: str
    into: tuple[str, ...]
    supervisor: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def root(self) -> Path:
        """Its file system."""
        return self.home / "root"

    def prepare(self) -> None:
        """A fresh disk, with the key of who may log in as root, as a provider puts it there."""
        for room in ("root", "upper", "work"):
            (self.home / room).mkdir(parents=True, exist_ok=True)
        where = f"lowerdir={self.base},upperdir={self.home / 'upper'},workdir={self.home / 'work'}"
        run("mount", "-t", "overlay", "overlay", "-o", where, str(self.root))
        keys = self.root / "root" / ".ssh"
        keys.mkdir(mode=0o700, exist_ok=True)
        (keys / "authorized_keys").write_text(self.public_key)
        (self.root / "etc" / "hostname").write_text(f"{self.name}\n")
        (self.root / "etc" / "hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {self.name}\n")
        for kind in ("ed25519",):
            key = self.root / "etc" / "ssh" / f"ssh_host_{kind}_key"
            run("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", self.name, "-f", str(key))

    def boot(self) -> None:
        """Power on; returns at once."""
        log = (self.home / "console.log").open("ab")
        argv = [
            *self.into,
            *("systemd-nspawn", "--quiet", f"--directory={self.root}", f"--machine={self.name}"),
            f"--network-namespace-path=/run/netns/{self.namespace}",
            *("--keep-unit", "--register=no", "--boot", "--resolv-conf=copy-host"),
            *("--link-journal=no", "--console=pipe", "--capability=CAP_NET_ADMIN,CAP_SYS_NICE"),
        ]
        with log:
            self.supervisor = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning", MARK: f"{self.home}"},
            )

    def wait_for_ssh(self, within_s: float = BOOTS_WITHIN_S) -> None:
        """Until sshd listens.  Raises HostsFailed with the console's last words."""
        until_s = time.monotonic() + within_s
        probe = ["ip", "netns", "exec", self.namespace, "ss", "-Hltn", f"sport = :{SSH_PORT}"]
        while time.monotonic() < until_s:
            if self.supervisor is None or self.supervisor.poll() is not None:
                raise HostsFailed(f"{self.name} did not boot: {self.console()}")
            if subprocess.run(probe, capture_output=True, check=True).stdout.strip():
                return
            time.sleep(_POLL_S)
        raise HostsFailed(f"{self.name} has no sshd after {within_s:.0f} s: {self.console()}")

    @property
    def running(self) -> bool:
        return self.supervisor is not None and self.supervisor.poll() is None

    def boot_if_it_reboots(self) -> None:
        """A machine that reboots is powered on again at once."""
        if self.supervisor is not None and self.supervisor.poll() == REBOOTS:
            self.boot()

    @property
    def init(self) -> int:
        """The pid, on this machine, of the host's init.  Raises HostsFailed when it is off."""
        if self.supervisor is None:
            raise HostsFailed(f"{self.name} is off")
        children = Path(f"/proc/{self.supervisor.pid}/task/{self.supervisor.pid}/children")
        found = children.read_text().split() if children.exists() else []
        if not found:
            raise HostsFailed(f"{self.name} is off")
        return int(found[0])

    def kill(self) -> None:
        """Power loss: the kernel ends the whole pid namespace with its init, at one instant."""
        if not self.running:
            return
        os.kill(self.init, signal.SIGKILL)
        self._gone()

    def _gone(self) -> None:
        assert self.supervisor is not None
        try:
            self.supervisor.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.supervisor.kill()
            self.supervisor.wait(timeout=20)
        self.supervisor = None

    def shut_down(self, within_s: float = 60.0) -> None:
        """As a person would: SIGRTMIN+4 asks systemd to power off."""
        if not self.running:
            return
        os.kill(self.init, signal.SIGRTMIN + 4)
        assert self.supervisor is not None
        try:
            self.supervisor.wait(timeout=within_s)
        except subprocess.TimeoutExpired:
            raise HostsFailed(f"{self.name} did not shut down within {within_s:.0f} s") from None
        self.supervisor = None

    def erase(self) -> None:
        """The disk is gone."""
        self.kill()
        unmounted(self.root)

    def console(self) -> str:
        path = self.home / "console.log"
        return path.read_text(errors="replace")[-1500:] if path.exists() else "(no console)"


def unmounted(root: Path) -> None:
    """No file system is mounted there any more."""
    if root.is_mount():
        run("umount", str(root))
