"""The fence's client, when what answers is not a fence as this version knows it."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flightmode.errors import FenceRefused, FenceUnreachable
from flightmode.fence.client import FenceClient


class Odd:
    """Listens where a fence should, and answers every packet with the same words."""

    def __init__(self, path: Path) -> None:
        self.answer: bytes | None = b""
        self.client = FenceClient(path, timeout_s=0.2)
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._door.setblocking(False)
        self._door.bind(str(path))
        self._door.listen()

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        with self._door:
            while True:
                caller, _ = await loop.sock_accept(self._door)
                with caller:
                    await loop.sock_recv(caller, 65536)
                    if self.answer is None:
                        await loop.sock_recv(caller, 65536)
                    elif self.answer:
                        await loop.sock_sendall(caller, self.answer)


@pytest.fixture
async def odd(tmp_path: Path) -> AsyncIterator[Odd]:
    odd = Odd(tmp_path / "fence.sock")
    task = asyncio.create_task(odd.serve())
    yield odd
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    "answer",
    [b"nonsense", b"[]", b'"words"', b"{}", json.dumps({"id": 1, "ok": {"pid": 1}}).encode()],
)
async def test_an_answer_of_another_version_is_no_answer(odd: Odd, answer: bytes) -> None:
    odd.answer = answer
    for attempt in (odd.client.status(), odd.client.report()):
        with pytest.raises(FenceUnreachable, match="does not know"):
            await attempt


async def test_an_unknown_event_ends_the_listening(odd: Odd) -> None:
    odd.answer = json.dumps({"id": 1, "event": "sunrise", "ok": {}}).encode()
    with pytest.raises(FenceUnreachable):
        await anext(aiter(odd.client.events()))


async def test_a_closed_connection_is_no_answer(odd: Odd) -> None:
    with pytest.raises(FenceUnreachable, match="has closed the connection"):
        await odd.client.lift(1)


async def test_silence_is_no_answer_and_ends_in_time(odd: Odd) -> None:
    odd.answer = None
    with pytest.raises(FenceUnreachable, match=r"no answer .* in 0\.2 s") as silent:
        await odd.client.lift(1)
    assert silent.value.retry


async def test_a_refusal_says_why(odd: Odd) -> None:
    odd.answer = json.dumps({"id": 1, "error": {"code": "older_term", "message": "no"}}).encode()
    with pytest.raises(FenceRefused, match="FM302: older_term: no") as refused:
        await odd.client.lift(1)
    assert refused.value.reason == "older_term"
    assert not refused.value.retry


async def test_where_nobody_listens_there_is_no_answer(tmp_path: Path) -> None:
    nobody = tmp_path / "left-over"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(str(nobody))
    for path in (tmp_path / "missing", nobody, tmp_path / ("long" * 40)):
        with pytest.raises(FenceUnreachable):
            await FenceClient(path).status()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open every socket")
async def test_a_socket_of_somebody_else_refuses(odd: Odd) -> None:
    odd.client.path.chmod(0)
    with pytest.raises(FenceRefused) as refused:
        await odd.client.status()
    assert refused.value.reason == "peer_refused"
