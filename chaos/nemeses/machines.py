"""Whole hosts: power, a hypervisor that pauses one, a clock that is set."""

import asyncio

from chaos.nemeses.scene import ALL, ANY, Nemesis, Scene
from flightmode.demo.cluster import NODES

_JUMPS_S = (-86400.0, -60.0, -3.0, -0.7, 0.7, 3.0, 60.0, 86400.0)


async def _power_loss(scene: Scene) -> str:
    await scene.lab.power_loss(scene.node)
    return ""


async def _power_on(scene: Scene) -> None:
    await scene.lab.power_on(scene.node)


async def _power_loss_everywhere(scene: Scene) -> str:
    await asyncio.gather(*(scene.lab.power_loss(name) for name in NODES))
    return ""


async def _power_on_everywhere(scene: Scene) -> None:
    await asyncio.gather(*(scene.lab.power_on(name) for name in NODES))


async def _pause(scene: Scene) -> str:
    await scene.lab.pause(scene.node)
    return ""


async def _resume(scene: Scene) -> None:
    await scene.lab.resume(scene.node)


async def _set_clock(scene: Scene) -> str:
    assert scene.lab.clocks is not None
    jump_s = scene.dice.choice(_JUMPS_S)
    scene.lab.clocks.set_ahead(scene.node, jump_s)
    return f"{jump_s:+g} s"


async def _set_clock_right(scene: Scene) -> None:
    assert scene.lab.clocks is not None
    scene.lab.clocks.set_ahead(scene.node, 0.0)


NEMESES = (
    Nemesis("power", ANY, _power_loss, _power_on, ANY),
    Nemesis("power-everywhere", (ALL,), _power_loss_everywhere, _power_on_everywhere, ()),
    Nemesis("pause", ANY, _pause, _resume, ANY),
    Nemesis("clock", ANY, _set_clock, _set_clock_right, ANY),
)
