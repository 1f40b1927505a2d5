"""The verbs of `flightmode`, each imported when it is asked for.

Why: a verb needs a part of the product, and all of it together takes a second to import: too long
for an agent that restarts while its lease runs, and for whoever waits for `status`.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import typer
from typer.core import TyperGroup


@dataclass(frozen=True, slots=True)
class Verb:
    """Where a verb is defined: a function, or a Typer with verbs of its own."""

    module: str
    attribute: str
    panel: str

    def load(self) -> Any:
        """The command (a click one).  Whatever the import raises comes through."""
        found = getattr(importlib.import_module(self.module), self.attribute)
        holder = typer.Typer()
        if isinstance(found, typer.Typer):
            holder.add_typer(found, rich_help_panel=self.panel)
        else:
            holder.command(rich_help_panel=self.panel)(found)
        # With a callback it is a group, also of one.
        holder.callback()(_nothing)
        (command,) = typer.main.get_group(holder).commands.values()
        return command


def _nothing() -> None:
    """The group around one verb does nothing itself."""


def _verbs() -> Iterator[tuple[str, Verb]]:
    look, act, build, started = "Look", "Act", "Build", "Started by systemd"
    for panel, name, place in (
        (look, "status", "status:status"),
        (look, "why", "why:why"),
        (look, "logs", "logs:logs"),
        (look, "replay", "why:replay"),
        (act, "switchover", "switchover:switchover"),
        (act, "failover", "failover:failover"),
        (act, "pause", "pause:pause"),
        (act, "resume", "pause:resume"),
        (act, "restart", "nodes:restart"),
        (act, "reload", "nodes:reload"),
        (act, "reinit", "nodes:reinit"),
        (build, "init", "init:init"),
        (build, "adoptable", "adoptable:adoptable"),
        (build, "check", "check:check"),
        (build, "provision", "provision:provision"),
        (build, "upgrade", "upgrade:upgrade"),
        (build, "destroy", "life:destroy"),
        (started, "agent", "processes:agent"),
        (started, "fence", "processes:fence"),
        (build, "config", "changes:config"),
        (build, "certs", "changes:certs"),
        (build, "node", "life:node"),
        (build, "move", "moving:move"),
        (started, "proxy", "proxy:app"),
    ):
        module, _, attribute = place.partition(":")
        yield name, Verb(f"flightmode.cli.commands.{module}", attribute, panel)


VERBS: Final[Mapping[str, Verb]] = dict(_verbs())
"""By name, in the order of the help."""


class _Loading(Mapping[str, Any]):
    """Name -> command; looking one up imports it, and only that one."""

    def __getitem__(self, name: str) -> Any:
        return VERBS[name].load()

    def __iter__(self) -> Iterator[str]:
        return iter(VERBS)

    def __len__(self) -> int:
        return len(VERBS)


class Verbs(TyperGroup):
    """The group of all verbs, for `typer.Typer(cls=…)`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _Loading()

    def list_commands(self, ctx: Any) -> list[str]:
        """Their names; nothing is imported for it."""
        return list(VERBS)
