"""How things look on a terminal: words first, colour second, one table at a glance."""

import json
import time
from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from flightmode.decide.problems import hint_for

out: Final = Console(highlight=False)
err: Final = Console(stderr=True, highlight=False)

_RUN_STYLE: Final = {"primary": "green", "standby": "green", "stopped": "red", "silent": "red"}


def as_json(value: object, *, one_line: bool = False) -> None:
    """One JSON document on standard output; `one_line` where more of them follow."""
    print(json.dumps(value, ensure_ascii=False, indent=None if one_line else 2), flush=True)


def status_view(status: dict[str, Any]) -> RenderableType:
    """The cluster on one screen."""
    return Group(_headline(status), _nodes(status), *_notes(status))


def _headline(status: dict[str, Any]) -> Text:
    state = status["state"]
    if state is None:
        return Text("no cluster yet: no node has created the database", style="yellow")
    text = Text()
    if status["writes"] is not None:
        text.append(f"{status['writes']} is primary", style="bold green")
    else:
        text.append("nobody accepts writes", style="bold red")
        text.append(f": {status['route']}")
    text.append(f"   term {state['term']}")
    text.append(f" since {when(state['since_wall_s'])} ({state['reason']})")
    return text


def _mode(state: dict[str, Any]) -> Text:
    if state["mode"] == "sync":
        holders = ", ".join(state["sync"])
        return Text(f"every commit is also held by {holders}: its loss costs nothing")
    text = "the primary is alone: nobody else holds every commit, so nobody takes over"
    return Text(text, style="yellow")


def _nodes(status: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in ("node", "role", "postgres", "sync", "timeline", "lag", "fence", "disk", "heard"):
        table.add_column(title, header_style="dim")
    for node in status["nodes"]:
        table.add_row(*_row(node))
    return table


def _row(node: dict[str, Any]) -> tuple[str | Text, ...]:
    witness = node["kind"] == "witness"
    run = "" if witness or node["run"] is None else node["run"]
    job = f" ({node['job']})" if node["job"] else ""
    stream = " streaming" if node["streaming"] else ""
    disk = "" if witness or node["disk_free"] is None else f"{node['disk_free']:.0%} free"
    return (
        Text(node["name"], style="bold"),
        node["role"],
        Text(f"{run}{stream}{job}", style=_RUN_STYLE.get(run, "yellow")),
        "yes" if node["sync"] else "",
        "" if node["timeline"] is None else str(node["timeline"]),
        "" if node["lag_bytes"] is None else size(node["lag_bytes"]),
        "" if witness or node["fence_level"] is None else node["fence_level"],
        disk,
        _heard(node),
    )


def _heard(node: dict[str, Any]) -> Text:
    if node["heard"]:
        return Text("now", style="green")
    if node["silent_s"] is None:
        return Text("never" if node["version"] is None else "not lately", style="red")
    return Text(f"{duration(node['silent_s'])} ago", style="red")


def _notes(status: dict[str, Any]) -> Iterable[Text]:
    state = status["state"]
    if state is not None:
        yield _mode(state)
        if state["paused_until_wall_s"] is not None:
            until = when(state["paused_until_wall_s"])
            text = f"PAUSED by {state['paused_by']} until {until}: no failover till then"
            yield Text(text, style="bold yellow")
        if state["handover_to"] is not None:
            yield Text(f"handing over to {state['handover_to']}", style="yellow")
    for node in status["nodes"]:
        if node["problem"]:
            yield Text(f"{node['name']}: {node['problem']}", style="bold red")
            hint = hint_for(node["problem"])
            if hint is not None:
                yield Text(f"  hint: {hint}")
        for warning in node["warnings"]:
            yield Text(f"{node['name']}: {warning}", style="yellow")
        if node["pending_restart"]:
            names = ", ".join(node["pending_restart"])
            yield Text(f"{node['name']}: waiting for a restart: {names}", style="yellow")
    for each in status["requests"]:
        whom = f" of {each['node']}" if each["node"] else ""
        yield Text(f"asked for by {each['asked_by']}: {each['kind']}{whom}", style="cyan")
    if not status["store_reachable"]:
        text = f"etcd does not answer {status['node']}: this may be old"
        yield Text(text, style="bold red")
    yield Text(f"as {status['node']} sees it, {status['age_s']:.1f} s ago", style="dim")


def concerns(status: dict[str, Any]) -> list[str]:
    """What keeps the cluster from being as it should be, by name; nothing: all is well."""
    state = status["state"]
    if state is None:
        return ["there is no cluster yet"]
    found = [] if status["store_reachable"] else ["etcd does not answer"]
    found += [] if status["writes"] is not None else ["nobody accepts writes"]
    found += [] if state["mode"] == "sync" else ["the primary is alone"]
    found += [] if state["paused_until_wall_s"] is None else ["paused"]
    for node in status["nodes"]:
        found += [] if node["heard"] else [f"{node['name']} is silent"]
        told = [node["problem"], *node["warnings"]] if node["problem"] else node["warnings"]
        found += [f"{node['name']}: {each}" for each in told]
        found += [f"{node['name']} waits for a restart"] if node["pending_restart"] else []
    return found


def decision_view(told: dict[str, Any]) -> Text:
    """One decision in words."""
    text = Text(f"{when(told['wall_s'], seconds=True)}  ", style="dim")
    text.append(told["rule"], style="bold")
    text.append(f"\n    {told['why']}", style="not dim")
    if told["problem"]:
        text.append(f"\n    {told['problem']}", style="bold red")
    for done in told["did"]:
        text.append(f"\n    -> {done}", style="red" if ": FAILED: " in done else "not dim cyan")
    return text


def when(wall_s: float, *, seconds: bool = False) -> str:
    """A moment in the reader's time zone; the date only when it is not today."""
    moment, today = time.localtime(wall_s), time.localtime()
    clock = time.strftime("%H:%M:%S", moment)
    if seconds:
        clock += f".{int(wall_s % 1 * 1000):03d}"
    if moment[:3] == today[:3]:
        return clock
    return time.strftime("%Y-%m-%d ", moment) + clock


def duration(seconds: float) -> str:
    """As people say it: 0.4 s, 12 s, 3 min, 5 h, 2 d."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    for limit, unit, one in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / one:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def size(count: float) -> str:
    """Bytes as people say them: 0, 512 B, 3.4 MiB."""
    if count < 1024:
        return f"{count:.0f} B" if count else "0"
    for unit in ("KiB", "MiB", "GiB"):
        count /= 1024
        if count < 1024:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:.1f} TiB"
