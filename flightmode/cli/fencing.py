"""The command line of the fence, as a value."""

from pathlib import Path

from flightmode.cli.options import Place
from flightmode.errors import RequestWrong
from flightmode.model.member import NodeKind

BINARY = "flightmode-fence"
CGROUPS = Path("/sys/fs/cgroup")
_TABLE_LETTERS = 31


def fence_argv(
    place: Place,
    node: str,
    *,
    root: bool,
    postgres_uid: int | None,
    cgroups: Path = CGROUPS,
    watchdog: Path | None = None,
) -> list[str]:
    """How the node's fence is started.  Raises RequestWrong for a witness: it has no Postgres.

    What only root may do (cgroup, nftables, watchdog, another user) is left out for others.
    `cgroups`: below which directory Postgres gets its own.  `watchdog`: to be used if it is there
    and flightmode.toml names none.
    """
    config, locations = place.config, place.locations(node)
    settings = config.nodes[node]
    if settings.kind is NodeKind.WITNESS:
        raise RequestWrong(f"{node} is a witness: it has no Postgres to hold")
    argv = [BINARY, "--socket", str(locations.fence_socket), "--node", node]
    if locations.heartbeat_key.exists():
        argv += ["--heartbeat-key", str(locations.heartbeat_key)]
    if not root:
        return argv
    label = f"flightmode-{config.cluster.name}-{node}"
    if postgres_uid is not None:
        argv += ["--postgres-uid", str(postgres_uid)]
    if config.fence.cgroup:
        argv += ["--cgroup", str(cgroups / label)]
    if config.fence.nft:
        table = f"flightmode-{node}"[:_TABLE_LETTERS]
        argv += ["--nft-table", table, "--nft-port", str(settings.postgres_port)]
    if watchdog is not None and not watchdog.exists():
        watchdog = None
    device = config.fence.watchdog or watchdog
    if device is not None:
        argv += ["--watchdog", str(device)]
    return argv


def cgroup_root() -> Path:
    """Where Postgres' own cgroup is to be: below the unit's, which systemd has delegated to us.

    Started by hand there is no unit, and it stands at the top.  Source: cgroups(7), and systemd's
    "Control Group APIs and Delegation".
    """
    own = Path("/proc/self/cgroup").read_text().splitlines()
    unit = next((line[4:] for line in own if line.startswith("0::/")), "")
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    top = next((Path(each[1]) for each in mounts if each[2] == "cgroup2"), CGROUPS)
    return top / unit if unit.endswith(".service") else top
