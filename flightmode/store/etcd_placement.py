"""Which node's member leads etcd, and how it is moved; the nodes' names for members' numbers."""

from collections.abc import Mapping

from flightmode.errors import StoreUnknown
from flightmode.model.placement import Placement
from flightmode.store.etcd_members import EtcdHealth, EtcdMembers


class EtcdPlacement:
    """Implements `port.Placing` over etcd's maintenance calls."""

    def __init__(self, members: EtcdMembers, nodes: Mapping[str, str]) -> None:
        """`nodes`: each endpoint's URL, and the name of the node that it is on."""
        self._members = members
        self._nodes = nodes

    async def look(self) -> Placement:
        well = await self._well()
        leaders = {one.leader_id for one in well.values()}
        if len(leaders) != 1:
            # None answers, or they disagree: an election is under way.
            return Placement(None)
        (leader_id,) = leaders
        leader = next((name for name, one in well.items() if one.id == leader_id), None)
        return Placement(leader, tuple(sorted(well)))

    async def move(self, node: str) -> None:
        target = (await self._well()).get(node)
        if target is None:
            raise StoreUnknown(f"the member of etcd on {node} does not answer")
        await self._members.move_leader(target.id)

    async def _well(self) -> dict[str, EtcdHealth]:
        found = await self._members.health()
        return {
            self._nodes[url]: one
            for url, one in found.items()
            if isinstance(one, EtcdHealth) and one.leader_id
        }
