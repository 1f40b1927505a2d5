"""A PostgreSQL of Debian's that becomes node one: whether it does, and what forbids it.  Pure.

It is stopped for good before the cluster is made of it, so everything that would keep the cluster
from being made has to be found before (FM611: another node has data).
"""

from collections.abc import Sequence
from shlex import quote

from flightmode.config import Config
from flightmode.model.member import NodeKind
from flightmode.provision.facts import DebianCluster, Facts
from flightmode.provision.wanted import FENCE, Wanted


def taken_over(wanted: Wanted, facts: Facts) -> DebianCluster | None:
    """Debian's own cluster whose data directory is to be ours, as long as Debian may start it.

    Only where the cluster is made: elsewhere its data would be in the way of that.
    """
    if not wanted.bootstraps:
        return None
    may_start = (each for each in facts.clusters if each.active or each.start != "disabled")
    return next((each for each in may_start if each.data_dir == wanted.data_dir), None)


def obstacles(config: Config, looked: Sequence[tuple[Wanted, Facts]]) -> list[tuple[str, str]]:
    """Host and reason, for each that keeps a server from being taken over in this run."""
    for host, facts in looked:
        old = taken_over(host, facts)
        # A fence that runs has its data already: nothing is stopped any more.
        if old is not None and not facts.runs(FENCE):
            return [*_unseen(config, host, old, looked), *_with_data(host, old, looked)]
    return []


def _unseen(
    config: Config, host: Wanted, old: DebianCluster, looked: Sequence[tuple[Wanted, Facts]]
) -> list[tuple[str, str]]:
    seen = {each.name for each, _ in looked}
    databases = [n for n, each in config.nodes.items() if each.kind is NodeKind.DATABASE]
    left_out = ", ".join(name for name in databases if name not in seen)
    if not left_out:
        return []
    told = (
        f"has {old.unit} ({old.data_dir}), of which a cluster can only be made when every database "
        f"node is looked at too, and this leaves out {left_out}: `flightmode provision` without "
        f"--only; or, where there is a cluster already, move it away: `{away(old, old.data_dir)}`"
    )
    return [(host.name, told)]


def _with_data(
    host: Wanted, old: DebianCluster, looked: Sequence[tuple[Wanted, Facts]]
) -> list[tuple[str, str]]:
    return [
        (each.name, _in_its_way(host.name, old, each, facts))
        for each, facts in looked
        if each.name != host.name and each.data_dir and facts.has_data
    ]


def _in_its_way(first: str, old: DebianCluster, other: Wanted, facts: Facts) -> str:
    told = (
        f"has something in {other.data_dir}, and no cluster is made of the PostgreSQL on {first} "
        "while another node has data"
    )
    if facts.runs(FENCE):
        return (
            f"{told}; if it is that one's standby already, say on {first} that Debian is not to "
            f"start it: `echo disabled > /etc/postgresql/{old.major}/{old.name}/start.conf`"
        )
    its = next((each for each in facts.clusters if each.data_dir == other.data_dir), None)
    return f"{told}: move it away first, if nobody needs it: `{away(its, other.data_dir)}`"


def away(cluster: DebianCluster | None, data_dir: str) -> str:
    """A command for a person that deletes nothing."""
    stop = f"systemctl stop {cluster.unit} && " if cluster is not None and cluster.active else ""
    return f"{stop}mv -T {quote(data_dir)} {quote(f'{data_dir}.before')}"
