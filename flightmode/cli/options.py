"""The options that every verb shares, and what they stand for."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import psutil
import typer

from flightmode.config import Config, Locations, locations_of, parse
from flightmode.errors import ConfigMissing, NodeUnnamed

ConfigPath = Annotated[
    Path,
    typer.Option(
        "--config",
        "-c",
        envvar="FLIGHTMODE_CONFIG",
        help="The cluster's flightmode.toml.",
        show_default=True,
    ),
]
DEFAULT_CONFIG: Final = Path("/etc/flightmode/flightmode.toml")

NodeName = Annotated[
    str | None,
    typer.Option(
        "--node",
        "-n",
        envvar="FLIGHTMODE_NODE",
        help="Which node: the one that this machine is, or the one to ask.",
        metavar="NAME",
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON, for programs.")]

TlsDirectory = Annotated[
    Path | None,
    typer.Option(
        "--tls",
        envvar="FLIGHTMODE_TLS",
        help="Where your ca.crt, client.crt and client.key are, if not where flightmode.toml says.",
        metavar="DIR",
    ),
]


@dataclass(frozen=True, slots=True)
class Place:
    """The cluster that a command is about, and where its file is."""

    config: Config
    path: Path

    def node(self, named: str | None) -> str:
        """The node that was named, or that this machine is.  Raises NodeUnnamed."""
        if named is not None:
            return self.known(named)
        found = self.here()
        if found is not None:
            return found
        names = ", ".join(self.config.nodes)
        text = f"which node is this machine? Name it by --node; these are: {names}"
        raise NodeUnnamed(text)

    def known(self, name: str) -> str:
        """The name, if there is such a node.  Raises NodeUnnamed."""
        if name in self.config.nodes:
            return name
        names = ", ".join(self.config.nodes)
        raise NodeUnnamed(f"there is no node {name!r}; these are: {names}")

    def here(self) -> str | None:
        """The node that this machine is, by its addresses or its name; None: none or several."""
        mine = _own_addresses()
        fits = [name for name, each in self.config.nodes.items() if each.host.lower() in mine]
        if len(fits) == 1:
            return fits[0]
        host = socket.gethostname().partition(".")[0].lower()
        return host if not fits and host in self.config.nodes else None

    def locations(self, node: str) -> Locations:
        """The node's paths."""
        return locations_of(self.config, node)

    def tls(self, given: Path | None, node: str | None) -> tuple[Path, str]:
        """The directory and the stem of the certificate by which a person speaks.

        As given; else as flightmode.toml says; else `operator/` beside it, as `init` makes it.
        """
        name = node or self.here() or next(iter(self.config.nodes))
        said = self.locations(name).tls_dir
        places = [given] if given is not None else [said, self.path.parent / "operator"]
        for directory in places:
            for stem in ("client", "node"):
                if os.path.exists(directory / f"{stem}.crt"):  # False also where we may not look
                    return directory, stem
        return places[0], "client"


def _own_addresses() -> set[str]:
    """The addresses and names of this machine, without loopback: all nodes have that."""
    addresses = {
        address.address.partition("%")[0].lower()
        for addresses in psutil.net_if_addrs().values()
        for address in addresses
        if address.family in (socket.AF_INET, socket.AF_INET6)
    }
    own = {each for each in addresses if not each.startswith("127.") and each != "::1"}
    return own | {socket.gethostname().lower(), socket.getfqdn().lower()} - {"localhost"}


def place(path: Path) -> Place:
    """Read flightmode.toml.  Raises ConfigMissing, ConfigInvalid."""
    base = Path(os.path.abspath(path)).parent
    return Place(parse(text_of(path), base=base, name=str(path)), path)


def text_of(path: Path) -> str:
    """What the file holds.  Raises ConfigMissing."""
    try:
        return path.read_text()
    except FileNotFoundError:
        raise ConfigMissing(f"there is no {path}") from None
    except (OSError, UnicodeDecodeError) as wrong:
        raise ConfigMissing(f"{path} can't be read: {wrong}", hint=f"ls -l {path}") from None
