"""A socket that somebody else holds, as systemd does: its port is open while the proxy is not."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomlkit

from flightmode.config import parse
from flightmode.provision.bundle import bundle_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(90)]

SSL_REQUEST = bytes.fromhex("0000000804d2162f")
"""Answered by one byte, also when nobody is primary."""
WITHIN_S = 30.0


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """Of an application's host, with all of its files in that directory."""
    argv = [sys.executable, "-m", "flightmode.cli.main", "init", str(tmp_path / "cluster")]
    subprocess.run(argv, check=True, capture_output=True)
    path = tmp_path / "cluster" / "flightmode.toml"
    path.write_text(f'{path.read_text()}\n[provision.apps.web]\nhost = "10.0.0.9"\n')
    bundle_of(parse(path.read_text(), name="it"), path, "web")
    return path


def listening_at(toml: Path, port: int) -> None:
    document = tomlkit.parse(toml.read_text())
    document["proxy"]["port"] = port  # type: ignore[index]
    document["tls"]["directory"] = str(toml.parent / "apps" / "web" / "tls")  # type: ignore[index]
    document["secrets"]["directory"] = str(toml.parent / "secrets")  # type: ignore[index]
    document["paths"]["run_dir"] = str(toml.parent / "run")  # type: ignore[index]
    toml.write_text(tomlkit.dumps(document))


@contextlib.contextmanager
def proxy(toml: Path, passed: socket.socket) -> Iterator[subprocess.Popen[bytes]]:
    """Started as systemd starts it: its number in LISTEN_PID, the socket as descriptor 3."""
    words = [sys.executable, "-m", "flightmode.cli.main", "proxy", "--config", str(toml)]
    number = passed.fileno()
    script = f'exec env LISTEN_PID=$$ LISTEN_FDS=1 "$@" 3<&{number}'
    process = subprocess.Popen(["/bin/bash", "-c", script, "sh", *words], pass_fds=[number])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def knock(port: int) -> socket.socket:
    """A connection that has asked its first question.  Raises ConnectionRefusedError."""
    link = socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S)
    link.sendall(SSL_REQUEST)
    return link


def test_who_comes_while_the_proxy_restarts_waits_and_is_served(toml: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as held:
        port = held.getsockname()[1]
        listening_at(toml, port)
        with proxy(toml, held) as first, knock(port) as before:
            assert before.recv(1) in (b"N", b"S")
            before.close()
            first.send_signal(signal.SIGTERM)
            assert first.wait(timeout=WITHIN_S) == 0
        began_s = time.monotonic()
        with knock(port) as between:
            between.settimeout(0.2)
            with pytest.raises(TimeoutError):
                between.recv(1)
            with proxy(toml, held) as second:
                between.settimeout(WITHIN_S)
                assert between.recv(1) in (b"N", b"S")
                assert second.poll() is None
        print(f"it waited {time.monotonic() - began_s:.1f} s for the next proxy")
    with pytest.raises(ConnectionRefusedError):
        knock(port)


def test_sockets_that_were_meant_for_another_process_are_left_alone(toml: Path) -> None:
    """LISTEN_PID comes down to children; a proxy that is one of those opens its own."""
    with socket.create_server(("127.0.0.1", 0)) as other, socket.create_server(("", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        listening_at(toml, port)
        words = [sys.executable, "-m", "flightmode.cli.main", "proxy", "--config", str(toml)]
        environment = {**os.environ, "LISTEN_PID": "1", "LISTEN_FDS": "1"}
        process = subprocess.Popen(words, env=environment, pass_fds=[other.fileno()])
        try:
            until_s = time.monotonic() + WITHIN_S
            while True:
                assert process.poll() is None
                assert time.monotonic() < until_s
                try:
                    link = knock(port)
                except ConnectionRefusedError:
                    time.sleep(0.05)
                    continue
                break
            with link:
                assert link.recv(1) in (b"N", b"S")
        finally:
            process.kill()
            process.wait()
