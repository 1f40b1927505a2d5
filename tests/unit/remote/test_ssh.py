"""What is said when a host can't be reached, or our own key is no good."""

import socket
from pathlib import Path

import asyncssh
import pytest

from flightmode.errors import HostUnreachable, KeyUnusable
from flightmode.remote.ssh import Login, SshHost


def login(tmp_path: Path, key: Path | None, user: str = "root", port: int = 22) -> Login:
    return Login(user, port, key, tmp_path / "known_hosts")


async def refused(login: Login) -> KeyUnusable:
    with pytest.raises(KeyUnusable) as caught:
        await SshHost.connect("ams", "192.0.2.1", login)
    assert not login.known_hosts.exists(), "a host was asked"
    return caught.value


async def test_a_garbled_key_is_said_before_a_host_is_asked(tmp_path: Path) -> None:
    key = tmp_path / "it's a key"
    key.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nnonsense\n")
    failure = await refused(login(tmp_path, key))
    assert "can't be used as a private key" in failure.message
    assert failure.exit_status == 78


async def test_a_key_that_is_not_there_is_said(tmp_path: Path) -> None:
    failure = await refused(login(tmp_path, tmp_path / "none"))
    assert "No such file or directory" in failure.message


async def test_a_key_with_a_passphrase_belongs_to_the_agent(tmp_path: Path) -> None:
    key = tmp_path / "locked"
    made = asyncssh.generate_private_key("ssh-ed25519")
    made.write_private_key(key, "pkcs8-pem", passphrase="secret")
    failure = await refused(login(tmp_path, key))
    assert "has a passphrase" in failure.message
    assert failure.hint_text == f"ssh-add {key}"


async def test_the_hint_is_what_a_person_would_type(tmp_path: Path) -> None:
    with socket.socket() as taken:
        # Bound and not listening: nobody answers there.
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(HostUnreachable) as caught:
            await SshHost.connect("ams", "127.0.0.1", login(tmp_path, None, "admin", port))
    assert caught.value.hint_text == f"ssh -p {port} admin@127.0.0.1"
