"""`flightmode init`: a new cluster's file, certificates and passwords, in one directory."""

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flightmode.cli.commands.adoptable import as_told
from flightmode.cli.options import place
from flightmode.cli.show import as_json, err, out
from flightmode.config import Config, parse
from flightmode.config.reference import sample
from flightmode.errors import AlreadyThere, RequestWrong
from flightmode.model.member import OPERATOR, NodeKind
from flightmode.pki import Authority, make_secrets
from flightmode.postgres.adopt import inspect
from flightmode.provision.adoption import look_from_afar
from flightmode.remote.ssh import Login

_TOML = "flightmode.toml"


def init(
    directory: Annotated[
        Path, typer.Argument(help="Where to put everything; made if need be.")
    ] = Path("flightmode-cluster"),
    name: Annotated[str, typer.Option("--name", help="What the cluster is called.")] = "main",
    database: Annotated[
        list[str] | None,
        typer.Option("--database", metavar="NAME=HOST", help="A database node; say it twice."),
    ] = None,
    witness: Annotated[
        str, typer.Option("--witness", metavar="NAME=HOST", help="The witness.")
    ] = "wit=10.0.0.3",
    adopt: Annotated[
        str | None,
        typer.Option(
            "--adopt",
            metavar="[HOST:]DATA_DIR",
            help="Take over the PostgreSQL of this data directory, on the first database node. "
            "With HOST: it is looked at over SSH, and goes on running meanwhile. Refused, with "
            "the reason, when that can't be done safely.",
        ),
    ] = None,
    ssh_user: Annotated[
        str, typer.Option("--ssh-user", help="Who logs in on the hosts: root, or who may sudo.")
    ] = "root",
    ssh_port: Annotated[int, typer.Option("--ssh-port", help="Where their sshd listens.")] = 22,
    ssh_key: Annotated[
        Path | None,
        typer.Option("--ssh-key", help="The private key; else those of the agent and ~/.ssh."),
    ] = None,
    renew: Annotated[
        bool, typer.Option("--renew", help="Issue new certificates from the authority in here.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Write a commented flightmode.toml, and make the cluster's certificates and passwords.

    Never overwrites anything. Afterwards: edit the file, copy nodes/NAME/ to /etc/flightmode/ of
    each node, and keep ca/ and operator/ to yourself: whoever has ca.key can be any node.
    """
    notes: tuple[str, ...] = ()
    if renew:
        config = place(directory / _TOML).config
    else:
        nodes = _nodes(database or ["ams=10.0.0.1", "fra=10.0.0.2"], witness)
        login = Login(ssh_user, ssh_port, ssh_key, directory / "known_hosts")
        given, notes = _adopted(adopt, login)
        config = _begin(directory, name, nodes, {**given, "provision": _login_given(login)})
    _certificates(directory, config, renew=renew)
    _share(directory, config)
    steps = [*notes, *_next_steps(directory, config)]
    if json:
        as_json({"directory": str(directory), "nodes": list(config.nodes), "next": steps})
        return
    out.print(f"{directory} holds the cluster [bold]{config.cluster.name}[/bold]. What now:")
    for number, step in enumerate(steps, start=1):
        out.print(f"  {number}. {step}", soft_wrap=True)


def _nodes(databases: list[str], witness: str) -> dict[str, dict[str, Any]]:
    nodes: dict[str, dict[str, Any]] = {}
    pairs = [(each, NodeKind.DATABASE) for each in databases]
    if len(databases) < 3:
        pairs.append((witness, NodeKind.WITNESS))
    for text, kind in pairs:
        name, equals, host = text.partition("=")
        if not (equals and name and host):
            raise RequestWrong(f"{text!r} is not NAME=HOST", hint="flightmode init --help")
        nodes[name] = {"kind": kind.value, "host": host}
    return nodes


def _login_given(login: Login) -> dict[str, Any]:
    """What of it differs from what is usual."""
    usual = Login("root", 22, None, login.known_hosts)
    given = {
        "ssh_user": login.user if login.user != usual.user else None,
        "ssh_port": login.port if login.port != usual.port else None,
        "ssh_key": str(login.key.absolute()) if login.key is not None else None,
    }
    return {name: value for name, value in given.items() if value is not None}


def _adopted(adopt: str | None, login: Login) -> tuple[dict[str, dict[str, Any]], tuple[str, ...]]:
    """What flightmode.toml has to say so that this data directory is taken over; and notes."""
    if adopt is None:
        return {}, ()
    host, colon, path = adopt.rpartition(":")
    if colon:
        err.print(f"looking at {path} on {host}, which goes on running")
        found = asyncio.run(look_from_afar(host, path, login))
    else:
        found = as_told(inspect(Path(path).absolute()))
    settings: dict[str, dict[str, Any]] = {
        "cluster": {"postgres_major": found["postgres_major"]},
        "postgres": {key: found[key] for key in ("data_dir", "parameters", "hba")},
    }
    return settings, tuple(found["notes"])


def _begin(
    directory: Path, name: str, nodes: Mapping[str, Any], adopted: Mapping[str, dict[str, Any]]
) -> Config:
    path = directory / _TOML
    if path.exists():
        raise AlreadyThere(f"{path} is already there", hint=f"flightmode check --config {path}")
    given = {
        "cluster": {"name": name, **adopted.get("cluster", {})},
        "nodes": nodes,
        "postgres": adopted.get("postgres", {}),
        "provision": adopted.get("provision", {}),
    }
    text = sample(given)
    config = parse(text, name="the settings given")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(text)
    return config


def _certificates(directory: Path, config: Config, *, renew: bool) -> None:
    """The authority is made once; it issues those of nodes, applications' hosts and operator."""
    home = directory / "ca"
    if renew or (home / "ca.key").exists():
        authority = Authority.load(home)
    else:
        authority = Authority.create(config.cluster.name)
        authority.save(home)
    for name, node in config.nodes.items():
        authority.issue_node(name, [node.host]).save(directory / "nodes" / name / "tls", "node")
    for name in config.provision.apps:
        authority.issue_client(name).save(directory / "apps" / name / "tls", "client")
    authority.issue_client(OPERATOR).save(directory / "operator", "client")


def _share(directory: Path, config: Config) -> None:
    """The same file and the same passwords for every node."""
    shared = directory / "secrets"
    make_secrets(shared)
    for name in config.nodes:
        home = directory / "nodes" / name
        shutil.copytree(shared, home / "secrets", dirs_exist_ok=True)
        shutil.copy(directory / _TOML, home / _TOML)


def _next_steps(directory: Path, config: Config) -> list[str]:
    path = directory / _TOML
    nodes = ", ".join(config.nodes)
    return [
        f"look at {path}, then: flightmode check --file-only --config {path}",
        f"if you change a node's name or host before its first provision: flightmode init "
        f"{directory} --renew; from then on only flightmode node replace does that",
        f"bring {nodes} to it, as bare Debian hosts: flightmode provision --config {path} "
        f"(or by hand: each host gets its part of {directory}/nodes/ as /etc/flightmode/)",
        f"look at it at any time: flightmode status --config {path}",
    ]
