"""What `flightmode check` looks at on a machine, one function a thing; nothing is changed."""

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from flightmode.cli.commands.processes import find_fence
from flightmode.cli.options import Place
from flightmode.errors import ConfigInvalid, FlightmodeError
from flightmode.model.member import NodeKind
from flightmode.pki import SECRETS, check_certificate, read_secret
from flightmode.postgres.programs import find_bin_dir
from flightmode.postgres.user import system_user

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    level: Level
    what: str
    hint: str | None = None


Look = Callable[[Place, str], Iterator[Finding]]


def certificates(place: Place, node: str) -> Iterator[Finding]:
    """The node's certificate, key and authority."""
    directory = place.locations(node).tls_dir
    try:
        standing = check_certificate(directory, "node")
    except FlightmodeError as wrong:
        yield _wrong(wrong)
        return
    days = f"{standing.days_left:.0f} days"
    if standing.name != node:
        text = f"the certificate in {directory} is that of {standing.name}, this node is {node}"
        yield Finding("error", text, "flightmode init --help")
    elif standing.ends_soon:
        text = f"the certificate of {node} ends in {days}"
        yield Finding("warning", text, "flightmode init --renew")
    else:
        yield Finding("ok", f"the certificate of {node} is good for {days}")


def passwords(place: Place, node: str) -> Iterator[Finding]:
    """The files of the secrets directory."""
    directory = place.locations(node).secrets_dir
    wrong = []
    for name in SECRETS:
        try:
            read_secret(directory, name)
        except FlightmodeError as failure:
            wrong.append(_wrong(failure))
    yield from wrong
    if not wrong:
        yield Finding("ok", f"all {len(SECRETS)} secrets are there, and private")


def programs(place: Place, node: str) -> Iterator[Finding]:
    """The fence and PostgreSQL of the right major version."""
    if place.config.nodes[node].kind is NodeKind.WITNESS:
        return
    try:
        yield Finding("ok", f"the fence is {find_fence()}")
    except FlightmodeError as wrong:
        yield _wrong(wrong)
    major = place.config.cluster.postgres_major
    try:
        bin_dir = find_bin_dir(place.config.postgres.bin_dir, major)
    except ConfigInvalid as wrong:
        yield from (Finding("error", each, wrong.hint_text) for each in wrong.problems)
    else:
        yield Finding("ok", f"PostgreSQL {major} is in {bin_dir}")


def user(place: Place, node: str) -> Iterator[Finding]:
    """The system user that PostgreSQL runs as."""
    if place.config.nodes[node].kind is NodeKind.WITNESS:
        return
    name = place.config.postgres.user
    try:
        entry = system_user(name)
    except ConfigInvalid as wrong:
        yield from (Finding("error", each, wrong.hint_text) for each in wrong.problems)
        return
    if entry.pw_uid == 0:
        text = f"the user {name!r} is root; PostgreSQL never runs as root"
        yield Finding("error", text, f"sensible-editor {place.path}")
    else:
        yield Finding("ok", f"PostgreSQL runs as {name}")


def directories(place: Place, node: str) -> Iterator[Finding]:
    """The data directory's parent, where old copies are kept too."""
    if place.config.nodes[node].kind is NodeKind.WITNESS:
        return
    parent = place.locations(node).data_dir.parent
    if not parent.is_dir():
        yield Finding("error", f"{parent} does not exist", f"mkdir -p {parent}")
        return
    free = shutil.disk_usage(parent)
    part = free.free / free.total
    level: Level = "ok" if part > 0.2 else "warning"
    yield Finding(level, f"{parent}: {part:.0%} of the disk is free", f"df -h {parent}")
    data_dir = place.locations(node).data_dir
    if data_dir.is_dir() and data_dir.stat().st_mode & 0o077:
        text = f"{data_dir} can be entered by others than its owner: PostgreSQL would not start"
        yield Finding("error", text, f"chmod 700 {data_dir}")


def names(place: Place, node: str) -> Iterator[Finding]:
    """Every node's host can be found."""
    for name, each in place.config.nodes.items():
        try:
            socket.getaddrinfo(each.host, each.api_port)
        except OSError as wrong:
            text = f"the host of {name}, {each.host}, is not found: {wrong.strerror}"
            yield Finding("error", text, f"getent hosts {each.host}")


def address(place: Place, node: str) -> Iterator[Finding]:
    """This machine has the node's address."""
    host = place.config.nodes[node].host
    try:
        with socket.create_server((host, 0), family=_family(host)):
            yield Finding("ok", f"this machine has the address {host}")
    except OSError as wrong:
        text = f"this machine can't listen at {host}: {wrong.strerror}"
        yield Finding("error", text, "ip address")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def privileges(place: Place, node: str) -> Iterator[Finding]:
    """What the fence can't do without root."""
    wants = place.config.fence
    if os.geteuid() != 0 and (wants.cgroup or wants.nft or wants.watchdog):
        text = "not root: what the fence needs root for is not looked at"
        yield Finding("warning", text, "sudo flightmode check")
    if wants.watchdog is not None and not wants.watchdog.exists():
        text = f"there is no {wants.watchdog} on this machine"
        yield Finding("error", text, "modprobe softdog")
    if wants.nft and shutil.which("nft") is None:
        yield Finding("error", "nft is not installed", "apt-get install nftables")


def _wrong(failure: FlightmodeError) -> Finding:
    return Finding("error", failure.message, failure.hint_text)


LOOKS: Final[tuple[Look, ...]] = (
    certificates,
    passwords,
    programs,
    user,
    directories,
    names,
    address,
    privileges,
)


def look_around(place: Place, node: str) -> list[Finding]:
    """Everything, in order."""
    return [finding for look in LOOKS for finding in look(place, node)]
