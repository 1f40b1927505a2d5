"""A proxy gives its place to another process: an upgrade that drops no client.

A Unix socket beside the console's leads to the proxy that runs.  Who connects gets copies of the
listening sockets, says when it is ready, and then gets each client with what is known of it,
when it is between two transactions.  Messages (SOCK_SEQPACKET, so each arrives as it was sent):

    L  the sockets that listen, as descriptors          to the heir
    G  go: the heir serves                              from the heir
    Y  yours: nobody is let in here any more            to the heir
    m  a part of a client, e its end with the socket    to the heir
    A  adopted, R refused: it stays where it was        from the heir, for each client
    C  a cancel whose client is not the heir's          from the heir
    D  done: nobody is left                             to the heir

A client is served by one process at a time: the heir begins after its `A`, and what it did not
answer goes on where it was.  What is known of a client proves it to its servers, so only the
same user (or root) is talked to.
"""

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from flightmode.errors import TakeOverFailed

_log = structlog.get_logger("proxy.takeover")

PART_BYTES = 60_000
"""Below what a Unix socket takes in one piece everywhere."""
ANSWER_WITHIN_S = 10.0
READY_WITHIN_S = 120.0
"""The heir first learns who is primary."""
_POLL_S = 0.05
_MOST_SOCKETS = 128


class DataPath(Protocol):
    """What is asked of `_native.Proxy`."""

    def sockets(self) -> list[int]: ...
    def give_away(self) -> None: ...
    def is_given_away(self) -> bool: ...
    def parcel(self, within_s: float) -> tuple[int, bytes] | None: ...
    def adopt(self, socket: int, state: bytes, stays: bool = False) -> None: ...
    def keep(self, settings: str) -> None: ...
    def cancel(self, client: int, secret: bytes) -> None: ...


def path_of(run_dir: Path) -> Path:
    """Where the proxy of this host is found by the one that takes over."""
    return run_dir / "proxy-takeover.sock"


def listen(run_dir: Path) -> socket.socket:
    """For heirs.  Raises OSError."""
    path = path_of(run_dir)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    listener.listen(4)
    listener.setblocking(False)
    return listener


def peer_of(link: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end."""
    packed = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid, uid, _ = struct.unpack("3i", packed)
    return pid, uid


def is_trusted(link: socket.socket) -> bool:
    """Whether it may have what proves clients to their servers."""
    return peer_of(link)[1] in (0, os.geteuid())


# ------------------------------------------------------------------------------ the old one


@dataclass
class Giver:
    """One heir, as the proxy that runs sees it.  Blocks: for a thread of its own."""

    link: socket.socket
    data_path: DataPath
    answer_within_s: float = ANSWER_WITHIN_S
    """For each client; who takes longer is taken for gone."""
    given: int = 0
    unanswered: tuple[int, bytes] | None = None
    """A client that was sent, and nobody has said who has it."""

    def offer(self) -> bool:
        """Show the sockets; whether the heir is ready to serve.  Nothing has changed if not."""
        sockets = self.data_path.sockets()
        try:
            self.link.settimeout(READY_WITHIN_S)
            socket.send_fds(self.link, [b"L"], sockets)
            return self.link.recv(1) == b"G"
        except OSError as wrong:
            _log.warning("the one that was to take over has gone", why=str(wrong))
            return False
        finally:
            for number in sockets:
                os.close(number)

    def give(self) -> bool:
        """Hand every client over, until none is left.  False: the heir has gone, and `keep` is
        to be called."""
        self.link.settimeout(self.answer_within_s)
        try:
            self.data_path.give_away()
            self.link.send(b"Y")
            is_over = False
            while not is_over:
                # Asked before the queue is emptied: what is in it then is the last.
                is_over = self.data_path.is_given_away()
                while parcel := self.data_path.parcel(_POLL_S):
                    # One that comes back has to leave by itself.
                    is_over = self._give_one(parcel) and is_over
                    self._heed()
                self._heed()
            self.link.send(b"D")
        except OSError as wrong:
            _log.error("the one that took over has gone", why=str(wrong))
            return False
        return True

    def _give_one(self, parcel: tuple[int, bytes]) -> bool:
        """Whether the heir has it; else it is back."""
        self.unanswered = parcel
        is_adopted = self._send(*parcel)
        self.unanswered = None
        if is_adopted:
            os.close(parcel[0])
            self.given += 1
        else:
            self.data_path.adopt(*parcel, stays=True)
        return is_adopted

    def keep(self, settings: str) -> None:
        """Listen again, and serve who is here and who was on the way."""
        self._part()
        self.data_path.keep(settings)
        back = self.unanswered or self.data_path.parcel(0)
        while back is not None:
            self.data_path.adopt(*back)
            back = self.data_path.parcel(0)

    def _part(self) -> None:
        """End the link, and settle whose the last client is: an heir that only slept may live on.

        What it said before the end counts.  After the end it can say nothing, and it serves nobody
        whom it could not call adopted (unix(7): a send to who has shut down fails).
        """
        with contextlib.suppress(OSError):
            self.link.shutdown(socket.SHUT_RDWR)
        while self.unanswered is not None and (message := self._last_words()):
            if message == b"A":
                os.close(self.unanswered[0])
                self.given += 1
                self.unanswered = None
            elif message == b"R":
                break
            else:
                self._cancel(message)

    def _last_words(self) -> bytes:
        try:
            return self.link.recv(PART_BYTES)
        except OSError:
            return b""

    def _send(self, number: int, state: bytes) -> bool:
        """Whether the heir has it.  Raises OSError: it has not."""
        parts = [state[at : at + PART_BYTES] for at in range(0, len(state), PART_BYTES)]
        for part in parts[:-1]:
            self.link.send(b"m" + part)
        socket.send_fds(self.link, [b"e" + parts[-1]], [number])
        while True:
            answer = self.link.recv(PART_BYTES)
            if not answer:
                raise ConnectionResetError("it ended before it answered")
            if answer[:1] != b"C":
                return answer == b"A"
            self._cancel(answer)

    def _heed(self) -> None:
        """Cancels that came for clients of ours."""
        self.link.setblocking(False)
        try:
            while True:
                message = self.link.recv(PART_BYTES)
                if not message:
                    raise ConnectionResetError("it has ended")
                self._cancel(message)
        except BlockingIOError:
            return
        finally:
            self.link.settimeout(self.answer_within_s)

    def _cancel(self, message: bytes) -> None:
        told = json.loads(message[1:])
        self.data_path.cancel(told["client"], bytes(told["secret"]))


# ------------------------------------------------------------------------------ the new one


@dataclass
class Heir:
    """The proxy that runs, as the one that takes its place sees it."""

    link: socket.socket
    sockets: list[int]
    """Descriptors that listen."""

    @classmethod
    def find(cls, run_dir: Path) -> "Heir | None":
        """None: nobody runs here.  Raises TakeOverFailed."""
        link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.settimeout(ANSWER_WITHIN_S)
        try:
            link.connect(str(path_of(run_dir)))
        except (FileNotFoundError, ConnectionRefusedError):
            link.close()
            return None
        except OSError as wrong:
            link.close()
            raise TakeOverFailed(f"the proxy that runs here can't be asked: {wrong}") from None
        try:
            kind, sockets, _, _ = socket.recv_fds(link, 16, _MOST_SOCKETS)
        except OSError as wrong:
            link.close()
            raise TakeOverFailed(f"the proxy that runs here does not answer: {wrong}") from None
        if kind != b"L" or not is_trusted(link):
            link.close()
            raise TakeOverFailed("the proxy that runs here gives its place to nobody")
        return cls(link, sockets)

    def begin(self) -> None:
        """We serve.  Returns when the other lets nobody in any more.  Raises TakeOverFailed."""
        try:
            self.link.send(b"G")
            answer = self.link.recv(16)
        except OSError as wrong:
            raise TakeOverFailed(f"the proxy that ran here has gone: {wrong}") from None
        if answer != b"Y":
            raise TakeOverFailed("the proxy that ran here keeps its place")

    def adopt_all(self, data_path: DataPath, check: Callable[[bytes], None]) -> int:
        """Serve each client that comes, until the other has none left.  Blocks: for a thread of
        its own.  How many came.  `check` raises ValueError for what is no client."""
        self.link.settimeout(None)
        count, state = 0, b""
        with self.link:
            while True:
                try:
                    message, numbers, _, _ = socket.recv_fds(self.link, PART_BYTES + 1, 1)
                except OSError:
                    return count
                state += message[1:]
                match message[:1]:
                    case b"e":
                        count += self._adopt(data_path, check, numbers[0], state)
                        state = b""
                    case b"m":
                        pass
                    case _:
                        return count

    def _adopt(
        self, data_path: DataPath, check: Callable[[bytes], None], number: int, state: bytes
    ) -> bool:
        try:
            check(state)
        except ValueError as wrong:
            os.close(number)
            _log.warning("a client stays where it is", why=str(wrong))
            self.link.send(b"R")
            return False
        # The other forgets it now, so it is served from now on and not before.
        try:
            self.link.send(b"A")
        except OSError:
            os.close(number)
            return False
        data_path.adopt(number, state)
        return True

    def cancel(self, client: int, secret: list[int]) -> None:
        """A cancel for nobody here: it may be for a client that has not come yet."""
        told = json.dumps({"client": client, "secret": secret})
        # The other has gone with its last client: then there is nothing to cancel.
        with contextlib.suppress(OSError):
            self.link.send(b"C" + told.encode())


def tell_systemd(main_pid: int) -> None:
    """That another process is the service now (sd_notify(3)); nothing without systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
        try:
            to.connect(address)
            to.send(f"MAINPID={main_pid}\n".encode())
        except OSError as wrong:
            _log.warning("systemd does not know of the new process", why=str(wrong))
