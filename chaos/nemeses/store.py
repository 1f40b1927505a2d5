"""etcd: a member that loses its data for ever, and all members at once."""

import asyncio
import shutil
import signal
import time

from chaos.nemeses.scene import ALL, ANY, Nemesis, Scene, nothing
from flightmode.demo.cluster import NODES
from flightmode.demo.killing import send
from flightmode.errors import FlightmodeError
from flightmode.provision.rejoin import announce

_REJOIN_S = 30.0


async def _lose_data(scene: Scene) -> str:
    process = scene.cluster.process(scene.node, "etcd")
    if process.returncode is None:
        send(process.pid, signal.SIGKILL)
        await process.wait()
    await asyncio.to_thread(shutil.rmtree, scene.cluster.directory / scene.node / "etcd")
    scene.memory["lost"] = True
    return ""


async def _rejoin(scene: Scene) -> None:
    """As `flightmode node replace` does: struck off, announced again, started empty."""
    if not scene.memory.pop("lost", False):
        return
    scene.cluster.make_etcd_room(scene.node)
    scene.lab.environment[scene.node]["ETCD_INITIAL_CLUSTER_STATE"] = "existing"
    until_s = time.monotonic() + _REJOIN_S
    while True:
        try:
            await announce(scene.cluster.etcd, scene.cluster.config, scene.node)
        except FlightmodeError:
            if time.monotonic() > until_s:
                raise
            await asyncio.sleep(0.2)
        else:
            return


async def _kill_all(scene: Scene) -> str:
    processes = [scene.cluster.process(name, "etcd") for name in NODES]
    for process in processes:
        if process.returncode is None:
            send(process.pid, signal.SIGKILL)
    return ""


NEMESES = (
    Nemesis("etcd-data", ANY, _lose_data, _rejoin, ANY),
    Nemesis("etcd-all", (ALL,), _kill_all, nothing, (ALL,)),
)
