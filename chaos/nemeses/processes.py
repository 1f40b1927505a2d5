"""Programs: killed, or stopped so that they look alive and do nothing."""

import os
import signal

import psutil

from chaos.nemeses.scene import ANY, DATABASE, PRIMARY, STANDBY, Nemesis, Scene, nothing
from flightmode.demo.cluster import APP
from flightmode.demo.killing import send, started_ticks

OURS = ("agent", "fence", "etcd")
SERVERS = ("walreceiver", "walsender", "checkpointer", "walwriter", "startup")


def _pids(scene: Scene, what: str) -> list[int]:
    """The processes called so on the host; none when there is none now."""
    if what == "proxy":
        return [scene.cluster.process(APP, what).pid]
    if what in OURS:
        process = scene.cluster.process(scene.node, what)
        return [process.pid] if process.returncode is None else []
    postmaster = scene.cluster.postmaster_or_none(scene.node)
    if postmaster is None or what == "postmaster":
        return [] if postmaster is None else [postmaster]
    return [pid for pid, title in _children(postmaster) if what in title.split()]


def _children(postmaster: int) -> list[tuple[int, str]]:
    """The server's own processes with their titles: `postgres: NAME: walsender …`."""
    found = []
    try:
        for child in psutil.Process(postmaster).children():
            found.append((child.pid, " ".join(child.cmdline())))
    except psutil.NoSuchProcess:
        # It is ending just now; whoever is left is not worth a signal.
        return []
    return found


def _kill(what: str, roles: tuple[str, ...], live: tuple[str, ...]) -> Nemesis:
    async def begin(scene: Scene) -> str:
        pids = _pids(scene, what)
        for pid in pids:
            send(pid, signal.SIGKILL)
        return "" if pids else "there was none"

    return Nemesis(f"kill-{what}", roles, begin, nothing, live)


def _stop(what: str, roles: tuple[str, ...], live: tuple[str, ...]) -> Nemesis:
    async def begin(scene: Scene) -> str:
        pids = _pids(scene, what)
        scene.memory["stopped"] = {pid: started_ticks(pid) for pid in pids}
        for pid in pids:
            send(pid, signal.SIGSTOP)
        return "" if pids else "there was none"

    async def heal(scene: Scene) -> None:
        # A pid that is somebody else's by now stays alone.
        for pid, ticks in scene.memory.pop("stopped", {}).items():
            if ticks is not None and started_ticks(pid) == ticks:
                send(pid, signal.SIGCONT)

    return Nemesis(f"stop-{what}", roles, begin, heal, live)


async def _terminate_agent(scene: Scene) -> str:
    """As an upgrade does: told to end, and started again at once."""
    process = scene.cluster.process(scene.node, "agent")
    if process.returncode is None:
        os.kill(process.pid, signal.SIGTERM)
        await process.wait()
        await scene.cluster.start_agent(scene.node)
    return ""


NEMESES = (
    _kill("postmaster", DATABASE, DATABASE),
    _kill("agent", ANY, ANY),
    _kill("fence", DATABASE, DATABASE),
    _kill("etcd", ANY, ANY),
    _kill("proxy", (PRIMARY,), (PRIMARY,)),
    _kill("walreceiver", (STANDBY,), (STANDBY,)),
    _kill("walsender", (PRIMARY,), (PRIMARY,)),
    _kill("checkpointer", DATABASE, DATABASE),
    _stop("postmaster", DATABASE, DATABASE),
    _stop("agent", ANY, ANY),
    _stop("fence", DATABASE, DATABASE),
    _stop("etcd", ANY, ANY),
    _stop("walreceiver", (STANDBY,), (STANDBY,)),
    _stop("walsender", (PRIMARY,), (PRIMARY,)),
    _stop("startup", (STANDBY,), (STANDBY,)),
    _stop("walwriter", (PRIMARY,), ()),
    _stop("checkpointer", (PRIMARY,), ()),
    Nemesis("upgrade-agent", ANY, _terminate_agent, nothing, ANY),
)
