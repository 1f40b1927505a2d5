"""What goes wrong with etcd: members, answers, swaps in doubt, and what it holds."""

from flightmode.model.cluster import ClusterState
from flightmode.store import codec, keys
from flightmode.store.memory import MemoryCluster
from flightmode.store.port import Op, Put, Snapshot
from simulator.fault import Fault, Undoing
from simulator.node import CLUSTER
from simulator.store import UNTIL_OVERTAKEN_S, Moods
from simulator.world import NODES, SWITCHOVER, World

# So long after a swap in doubt its leader still sees the store.
_A_LOOK_S = 0.15
_SOON_S = 0.01
_A_WHILE_S = 2.5


def _said(put: Put) -> tuple[str, str]:
    state = codec.load(ClusterState, put.value)
    return state.leader, state.mode


class StoreFaults(Undoing):
    """Those of etcd, of what is on its way to it, and of who hangs just then."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._backup: Snapshot | None = None

    def _etcd_member(self, fault: Fault, node: str) -> None:
        self._stop_members(fault, {node})

    def _etcd_all(self, fault: Fault, node: str) -> None:
        self._stop_members(fault, set(NODES))

    def _stop_members(self, fault: Fault, members: set[str]) -> None:
        etcd = self._world.etcd
        etcd.down |= members
        etcd.look()

        def back() -> None:
            etcd.down -= members
            etcd.look()

        self._for(fault, back)

    def _junk(self, fault: Fault, node: str) -> None:
        """Something that no agent of this version can read is written there, and stays."""
        record = b'{"v":2,"name":"ber","kind":"of a newer version"}'
        self._world.etcd.keys.commit((), (Put(f"{keys.prefix(CLUSTER)}{fault.other}", record),))

    def _wipe_etcd(self, fault: Fault, node: str) -> None:
        """All of etcd loses its data and is made anew; later it gets back what it had.

        Agents refuse a store that has gone back, so each of them is started anew.
        """
        before = self._world.etcd.keys
        self._world.begin_with(MemoryCluster())
        self._for(fault, lambda: self._world.begin_with(before))

    def _back_up_etcd(self, fault: Fault, node: str) -> None:
        """What it holds now, for a restore later."""
        self._backup = self._world.etcd.keys.snapshot("")

    def _restore_etcd(self, fault: Fault, node: str) -> None:
        """All of etcd gets back what it held at the backup; later what it held just now."""
        assert self._backup is not None
        before, restored = self._world.etcd.keys, MemoryCluster()
        puts = (Put(entry.key, entry.value) for entry in self._backup.entries.values())
        restored.commit((), tuple(puts))
        self._world.begin_with(restored)
        self._for(fault, lambda: self._world.begin_with(before))

    def _store_mood(self, fault: Fault, node: str) -> None:
        """Answers get lost, and what they were about is done at once, late, or never."""
        etcd = self._world.etcd
        etcd.moods = Moods(
            unknown=fault.amount, late=0.5, late_s=10.0, silent=fault.amount / 2, slow_s=0.05
        )
        self._for(fault, lambda: setattr(etcd, "moods", Moods()))

    def _store_slow(self, fault: Fault, node: str) -> None:
        etcd = self._world.etcd
        etcd.moods = Moods(slow_s=fault.amount)
        self._for(fault, lambda: setattr(etcd, "moods", Moods()))

    def _hold_swap(self, fault: Fault, node: str) -> None:
        """The next swap of that leader to mode `other` is carried out `amount` seconds later.

        In the moment in which it was sent the leader is cut off.
        """
        etcd, key = self._world.etcd, keys.state(CLUSTER)

        def hold(ops: tuple[Op, ...]) -> float | None:
            for op in ops:
                if isinstance(op, Put) and op.key == key and (node, fault.other) == _said(op):
                    etcd.hold = lambda _: None
                    self.happen(Fault(0.0, "cut", node, fault.lasts_s))
                    return fault.amount
            return None

        etcd.hold = hold

    def _doubt_swap(self, fault: Fault, node: str) -> None:
        """The next swap of that leader to mode `other` is carried out `amount` seconds later.

        The leader hears at once that nothing is known, has a moment to look, and is cut off.
        """
        self._doubt(fault, node)

    def _doubt_swap_alone(self, fault: Fault, node: str) -> None:
        """And in that moment its standby's Postgres dies."""
        self._doubt(fault, node, Fault(0.0, "kill postgres", self._standby_of(node)))

    def _doubt_swap_and_etcd(self, fault: Fault, node: str) -> None:
        """And in that moment all of etcd is gone for a while."""
        self._doubt(fault, node, Fault(0.0, "etcd all", "", _A_WHILE_S), soon_s=0.0)

    def _doubt_swap_and_die(self, fault: Fault, node: str) -> None:
        """And in that moment its agent is killed, and started again."""
        self._doubt(fault, node, Fault(0.0, "kill agent", node, _SOON_S))

    def _doubt(
        self, fault: Fault, node: str, beside: Fault | None = None, soon_s: float = _SOON_S
    ) -> None:
        etcd, key = self._world.etcd, keys.state(CLUSTER)

        def hold(ops: tuple[Op, ...]) -> float | None:
            for op in ops:
                if isinstance(op, Put) and op.key == key and (node, fault.other) == _said(op):
                    etcd.hold = lambda _: None
                    cut = Fault(0.0, "cut", node, fault.lasts_s)
                    self._soon(_A_LOOK_S, cut)
                    if beside is not None:
                        self._soon(soon_s, beside)
                    return fault.amount
            return None

        etcd.hold = hold

    def _strike_target(self, fault: Fault, node: str) -> None:
        """`other` happens to whom the next switchover gives the term to, as soon as it has it."""
        etcd, key, world = self._world.etcd, keys.state(CLUSTER), self._world

        def hold(ops: tuple[Op, ...]) -> float | None:
            for op in ops:
                if isinstance(op, Put) and op.key == key and self._gives_away(op):
                    etcd.hold = lambda _: None
                    struck = Fault(0.0, fault.other, _said(op)[0], fault.lasts_s)
                    world.loop.call_later(fault.amount, self.happen, struck)
            return None

        etcd.hold = hold

    def _gives_away(self, put: Put) -> bool:
        before, after = self._world.state, codec.load(ClusterState, put.value)
        changes = before is not None and before.leader != after.leader
        return changes and after.reason.startswith(SWITCHOVER)

    def _stick_promotion(self, fault: Fault, node: str) -> None:
        """Postgres there does not come out of recovery; the next time it does."""
        server = self._world.servers[node]
        server.stuck = True
        self._for(fault, server.unstick)

    def _wedge_promotion(self, fault: Fault, node: str) -> None:
        """Postgres there does not come out of recovery, until it is started again."""
        self._world.servers[node].wedged = True

    def _cut_promotion(self, fault: Fault, node: str) -> None:
        """It dies when the signal file is gone and the new timeline not yet begun."""
        self._world.servers[node].cut_short = True

    def _hang_at_resume(self, fault: Fault, node: str) -> None:
        """The leader's agent hangs as soon as it has sent the swap that ends a pause."""
        etcd, key = self._world.etcd, keys.state(CLUSTER)

        def hold(ops: tuple[Op, ...]) -> float | None:
            for op in ops:
                if isinstance(op, Put) and op.key == key and self._resumes(op):
                    etcd.hold = lambda _: None
                    self._soon(0.0, Fault(0.0, "hang agent", node, 12.0))
            return None

        etcd.hold = hold

    def _resumes(self, put: Put) -> bool:
        before = self._world.state
        paused = before is not None and before.pause is not None
        return paused and codec.load(ClusterState, put.value).pause is None

    def _overtaken_swap(self, fault: Fault, node: str) -> None:
        """The next swap of that leader to mode `other` is held up until its next swap arrives.

        Its agent dies as it has sent it, and is started again; the leader is cut off from
        everybody as soon as both have been carried out.
        """
        etcd, key = self._world.etcd, keys.state(CLUSTER)

        def hold(ops: tuple[Op, ...]) -> float | None:
            for op in ops:
                if isinstance(op, Put) and op.key == key and (node, fault.other) == _said(op):
                    etcd.hold = lambda _: None
                    self._soon(0.0, Fault(0.0, "kill agent", node, _SOON_S))
                    return UNTIL_OVERTAKEN_S
            return None

        etcd.hold = hold
        etcd.overtaken = lambda: self.happen(Fault(0.0, "cut", node, fault.lasts_s))

    def _forget_changes(self, fault: Fault, node: str) -> None:
        """etcd is compacted: whoever watches from further back has a gap."""
        keys_ = self._world.etcd.keys
        if keys_.revision > keys_.compacted:
            keys_.compact(keys_.revision)
