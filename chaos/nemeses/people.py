"""People: an operator who asks for a switchover at the worst moment."""

import aiohttp

from chaos.nemeses.scene import PRIMARY, Nemesis, Scene, nothing
from flightmode.demo.asking import ask_for_switchover
from flightmode.errors import RehearsalFailed


async def _switch_over(scene: Scene) -> str:
    try:
        await ask_for_switchover(scene.cluster, scene.standby)
    except (RehearsalFailed, aiohttp.ClientError, TimeoutError) as error:
        # A refusal is a right answer while something else is broken.
        return f"refused: {str(error) or type(error).__name__}"[:160]
    return f"to {scene.standby}"


NEMESES = (Nemesis("switchover", (PRIMARY,), _switch_over, nothing, (PRIMARY,)),)
