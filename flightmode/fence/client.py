"""Speaks to the fence over its Unix socket: one JSON object a packet (rust/fence/src/protocol.rs).

Every call is a connection of its own.  A Unix connection costs microseconds, and so a
time-out leaves nothing behind to resynchronise: the fence does not carry out what a
caller has given up, and a restarted agent (or fence) needs no ceremony.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from flightmode.errors import FenceRefused, FenceUnreachable
from flightmode.fence.port import (
    Exited,
    Fenced,
    FenceEvent,
    FenceReport,
    StartRequest,
    TreeEmpty,
)
from flightmode.model.server import FenceView, Role

CALL_S: Final = 1.0
_PACKET_MAX: Final = 64 * 1024


class FenceClient:
    """A fence at the other end of `path`."""

    def __init__(self, path: Path, *, timeout_s: float = CALL_S) -> None:
        self.path = path
        self._timeout_s = timeout_s

    async def start(self, request: StartRequest) -> int:
        command = request.command
        started = await self._call(
            "start",
            argv=command.argv,
            env=dict(command.environment),
            uid=command.uid,
            gid=command.gid,
            directory=str(command.directory),
            log=str(command.log),
            role=request.role,
            term=request.term,
            deadline_s=request.deadline_s,
        )
        return int(started["pid"])

    async def extend(self, term: int, deadline_s: float) -> None:
        await self._call("extend", term=term, deadline_s=deadline_s)

    async def lift(self, term: int) -> None:
        await self._call("lift", term=term)

    async def set_role(self, role: Role, term: int) -> None:
        await self._call("set_role", role=role, term=term)

    async def stop(self, mode: str) -> None:
        await self._call("stop", mode=mode)

    async def void(self) -> None:
        await self._call("void")

    async def kill(self) -> None:
        await self._call("kill")

    async def status(self) -> FenceView:
        said = await self._call("status")
        with _understood():
            return _view(said)

    async def report(self) -> FenceReport:
        said = await self._call("status")
        with _understood():
            return _report(said)

    async def send_heartbeats(self, to: tuple[str, ...]) -> None:
        await self._call("heartbeat", to=to)

    async def events(self) -> AsyncIterator[FenceEvent]:
        with self._connection() as door:
            async with asyncio.timeout(self._timeout_s):
                await self._ask(door, "subscribe", {})
            while True:
                said = await self._packet(door)
                with _understood():
                    event = _event(said)
                yield event

    # ------------------------------------------------------------------ the wire

    async def _call(self, command: str, **arguments: object) -> dict[str, Any]:
        with self._connection() as door:
            async with asyncio.timeout(self._timeout_s):
                return await self._ask(door, command, arguments)

    @contextmanager
    def _connection(self) -> Iterator[socket.socket]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
                door.setblocking(False)
                yield door
        except TimeoutError:
            raise FenceUnreachable(f"no answer from {self.path} in {self._timeout_s} s") from None
        except PermissionError as error:
            raise FenceRefused("peer_refused", f"{self.path}: {error.strerror}") from error
        except OSError as error:
            raise FenceUnreachable(f"{self.path}: {error.strerror or error}") from error

    async def _ask(
        self, door: socket.socket, command: str, arguments: dict[str, object]
    ) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(door, str(self.path))
        request = {"id": 1, "cmd": command, **arguments}
        await loop.sock_sendall(door, json.dumps(request).encode())
        reply = await self._packet(door)
        with _understood():
            if (error := reply.get("error")) is not None:
                raise FenceRefused(error["code"], error["message"])
            done: dict[str, Any] = reply["ok"]
        return done

    async def _packet(self, door: socket.socket) -> dict[str, Any]:
        packet = await asyncio.get_running_loop().sock_recv(door, _PACKET_MAX)
        if not packet:
            raise FenceUnreachable(f"the fence at {self.path} has closed the connection")
        with _understood():
            said = json.loads(packet)
            if not isinstance(said, dict):
                raise ValueError(said)
        return said


@contextmanager
def _understood() -> Iterator[None]:
    """A fence of another version may say more or less than we know of."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise FenceUnreachable(f"the fence says what this version does not know: {error}") from None


def _view(said: dict[str, Any]) -> FenceView:
    verdict = said["verdict"]
    exit_ = said["last_exit"]
    return FenceView(
        reachable=True,
        running=said["pid"] is not None,
        tree_empty=said["tree_empty"],
        role=None if said["role"] is None else Role(said["role"]),
        term=said["term"],
        deadline_s=said["deadline_s"] if verdict == "armed" else None,
        lifted=verdict == "lifted",
        expired=verdict == "expired",
        level=said["level"],
        exited_s=None if exit_ is None else exit_["boottime_s"],
    )


def _report(said: dict[str, Any]) -> FenceReport:
    exit_, heartbeats = said["last_exit"], said["heartbeats"]
    return FenceReport(
        view=_view(said),
        node=said["node"],
        version=said["version"],
        fence_pid=said["fence_pid"],
        fence_started_s=said["fence_started_s"],
        pid=said["pid"],
        started_s=said["started_s"],
        start_ticks=said["start_ticks"],
        verdict=said["verdict"],
        ended_by=said["ended_by"],
        mlocked=said["mlocked"],
        oom_protected=said["oom_protected"],
        realtime=said["realtime"],
        cgroup=said["cgroup"],
        port_cut=said["port_cut"],
        watchdog_timeout_s=said["watchdog_timeout_s"],
        missing=tuple(said["missing"]),
        last_exit=None if exit_ is None else _exited(exit_),
        subscribers=said["subscribers"],
        heartbeats_to=tuple(heartbeats["to"]),
        heartbeats_sent=heartbeats["sent"],
        heartbeats_failed=heartbeats["failed"],
    )


def _exited(said: dict[str, Any]) -> Exited:
    return Exited(said["pid"], said["exit_code"], said["signal"], said["boottime_s"])


def _event(said: dict[str, Any]) -> FenceEvent:
    match said["event"]:
        case "exited":
            return _exited(said)
        case "tree_empty":
            return TreeEmpty()
        case "fenced":
            return Fenced(said["term"], said["why"])
        case other:
            raise ValueError(f"event {other}")
