"""The command line of the fence, as a value."""

from pathlib import Path

from flightmode.cli.options import Place
from flightmode.errors import RequestWrong
from flightmode.model.member import NodeKind

BINARY = "flightmode-fence"
_CGROUPS = Path("/sys/fs/cgroup")
_TABLE_LETTERS = 31


def fence_argv(place: Place, node: str, *, root: bool, postgres_uid: int | None) -> list[str]:
    """How the node's fence is started.  Raises RequestWrong for a witness: it has no Postgres.

    What only root may do (cgroup, nftables, watchdog, another user) is left out for others.
    """
    config, locations = place.config, place.locations(node)
    settings = config.nodes[node]
    if settings.kind is NodeKind.WITNESS:
        raise RequestWrong(f"{node} is a witness: it has no Postgres to hold")
    argv = [BINARY, "--socket", str(locations.fence_socket), "--node", node]
    if not root:
        return argv
    label = f"flightmode-{config.cluster.name}-{node}"
    if postgres_uid is not None:
        argv += ["--postgres-uid", str(postgres_uid)]
    if config.fence.cgroup:
        argv += ["--cgroup", str(_CGROUPS / label)]
    if config.fence.nft:
        table = f"flightmode-{node}"[:_TABLE_LETTERS]
        argv += ["--nft-table", table, "--nft-port", str(settings.postgres_port)]
    if config.fence.watchdog is not None:
        argv += ["--watchdog", str(config.fence.watchdog)]
    return argv
