"""Keeps etcd's leader off the primary's host, now and then and without haste."""

import asyncio
from collections.abc import Callable

import structlog

from flightmode.agent.clock import Clock
from flightmode.decide.placement import better_place
from flightmode.errors import StoreError
from flightmode.model.view import View
from flightmode.store.port import Placing

_log = structlog.get_logger("agent.placing")

LOOK_S = 3.0
# A leader that goes back and forth would be worse than one in the wrong place.
_NOT_AGAIN_S = 15.0


async def keep_placed(placing: Placing, clock: Clock, last_view: Callable[[], View | None]) -> None:
    """Until cancelled.  Beside the loop: renewals never wait for it."""
    moved_s = -_NOT_AGAIN_S
    while True:
        await asyncio.sleep(LOOK_S)
        view = last_view()
        state = None if view is None else view.store.state
        if view is None or state is None or state.leader != view.me.name:
            continue
        if clock.now_s() - moved_s < _NOT_AGAIN_S:
            continue
        try:
            target = better_place(view, await placing.look())
            if target is None:
                continue
            moved_s = clock.now_s()
            await placing.move(target)
            _log.info("etcd is led by another host than the primary's now", node=target)
        except StoreError as failure:
            _log.info("etcd's leader stays where it is", why=str(failure))
