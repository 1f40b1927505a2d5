"""Disks: full, or stalled."""

import asyncio

from chaos.nemeses.scene import ANY, STANDBY, WITNESS_ROLE, Nemesis, Scene

# What a primary does on a full disk is PostgreSQL's affair: it may wait, or end itself.
_ELSEWHERE = (STANDBY, WITNESS_ROLE)


async def _fill(scene: Scene) -> str:
    await asyncio.to_thread(scene.lab.disks.fill, scene.node)
    return ""


async def _empty(scene: Scene) -> None:
    await asyncio.to_thread(scene.lab.disks.empty, scene.node)


async def _freeze(scene: Scene) -> str:
    await asyncio.to_thread(scene.lab.disks.freeze, scene.node)
    return ""


async def _thaw(scene: Scene) -> None:
    await asyncio.to_thread(scene.lab.disks.thaw, scene.node)


NEMESES = (
    Nemesis("disk-full", ANY, _fill, _empty, _ELSEWHERE),
    Nemesis("disk-stall", ANY, _freeze, _thaw, ANY),
)
