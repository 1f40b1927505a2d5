"""Asking the cluster for something, and telling what happens until it has ended."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from flightmode.cli.client import Answer, Cluster
from flightmode.cli.options import Place
from flightmode.cli.show import as_json, err, out
from flightmode.errors import (
    InterfaceError,
    NodeUnreachable,
    RequestRefused,
    RequestUnfinished,
    RequestUnknown,
)
from flightmode.pki import client_context

_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Asking:
    """A wish, how long to wait for its end, and how to answer."""

    path: str
    body: dict[str, object]
    wait_s: float
    json: bool
    then: Callable[[dict[str, Any]], bool] | None = None
    """What /status has to show before it is really over."""


def by_operator(place: Place, tls: tuple[Any, str], only: str | None = None) -> Cluster:
    """The nodes' APIs with a person's certificate.  Raises FileMissing, CertificateInvalid."""
    directory, stem = tls
    return Cluster(place.config, client_context(directory, stem), only)


async def ask(cluster: Cluster, wish: Asking) -> None:
    """Ask, wait, tell.  Raises RequestRefused, RequestUnfinished."""
    outcome = await carry(cluster, wish)
    if outcome is not None:
        _say(wish, outcome, str(outcome["why"]))


async def carry(cluster: Cluster, wish: Asking) -> dict[str, Any] | None:
    """Ask, wait; how it ended, None: it was only to be asked.

    Raises RequestRefused, RequestUnfinished.
    """
    accepted = (await cluster.post(wish.path, wish.body)).body
    if wish.wait_s <= 0:
        _say(wish, {**accepted, "open": True}, f"asked for ({accepted['id']})")
        return None
    until_s = time.monotonic() + wish.wait_s
    told = _Story(quiet=wish.json)
    outcome = await _until(until_s, lambda: _ended(cluster, accepted["id"], told))
    if outcome is None:
        raise RequestUnfinished(
            f"not done after {wish.wait_s:.0f} s; it stays asked for until it expires"
        )
    if not outcome["ok"]:
        raise RequestRefused(str(outcome["why"]))
    if wish.then is not None:
        await _settle(cluster, wish, until_s, told)
    return outcome


def _say(wish: Asking, outcome: dict[str, Any], words: str) -> None:
    if wish.json:
        as_json(outcome)
    else:
        out.print(words)


async def _until(
    until_s: float, look: Callable[[], Awaitable[dict[str, Any] | None]]
) -> dict[str, Any] | None:
    """What `look` finds, or None when the time is over."""
    while time.monotonic() < until_s:
        found = await look()
        if found is not None:
            return found
        await asyncio.sleep(_POLL_S)
    return None


async def _ended(cluster: Cluster, request_id: str, told: "_Story") -> dict[str, Any] | None:
    """How the request ended; None: it is open, or nobody can say now."""
    try:
        told.goes_on((await cluster.best("/status", freshness)).body)
        outcome: dict[str, Any] = (await cluster.best(f"/requests/{request_id}")).body
    except RequestUnknown:
        text = "the request is gone: another one of its kind has ended since"
        raise RequestUnfinished(text) from None
    except InterfaceError as failure:
        if not isinstance(failure, NodeUnreachable) and not failure.retry:
            raise
        return None
    return None if outcome["open"] else outcome


async def _settle(cluster: Cluster, wish: Asking, until_s: float, told: "_Story") -> None:
    """Wait until the cluster shows what was asked for.  Raises RequestUnfinished."""

    async def look() -> dict[str, Any] | None:
        try:
            status: dict[str, Any] = (await cluster.best("/status", freshness)).body
        except NodeUnreachable:
            return None
        told.goes_on(status)
        return status if wish.then is not None and wish.then(status) else None

    if await _until(until_s, look) is None:
        raise RequestUnfinished("it was carried out, and the cluster is not settled yet")


def freshness(answer: Answer) -> float:
    """Least for the node that knows best: one that reaches etcd, then the leader, then the newest.

    The leader's own words tell what happens.
    """
    status = answer.body
    state = status["state"] or {}
    away = 0 if status["store_reachable"] else 1000
    leads = 0 if state.get("leader") == status["node"] else 10
    return float(away + leads - state.get("term", 0) * 20 + min(status["age_s"], 9))


class _Story:
    """Tells each new step once, as the node that carries it out says it."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._last: tuple[object, ...] = ()
        self._began_s = time.monotonic()

    def goes_on(self, status: dict[str, Any]) -> None:
        step = (status["node"], status["rule"])
        if self._quiet or step == self._last or status["rule"] is None:
            return
        self._last = step
        passed_s = time.monotonic() - self._began_s
        line = Text(f"{passed_s:6.2f} s  {status['node']}: ", style="dim")
        err.print(line.append(status["why"], style="not dim"), soft_wrap=True)
