"""Whose a client is when an heir is too slow to say so: one of two processes', never both."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from flightmode.proxy.takeover import Giver, Heir


@dataclass
class Rooms:
    """A data path that only remembers whom it serves."""

    leaving: list[tuple[int, bytes]] = field(default_factory=list)
    serves: list[bytes] = field(default_factory=list)

    def sockets(self) -> list[int]:
        return []

    def give_away(self) -> None:
        """Everybody is leaving already."""

    def is_given_away(self) -> bool:
        return not self.leaving

    def parcel(self, within_s: float) -> tuple[int, bytes] | None:
        return self.leaving.pop(0) if self.leaving else None

    def adopt(self, socket: int, state: bytes, stays: bool = False) -> None:
        os.close(socket)
        self.serves.append(state)

    def keep(self, settings: str) -> None:
        """It listens again."""

    def cancel(self, client: int, secret: bytes) -> None:
        raise AssertionError("nobody cancels here")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    old, new = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with old, new:
        yield old, new


def _leaving(state: bytes) -> Rooms:
    return Rooms([(os.open(os.devnull, os.O_RDONLY), state)])


def _check(state: bytes) -> None:
    assert state


def test_an_heir_that_wakes_after_it_was_given_up_serves_nobody_twice(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    old, new = _leaving(b"ann"), Rooms()
    giver, heir = Giver(ends[0], old, answer_within_s=0.05), Heir(ends[1], [])
    assert not giver.give(), "the heir sleeps"
    giver.keep("")
    assert ends[1].recv(1) == b"Y"
    assert heir.adopt_all(new, _check) == 0
    assert (old.serves, new.serves) == ([b"ann"], [])


def test_an_heir_that_answered_too_late_to_be_read_has_the_client(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    old, new = _leaving(b"ann"), Rooms()
    giver, heir = Giver(ends[0], old, answer_within_s=0.05), Heir(ends[1], [])
    assert not giver.give()
    assert ends[1].recv(1) == b"Y"
    message, numbers, _, _ = socket.recv_fds(ends[1], 100, 1)
    assert heir._adopt(new, _check, numbers[0], message[1:])
    giver.keep("")
    assert (old.serves, new.serves) == ([], [b"ann"])
