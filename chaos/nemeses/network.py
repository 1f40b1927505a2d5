"""Cables: cut, cut one way, cut between two, flapping, slow."""

import asyncio
from contextlib import suppress

from chaos.nemeses.scene import ANY, DATABASE, PRIMARY, Nemesis, Scene
from flightmode.demo.cluster import APP, WITNESS


async def _cut(scene: Scene) -> str:
    await scene.lab.cut(scene.node)
    return ""


async def _heal(scene: Scene) -> None:
    await scene.lab.heal(scene.node)


async def _cut_from_nodes(scene: Scene) -> str:
    """Clients still reach it: the primary is asked to write all the while."""
    for other in scene.others:
        await scene.lab.cut_between(scene.node, other)
    return "clients still reach it"


async def _heal_from_nodes(scene: Scene) -> None:
    for other in scene.others:
        await scene.lab.heal_between(scene.node, other)


async def _one_way(scene: Scene) -> str:
    if scene.dice.random() < 0.5:
        await scene.lab.deafen(scene.node)
        return "it hears nothing"
    await scene.lab.mute(scene.node)
    return "nobody hears it"


async def _heal_one_way(scene: Scene) -> None:
    await scene.lab.heal_one_way(scene.node)


def _between(other_of: str) -> tuple[Nemesis, ...]:
    def other(scene: Scene) -> str:
        return {"standby": scene.standby, "witness": WITNESS, "app": APP}[other_of]

    async def begin(scene: Scene) -> str:
        await scene.lab.cut_between(scene.primary, other(scene))
        return f"from {other(scene)}"

    async def heal(scene: Scene) -> None:
        await scene.lab.heal_between(scene.primary, other(scene))

    return (Nemesis(f"partition-{other_of}", (PRIMARY,), begin, heal, (PRIMARY,)),)


async def _flap(scene: Scene) -> str:
    pair = scene.role != "witness" and scene.dice.random() < 0.4
    scene.memory["pair"] = pair
    scene.memory["task"] = asyncio.create_task(_up_and_down(scene, pair=pair))
    return "the link between the databases" if pair else "its cable"


async def _up_and_down(scene: Scene, *, pair: bool) -> None:
    lab, dice = scene.lab, scene.dice
    while True:
        if pair:
            await lab.cut_between(scene.primary, scene.standby)
        else:
            await lab.cut(scene.node)
        await asyncio.sleep(dice.uniform(0.1, 2.5))
        await _up(scene, pair=pair)
        await asyncio.sleep(dice.uniform(0.1, 1.5))


async def _up(scene: Scene, *, pair: bool) -> None:
    if pair:
        await scene.lab.heal_between(scene.primary, scene.standby)
    else:
        await scene.lab.heal(scene.node)


async def _stop_flapping(scene: Scene) -> None:
    task: asyncio.Task[None] | None = scene.memory.pop("task", None)
    if task is None:
        return
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    # A command that was under way when the task ended is done all the same: undo it in any case.
    await scene.lab.heal_surely(scene.node, (scene.primary, scene.standby))


async def _slow(scene: Scene) -> str:
    kbit = scene.dice.choice((64, 256, 1024))
    await scene.lab.slow(scene.node, kbit)
    return f"{kbit} kbit/s"


async def _heal_slow(scene: Scene) -> None:
    await scene.lab.heal_slow(scene.node)


NEMESES = (
    Nemesis("partition-full", ANY, _cut, _heal, ANY),
    Nemesis("partition-nodes", ANY, _cut_from_nodes, _heal_from_nodes, ANY),
    Nemesis("partition-one-way", ANY, _one_way, _heal_one_way, ANY),
    *_between("standby"),
    *_between("witness"),
    *_between("app"),
    Nemesis("partition-flapping", ANY, _flap, _stop_flapping, ()),
    Nemesis("slow-link", DATABASE, _slow, _heal_slow, ()),
)
