"""The live picture: who is primary, in which term, how far the others are, commits a second."""

import asyncio
from collections import deque
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from flightmode.agent.clock import Clock
from flightmode.demo.cluster import NODES, DemoCluster, Picture
from flightmode.model.member import Member
from flightmode.model.server import Run

_EVERY_S = 0.25
_LINES = 8


class Rated(Protocol):
    """Clients whose commits are counted."""

    def acknowledged_per_s(self) -> float: ...


class LivePicture:
    """Draws until it is left; on something that is not a terminal it prints the sayings only."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._clock = clock
        self._began_s = clock.now_s()
        self._said: deque[str] = deque(maxlen=_LINES)
        self._live: Live | None = None
        self._task: asyncio.Task[None] | None = None

    def say(self, text: str) -> None:
        """A line of the story."""
        line = f"{self._clock.now_s() - self._began_s:6.1f} s  {text}"
        self._said.append(line)
        if self._live is None:
            self._console.print(line, highlight=False)

    def watch(self, cluster: DemoCluster, workload: Rated) -> None:
        """Begin to draw, if this is a terminal."""
        if not self._console.is_terminal:
            return
        self._live = Live(console=self._console, refresh_per_second=8)
        self._live.start()
        self._task = asyncio.create_task(self._draw(cluster, workload, self._live))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._live is not None:
            self._live.stop()
            self._live = None

    async def _draw(self, cluster: DemoCluster, workload: Rated, live: Live) -> None:
        while True:
            picture = await cluster.picture()
            rate = workload.acknowledged_per_s()
            live.update(Group(_nodes(picture, rate), Text("\n".join(self._said))))
            await asyncio.sleep(_EVERY_S)


def _nodes(picture: Picture | None, rate: float) -> Table:
    title = "no answer from etcd"
    if picture is not None:
        state = picture.state
        held = f"also held by {', '.join(state.sync)}" if state.sync else "held by it alone"
        title = f"term {state.term}, led by {state.leader}; commits {held}; {rate:.0f} a second"
    table = Table(title=title, title_justify="left", width=90)
    for heading in ("node", "is", "at", "behind", "doing"):
        table.add_column(heading)
    for name in NODES:
        member = None if picture is None else picture.members.get(name)
        table.add_row(name, *_cells(member, picture))
    return table


def _cells(member: Member | None, picture: Picture | None) -> tuple[str, str, str, str]:
    if member is None or picture is None:
        return "?", "", "", ""
    if member.run is Run.ABSENT and member.system_identifier is None:
        return "witness", "", "", ""
    leader = picture.members.get(picture.state.leader)
    behind = ""
    if member.run is Run.STANDBY and leader is not None:
        behind = f"{max(0, leader.position - member.position)} B"
    doing = member.job or ("streaming" if member.streaming else "")
    return member.run.value, str(member.position), behind, member.problem or doing
