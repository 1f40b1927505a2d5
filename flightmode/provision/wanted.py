"""What a host shall have.  Pure: texts in, texts out."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from flightmode.config import Config, locations_of
from flightmode.config.derive import bootstrap_of
from flightmode.model.member import NodeKind
from flightmode.provision.units import (
    agent_unit,
    etcd_neighbours,
    etcd_unit,
    fence_unit,
    firewall_unit,
    proxy_socket,
    proxy_unit,
)

OWN_USER = "flightmode"
"""Runs etcd, the witness' agent and the proxy: a system user that owns nothing else."""
ETCD = "flightmode-etcd.service"
"""Of the type `notify`: a restart of it that is waited for ends when it answers again."""
FENCE = "flightmode-fence.service"
AGENT = "flightmode-agent.service"
FIREWALL = "flightmode-firewall.service"
PROXY = "flightmode-proxy.service"
PROXY_SOCKET = "flightmode-proxy.socket"
ETC = "/etc/flightmode"
TOML = f"{ETC}/flightmode.toml"
STATE = "/var/lib/flightmode"
UNITS = "/etc/systemd/system"
KERNEL = "/etc/sysctl.d/60-flightmode.conf"
LOGROTATE = "/etc/logrotate.d/flightmode"
ETCD_DROP_INS = f"{UNITS}/{ETCD}.d"


class Role(StrEnum):
    DATABASE = "database"
    WITNESS = "witness"
    APP = "app"


@dataclass(frozen=True, slots=True)
class Owned:
    """Who may do what with a file or directory."""

    mode: int
    owner: str
    """`user:group`."""


@dataclass(frozen=True, slots=True)
class File:
    """A file as it shall be."""

    path: str
    content: bytes
    owned: Owned
    restarts: tuple[str, ...] = ()
    """The units that read it only when they start."""
    judge: str = ""
    """A shell command that reads it from standard input, and fails where it is not right."""
    together: str = ""
    """Files of one such name are of use only with each other: they are put in place at once."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Everything about one host."""

    name: str
    host: str
    role: Role
    packages: tuple[str, ...]
    masked: tuple[str, ...]
    """Units of those packages that must never start: ours run these programs (R44)."""
    directories: Mapping[str, Owned]
    files: tuple[File, ...]
    units: tuple[str, ...]
    """To be enabled and running, in the order of their start.  A socket may wait: it can't listen
    where a proxy of before it does, and does so when that one ends."""
    ports: tuple[int, ...]
    """Where ours will listen: nobody else may."""
    kernel: Mapping[str, str] = field(default_factory=dict)
    """Its settings, as sysctl(8) has them."""
    data_dir: str = ""
    """Of PostgreSQL; empty where there is none."""
    socket_dir: str = ""
    bootstraps: bool = False
    """A new cluster is made here, and nowhere else."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What `flightmode init` made for one host: paths below /etc/flightmode, and their content."""

    files: Mapping[str, bytes]


def wanted(config: Config, name: str, bundle: Bundle) -> Wanted:
    """What this node, or application's host, shall have."""
    if name in config.provision.apps:
        return _app(config, name, bundle)
    return _node(config, name, bundle)


def _kernel(config: Config, *, database: bool) -> dict[str, str]:
    """A query that asks for too much memory gets an error, instead of PostgreSQL a kill -9; and
    what waits to be written is written soon, since every fsync, also etcd's, waits for it.

    Source: PostgreSQL's manual, "Linux Memory Overcommit"; the kernel's "sysctl/vm".
    """
    if not config.provision.tune_kernel:
        return {}
    memory = {"vm.overcommit_memory": "2", "vm.overcommit_ratio": "95"} if database else {}
    return {
        **memory,
        "vm.dirty_background_bytes": str(64 << 20),
        "vm.dirty_bytes": str(256 << 20),
    }


def _node(config: Config, name: str, bundle: Bundle) -> Wanted:
    me = config.nodes[name]
    database = me.kind is NodeKind.DATABASE
    user = config.postgres.user if database else OWN_USER
    major = config.cluster.postgres_major
    own = Owned(0o600, f"{user}:{user}")
    units = _units_of_a_node(config, name, user, database=database)
    agent = (AGENT,)
    files = [
        *_unit_files(units),
        File(f"{ETCD_DROP_INS}/neighbours.conf", etcd_neighbours(config).encode(), _PUBLIC),
        File(
            f"{ETC}/firewall.nft",
            firewall(config, name).encode(),
            _PUBLIC,
            (FIREWALL,),
            judge="nft -c -f -",
        ),
        *_brought(bundle, own, agent),
        *_copies_for_etcd(bundle),
    ]
    kernel = _kernel(config, database=database)
    if kernel:
        lines = "".join(f"{key} = {value}\n" for key, value in kernel.items())
        files.append(File(KERNEL, f"# Made by `flightmode provision`.\n{lines}".encode(), _PUBLIC))
    ports = [me.etcd_client_port, me.etcd_peer_port, me.api_port, me.heartbeat_port]
    packages = ["etcd-server", "nftables", "python3", "python3-venv"]
    masked = ["etcd.service"]
    directories = _directories(user)
    if database:
        files.append(File(LOGROTATE, rotation(config, name).encode(), _PUBLIC))
        packages += [f"postgresql-{major}", "logrotate"]
        masked.append("postgresql.service")
        ports.append(me.postgres_port)
        # Where Debian keeps data; a directory elsewhere is its owner's business.
        above = locations_of(config, name).data_dir.parent
        if above.is_relative_to("/var/lib/postgresql"):
            directories[str(above)] = Owned(0o755, f"{user}:{user}")
    role = Role.DATABASE if database else Role.WITNESS
    return Wanted(
        name,
        me.host,
        role,
        tuple(packages),
        tuple(masked),
        directories,
        tuple(files),
        tuple(units),
        tuple(ports),
        kernel,
        str(locations_of(config, name).data_dir) if database else "",
        str(locations_of(config, name).socket_dir) if database else "",
        bootstraps=name == bootstrap_of(config),
    )


def _directories(user: str) -> dict[str, Owned]:
    return {
        ETC: Owned(0o755, "root:root"),
        f"{ETC}/tls": Owned(0o700, f"{user}:{user}"),
        f"{ETC}/secrets": Owned(0o700, f"{user}:{user}"),
        f"{ETC}/etcd-tls": Owned(0o700, f"{OWN_USER}:{OWN_USER}"),
        STATE: Owned(0o755, f"{user}:{user}"),
        f"{STATE}-etcd": Owned(0o700, f"{OWN_USER}:{OWN_USER}"),
        ETCD_DROP_INS: Owned(0o755, "root:root"),
    }


def _units_of_a_node(config: Config, name: str, user: str, *, database: bool) -> dict[str, str]:
    fence = {FENCE: fence_unit(config, name)} if database else {}
    return {
        FIREWALL: firewall_unit(),
        ETCD: etcd_unit(config, name, OWN_USER),
        **fence,
        AGENT: agent_unit(name, user, fenced=database),
    }


def _app(config: Config, name: str, bundle: Bundle) -> Wanted:
    own = Owned(0o600, f"{OWN_USER}:{OWN_USER}")
    socket = proxy_socket(config)
    # Its socket first: a proxy that runs already listens itself.
    units = {} if socket is None else {PROXY_SOCKET: socket}
    units |= {PROXY: proxy_unit(config, OWN_USER)}
    files = [
        *_unit_files(units),
        *_brought(bundle, own, (PROXY,)),
    ]
    directories = {
        ETC: Owned(0o755, "root:root"),
        f"{ETC}/tls": Owned(0o700, f"{OWN_USER}:{OWN_USER}"),
        f"{ETC}/secrets": Owned(0o700, f"{OWN_USER}:{OWN_USER}"),
    }
    return Wanted(
        name,
        config.provision.apps[name].host,
        Role.APP,
        ("python3", "python3-venv"),
        (),
        directories,
        tuple(files),
        tuple(units),
        (config.proxy.port,),
    )


_PUBLIC = Owned(0o644, "root:root")


def _unit_files(units: Mapping[str, str]) -> list[File]:
    """A fence is never restarted for a new unit file: Postgres would stop with it.  A firewall has
    nothing to gain from it, and a socket that listens elsewhere comes with other settings of the
    proxy, which is restarted then."""
    never = (FENCE, FIREWALL, PROXY_SOCKET)
    return [
        File(
            f"{UNITS}/{name}",
            text.encode(),
            _PUBLIC,
            () if name in never else (name,),
        )
        for name, text in units.items()
    ]


def _brought(bundle: Bundle, own: Owned, restarts: tuple[str, ...]) -> list[File]:
    """A key without its certificate is a host that nobody can connect to."""
    return [
        File(f"{ETC}/{path}", content, own, restarts, together="tls" if _is_tls(path) else "")
        for path, content in bundle.files.items()
    ]


def _copies_for_etcd(bundle: Bundle) -> list[File]:
    """etcd runs as a user of its own, and a key is readable by its owner only."""
    own = Owned(0o600, f"{OWN_USER}:{OWN_USER}")
    return [
        File(f"{ETC}/etcd-{path}", content, own, (ETCD,), together="etcd-tls")
        for path, content in bundle.files.items()
        if _is_tls(path)
    ]


def _is_tls(path: str) -> bool:
    return path.startswith("tls/")


def rotation(config: Config, name: str) -> str:
    """Of Postgres' log; everything else speaks to journald.

    Copied and cut: Postgres keeps the file open for its whole life, at its end (O_APPEND).
    """
    user = config.postgres.user
    return (
        "# Made by `flightmode provision`.\n"
        f"{locations_of(config, name).postgres_log} {{\n"
        f"    su {user} {user}\n"
        "    daily\n"
        "    maxsize 100M\n"
        "    rotate 14\n"
        "    copytruncate\n"
        "    compress\n"
        "    delaycompress\n"
        "    missingok\n"
        "    notifempty\n"
        "}\n"
    )


def firewall(config: Config, name: str) -> str:
    """Our ports are open to who needs them; other ports are not our business."""
    me = config.nodes[name]
    nodes = [node.host for node in config.nodes.values()]
    apps = [app.host for app in config.provision.apps.values()]
    rules = [
        _admit((me.etcd_client_port,), nodes + apps),
        _admit((me.etcd_peer_port, me.heartbeat_port), nodes),
        _admit((me.heartbeat_port,), nodes, "udp"),
    ]
    closed = [me.etcd_client_port, me.etcd_peer_port, me.heartbeat_port]
    if me.kind is NodeKind.DATABASE:
        rules.append(_admit((me.postgres_port,), [*nodes, *apps, *config.provision.clients]))
        closed.append(me.postgres_port)
    return (
        "# Made by `flightmode provision`.  The API's port stays open: its certificates guard it.\n"
        "table inet flightmode_firewall\n"
        "delete table inet flightmode_firewall\n"
        "table inet flightmode_firewall {\n"
        "  chain input {\n"
        "    type filter hook input priority filter; policy accept;\n"
        '    iif "lo" accept\n'
        "    ct state established,related accept\n"
        + "".join(f"    {rule}\n" for group in rules for rule in group)
        + f"    tcp dport {{ {', '.join(map(str, closed))} }} drop\n"
        f"    udp dport {me.heartbeat_port} drop\n"
        "  }\n"
        "}\n"
    )


def _admit(ports: tuple[int, ...], hosts: list[str], over: str = "tcp") -> list[str]:
    listed = ", ".join(map(str, ports))
    rules = []
    for family, colons in (("ip", False), ("ip6", True)):
        chosen = list(dict.fromkeys(host for host in hosts if (":" in host) is colons))
        if chosen:
            rules.append(
                f"{family} saddr {{ {', '.join(chosen)} }} {over} dport {{ {listed} }} accept"
            )
    return rules
