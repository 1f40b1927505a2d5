"""A host over SSH.

The first contact writes the host's key down in a file of known hosts beside flightmode.toml;
from then on a host with another key is refused: it is another machine, or somebody in between.
Commands go through one connection; secrets go through standard input, never through arguments.
"""

import asyncio
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import asyncssh

from flightmode.errors import HostKeyChanged, HostRefused, HostUnreachable, KeyUnusable
from flightmode.remote.port import Ran

CONNECT_S = 15.0
_KEEPALIVE_S = 5
_USUAL_PORT = 22


@dataclass(frozen=True, slots=True)
class Login:
    """How to reach hosts."""

    user: str
    port: int
    key: Path | None
    """A private key; None: what the agent and ~/.ssh have."""
    known_hosts: Path


class SshHost:
    """One host; a `Remote`."""

    def __init__(self, name: str, link: asyncssh.SSHClientConnection, *, sudo: bool) -> None:
        self.name = name
        self._link = link
        self._sudo = "sudo -n " if sudo else ""

    @classmethod
    async def connect(cls, name: str, host: str, login: Login) -> Self:
        """Raises HostUnreachable, HostRefused, HostKeyChanged; KeyUnusable: none was asked."""
        keys = [] if login.key is None else [_private_key(login.key)]
        known = await _known(name, host, login)
        try:
            link = await asyncio.wait_for(
                asyncssh.connect(
                    host,
                    login.port,
                    username=login.user,
                    client_keys=keys or (),
                    known_hosts=known,
                    keepalive_interval=_KEEPALIVE_S,
                    config=None,
                ),
                CONNECT_S,
            )
        except asyncssh.HostKeyNotVerifiable as wrong:
            raise HostKeyChanged(
                f"{name} ({host}) shows another host key than before: {wrong}",
                hint=f"ssh-keygen -R '{_listed_as(host, login.port)}' -f {login.known_hosts}",
            ) from None
        except asyncssh.PermissionDenied as wrong:
            text = f"{name} ({host}) lets {login.user} not in: {wrong}"
            raise HostRefused(text, hint=_typed("ssh-copy-id", host, login)) from None
        except (OSError, asyncssh.Error, TimeoutError) as wrong:
            raise _unreachable(name, host, login, wrong) from None
        return cls(name, link, sudo=login.user != "root")

    async def run(
        self, command: str, *, stdin: bytes | None = None, within_s: float = 600.0
    ) -> Ran:
        line = f"{self._sudo}sh -c {shlex.quote(command)}"
        try:
            done = await asyncio.wait_for(
                self._link.run(line, input=stdin if stdin is not None else b"", encoding=None),
                within_s,
            )
        except (asyncssh.Error, OSError, TimeoutError) as wrong:
            why = str(wrong) or type(wrong).__name__
            text = f"{self.name}: the link broke during `{command[:80]}`: {why}"
            raise HostUnreachable(text) from None
        if done.exit_status is None:
            # Neither a status nor a signal: the other side has told of no end.
            text = f"{self.name}: the link broke during `{command[:80]}`"
            raise HostUnreachable(text)
        killed = f"\nended by SIG{done.exit_signal[0]}" if done.exit_signal else ""
        return Ran(done.exit_status, _text(done.stdout), _text(done.stderr) + killed)

    async def put(self, path: str, content: bytes, *, mode: int, owner: str) -> None:
        draft = shlex.quote(f"{path}.flightmode-new")
        command = (
            f"umask 077 && cat > {draft} && chown {shlex.quote(owner)} {draft} && "
            f"chmod {mode:04o} {draft} && sync {draft} && mv -f {draft} {shlex.quote(path)}"
        )
        done = await self.run(command, stdin=content)
        if done.status != 0:
            raise HostRefused(f"{self.name}: {path} can't be written: {done.err.strip()}")

    @asynccontextmanager
    async def forwarded(self, host: str, port: int) -> AsyncIterator[int]:
        """A port of this machine that leads, through the link, to what that host can reach.

        Raises HostRefused.
        """
        try:
            listener = await self._link.forward_local_port("127.0.0.1", 0, host, port)
        except (asyncssh.Error, OSError) as wrong:
            raise HostRefused(f"{self.name} forwards nothing to {host}:{port}: {wrong}") from None
        try:
            yield listener.get_port()
        finally:
            listener.close()
            await listener.wait_closed()

    async def close(self) -> None:
        self._link.close()
        await self._link.wait_closed()


def forget_key(known_hosts: Path, host: str, port: int) -> bool:
    """Let the next contact pin a new key: the machine is another one.  Whether one was known."""
    if not known_hosts.exists():
        return False
    where = _listed_as(host, port)
    lines = known_hosts.read_text().splitlines(keepends=True)
    left = [line for line in lines if line.split(" ", 1)[0] != where]
    known_hosts.write_text("".join(left))
    return len(left) != len(lines)


async def _known(name: str, host: str, login: Login) -> str:
    """The file of known hosts, with this one's key in it: pinned now if it was not before."""
    path = login.known_hosts
    where = _listed_as(host, login.port)
    lines = path.read_text().splitlines() if path.exists() else []
    if not any(line.split(" ", 1)[0] == where for line in lines):
        try:
            key = await asyncio.wait_for(asyncssh.get_server_host_key(host, login.port), CONNECT_S)
        except (OSError, asyncssh.Error, TimeoutError) as wrong:
            raise _unreachable(name, host, login, wrong) from None
        if key is None:
            raise HostRefused(f"{name} ({host}) shows no host key")
        with path.open("a") as file:
            file.write(f"{where} {key.export_public_key().decode().strip()}\n")
    return str(path)


def _listed_as(host: str, port: int) -> str:
    """A host's name in a file of known hosts (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT)."""
    return host if port == _USUAL_PORT else f"[{host}]:{port}"


def _private_key(path: Path) -> asyncssh.SSHKey:
    """Raises KeyUnusable, before any host is asked."""
    try:
        return asyncssh.read_private_key(str(path))
    except (OSError, ValueError) as wrong:
        if "passphrase" in str(wrong).lower():
            text = f"{path} has a passphrase: give it to the ssh agent; then provision.ssh_key goes"
            raise KeyUnusable(text, hint=f"ssh-add {shlex.quote(str(path))}") from None
        why = wrong.strerror if isinstance(wrong, OSError) else wrong
        text = f"{path} (provision.ssh_key) can't be used as a private key: {why}"
        raise KeyUnusable(text, hint=f"ssh-keygen -y -f {shlex.quote(str(path))}") from None


def _unreachable(name: str, host: str, login: Login, wrong: BaseException) -> HostUnreachable:
    why = str(wrong) or "no answer in time"
    return HostUnreachable(
        f"{name} ({host}:{login.port}) can't be reached: {why}", hint=_typed("ssh", host, login)
    )


def _typed(program: str, host: str, login: Login) -> str:
    """What a person types to try the same."""
    port = [] if login.port == _USUAL_PORT else ["-p", str(login.port)]
    return shlex.join([program, *port, f"{login.user}@{host}"])


def _text(data: object) -> str:
    return data.decode(errors="replace") if isinstance(data, bytes) else str(data or "")
