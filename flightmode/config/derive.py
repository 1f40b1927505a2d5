"""What other rooms need, made from the settings."""

from dataclasses import dataclass
from pathlib import Path

from flightmode.config.schema import Config
from flightmode.model.member import Node, NodeKind
from flightmode.model.policy import Policy

_PLACE = "{node}"


@dataclass(frozen=True, slots=True)
class Locations:
    """The paths of one node."""

    data_dir: Path
    socket_dir: Path
    tls_dir: Path
    secrets_dir: Path
    run_dir: Path
    state_dir: Path

    @property
    def heartbeat_key(self) -> Path:
        """What heartbeats are signed with."""
        return self.secrets_dir / "heartbeat"

    @property
    def fence_socket(self) -> Path:
        """Where the fence listens for the agent."""
        return self.run_dir / "fence.sock"

    @property
    def postgres_log(self) -> Path:
        """What Postgres says; it outlives a reboot."""
        return self.state_dir / "postgres.log"


def locations_of(config: Config, node: str) -> Locations:
    """The paths with `{node}` filled in."""

    def here(path: Path) -> Path:
        return Path(str(path).replace(_PLACE, node))

    return Locations(
        data_dir=here(config.postgres.data_dir),
        socket_dir=here(config.postgres.socket_dir),
        tls_dir=here(config.tls.directory),
        secrets_dir=here(config.secrets.directory),
        run_dir=here(config.paths.run_dir),
        state_dir=here(config.paths.state_dir),
    )


def nodes_of(config: Config) -> tuple[Node, ...]:
    """The nodes, in the order of the file."""
    return tuple(
        Node(name, each.kind, each.host, each.postgres_port, each.api_port, each.heartbeat_port)
        for name, each in config.nodes.items()
    )


def bootstrap_of(config: Config) -> str:
    """The database node that creates the database: as set, else the first one."""
    databases = (n for n, each in config.nodes.items() if each.kind is NodeKind.DATABASE)
    return config.cluster.bootstrap or next(databases)


def etcd_endpoints(config: Config) -> tuple[str, ...]:
    """Every etcd member's client address, `https://host:port`."""
    return tuple(f"https://{bracketed(n.host)}:{n.etcd_client_port}" for n in config.nodes.values())


def api_url(config: Config, node: str) -> str:
    """Where the API of that node answers."""
    settings = config.nodes[node]
    return f"https://{bracketed(settings.host)}:{settings.api_port}"


def bracketed(host: str) -> str:
    """An IPv6 address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def policy_of(config: Config) -> Policy:
    """What decisions may depend on."""
    return Policy(
        nodes=nodes_of(config),
        bootstrap=bootstrap_of(config),
        pg_major=config.cluster.postgres_major,
        **config.timing.model_dump(),
        **config.guards.model_dump(),
    )


def parameters_of(config: Config) -> tuple[tuple[str, str], ...]:
    """The user's settings of PostgreSQL, as text."""
    return tuple((name, _as_setting(value)) for name, value in config.postgres.parameters.items())


def _as_setting(value: str | bool | float) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
