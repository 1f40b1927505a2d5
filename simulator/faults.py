"""What goes wrong in a run, and when: a list of values, drawn from the seed or written by hand."""

from collections.abc import Callable
from dataclasses import dataclass

from flightmode.model.cluster import ClusterState, RequestKind
from flightmode.store import codec, keys
from flightmode.store.port import Op, Put
from simulator.history import Awoke
from simulator.node import CLUSTER, SimNode
from simulator.postgres import PRIMARY
from simulator.store import UNTIL_OVERTAKEN_S, Moods
from simulator.world import APP, DATABASES, NODES, World

# So long after a swap in doubt its leader still sees the store.
_A_LOOK_S = 0.15
_SOON_S = 0.01
_A_WHILE_S = 2.5
# A machine that stood still for so long must not go on as if it had not (S1).
_JUMP_S = 1.0
# A link gets slower in so many steps.
_STEPS = 20
# So soon after a machine goes on its fence has seen the clocks.
_AWAKE_S = 0.2


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong at `at_s`, and lasts for `lasts_s`."""

    at_s: float
    kind: str
    node: str = ""
    """A node, or "leader" or "standby": whoever it is in that moment."""
    lasts_s: float = 0.0
    other: str = ""
    amount: float = 0.0

    def __str__(self) -> str:
        words = [self.kind, self.node, self.other]
        lasting = f" for {self.lasts_s:.1f} s" if self.lasts_s else ""
        amount = f" ({self.amount:+.2f})" if self.amount else ""
        return " ".join(word for word in words if word) + amount + lasting


def _said(put: Put) -> tuple[str, str]:
    state = codec.load(ClusterState, put.value)
    return state.leader, state.mode


class Faults:
    """Lets them happen, and undoes them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._undo: list[Callable[[], object]] = []

    def plan(self, faults: tuple[Fault, ...]) -> None:
        loop = self._world.loop
        for fault in faults:
            loop.call_later(max(0.0, fault.at_s - loop.time()), self.happen, fault)

    def happen(self, fault: Fault) -> None:
        node = self.who(fault.node)
        self._world.tell("FAULT", str(fault).replace(fault.node, node) if node else str(fault))
        act = getattr(self, f"_{fault.kind.replace(' ', '_')}")
        act(fault, node)

    def heal(self) -> None:
        """Everything works again."""
        for each in list(self._undo):
            each()
        world = self._world
        world.network.repair_all()
        world.etcd.moods = Moods()
        world.etcd.hold = lambda _: None
        world.etcd.held = None
        world.etcd.down.clear()
        world.weather.copy_fails = world.weather.start_fails = 0.0
        world.weather.promote_slow = world.weather.recovery_slow = 0.0
        world.weather.slow_flush = world.weather.checkpointer_busy = 0.0
        for node in world.nodes.values():
            node.host.thaw(clock_stood=False)
            node.feed()
            node.power_on()
            node.start_agent()
        world.etcd.look()
        world.tell("FAULT", "everything is healed")

    def who(self, name: str) -> str:
        world = self._world
        leader = DATABASES[0] if world.state is None else world.state.leader
        return {"leader": leader, "standby": self._standby_of(leader)}.get(name, name)

    def _standby_of(self, leader: str) -> str:
        """Of two the one that counts."""
        state = self._world.state
        counted = () if state is None else state.sync
        return next(each for each in (*counted, *self._world.policy.databases) if each != leader)

    def _for(self, fault: Fault, undo: Callable[[], object]) -> None:
        """Undo it after its time, or at the healing."""

        def once() -> None:
            if once in self._undo:
                self._undo.remove(once)
                undo()

        self._undo.append(once)
        if fault.lasts_s:
            self._world.loop.call_later(fault.lasts_s, once)

    def _soon(self, delay_s: float, fault: Fault) -> None:
        """What follows from another fault; not after the healing."""
        self._undo.append(self._world.loop.call_later(delay_s, self.happen, fault).cancel)

    # ------------------------------------------------------------------ each kind

    def _kill_postgres(self, fault: Fault, node: str) -> None:
        server = self._world.nodes[node].server
        if server is not None:
            server.kill_postmaster()

    def _power(self, fault: Fault, node: str) -> None:
        sim = self._world.nodes[node]
        if not sim.host.up:
            return
        sim.power_off()
        self._world.etcd.look()

        def back() -> None:
            sim.power_on()
            self._world.etcd.look()

        self._for(fault, back)

    def _cut(self, fault: Fault, node: str) -> None:
        """Full, from everybody; or of one pair; `one way` in one direction of it."""
        others = [self.who(fault.other)] if fault.other else [*NODES, APP]
        self._cut_links([(node, each) for each in others if each != node], fault, both=True)

    def _one_way(self, fault: Fault, node: str) -> None:
        others = [self.who(fault.other)] if fault.other else [*NODES, APP]
        self._cut_links([(node, each) for each in others if each != node], fault, both=False)

    def _cut_links(self, pairs: list[tuple[str, str]], fault: Fault, *, both: bool) -> None:
        network = self._world.network
        links = [*pairs, *((b, a) for a, b in pairs)] if both else pairs
        for link in links:
            network.cut(*link)

        def repair() -> None:
            for link in links:
                network.repair(*link)

        self._for(fault, repair)

    def _slow_link(self, fault: Fault, node: str) -> None:
        slow = self._world.network.slow
        slow[node] = fault.amount
        self._for(fault, lambda: slow.pop(node, None))

    def _slower_link(self, fault: Fault, node: str) -> None:
        """By and by: from nothing to `amount`, and then well again at once."""
        slow, loop = self._world.network.slow, self._world.loop
        slow[node] = 0.0

        def grow() -> None:
            if node in slow:
                slow[node] += fault.amount / _STEPS
                loop.call_later(fault.lasts_s / _STEPS, grow)

        grow()
        self._for(fault, lambda: slow.pop(node, None))

    def _double_packets(self, fault: Fault, node: str) -> None:
        doubled = self._world.network.doubled
        doubled[node] = fault.amount
        self._for(fault, lambda: doubled.pop(node, None))

    def _kill_agent(self, fault: Fault, node: str) -> None:
        sim = self._world.nodes[node]
        sim.kill_agent()
        self._for(fault, sim.start_agent)

    def _retime(self, fault: Fault, node: str) -> None:
        """Its agent starts anew with `timing.ttl_s = amount`, and later with the others'."""
        sim = self._world.nodes[node]

        def restart(ttl_s: float) -> None:
            sim.ttl_s = ttl_s
            sim.kill_agent()
            sim.start_agent()

        restart(fault.amount)
        self._for(fault, lambda: restart(self._world.policy.ttl_s))

    def _exchange(self, fault: Fault, node: str) -> None:
        """The others' flightmode.toml does not have it any more, one after the other; until later.

        Its own agent is not told, and goes on as before.
        """
        others = [each for name, each in self._world.nodes.items() if name != node]
        going = {node}

        def restart(sim: SimNode) -> None:
            sim.unknown = frozenset(going)
            sim.kill_agent()
            sim.start_agent()

        def stays() -> None:
            going.clear()
            for sim in others:
                restart(sim)

        for number, sim in enumerate(others):
            self._world.loop.call_later(number * fault.amount, restart, sim)
        self._for(fault, stays)

    def _hang_agent(self, fault: Fault, node: str) -> None:
        sim = self._world.nodes[node]
        sim.hang_agent()
        self._for(fault, sim.resume_agent)

    def _starve(self, fault: Fault, node: str) -> None:
        sim = self._world.nodes[node]
        sim.starve()
        self._for(fault, sim.feed)

    def _hang_fence(self, fault: Fault, node: str) -> None:
        """SIGSTOP for the fence alone."""
        fence = self._world.nodes[node].fence
        if fence is not None:
            fence.hung = True
            self._for(fault, self._world.nodes[node].feed)

    def _kill_fence(self, fault: Fault, node: str) -> None:
        fence = self._world.nodes[node].fence
        if fence is not None and self._world.nodes[node].host.up:
            fence.die(fault.lasts_s)

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

    def _hang_postmaster(self, fault: Fault, node: str) -> None:
        """SIGSTOP for the postmaster alone."""
        self._sicken(fault, node, "hung")

    def _stall_disk(self, fault: Fault, node: str) -> None:
        """Nothing that is written gets to the disk: not of Postgres, and not of etcd beside it."""
        host, etcd = self._world.hosts[node], self._world.etcd
        self._sicken(fault, node, "stalled")
        host.stalled = True
        etcd.look()

        def back() -> None:
            host.stalled = False
            etcd.look()

        self._for(fault, back)

    def _fill_disk(self, fault: Fault, node: str) -> None:
        server = self._world.nodes[node].server
        if server is not None:
            server.full_since_s = self._world.loop.time()
            self._for(fault, lambda: setattr(server, "full_since_s", None))

    def _sicken(self, fault: Fault, node: str, how: str) -> None:
        server = self._world.nodes[node].server
        if server is not None:
            setattr(server, how, True)
            self._for(fault, lambda: setattr(server, how, False))

    def _lose_data(self, fault: Fault, node: str) -> None:
        """Of a standby whose leader has them: two losses at once are more than was promised."""
        world = self._world
        leader = None if world.state is None else world.servers[world.state.leader]
        if leader is None or leader.name == node or leader.data is None:
            return
        if leader.state == PRIMARY and leader.host.up:
            world.servers[node].lose_data()

    def _lose_packets(self, fault: Fault, node: str) -> None:
        lossy = self._world.network.lossy
        lossy[node] = fault.amount
        self._for(fault, lambda: lossy.pop(node, None))

    def _mute(self, fault: Fault, node: str) -> None:
        """Its heartbeats get to nobody; everything else does, as behind a wrong firewall."""
        muted = self._world.heartbeats.muted
        muted[node] += 1
        self._for(fault, lambda: muted.subtract((node,)))

    def _forget_changes(self, fault: Fault, node: str) -> None:
        """etcd is compacted: whoever watches from further back has a gap."""
        keys_ = self._world.etcd.keys
        if keys_.revision > keys_.compacted:
            keys_.compact(keys_.revision)

    def leave_out(self, node: str, how: str) -> None:
        """From now on, and for good: it has no power, or reaches nobody."""
        self._world.tell("FAULT", f"{node} stays away: {how}")
        self.happen(Fault(0.0, how, node))

    def _freeze(self, fault: Fault, node: str) -> None:
        self._stand_still(fault, node, clock_stood=False)

    def _suspend(self, fault: Fault, node: str) -> None:
        """The guest's CLOCK_BOOTTIME does not count the time; unix time is set right after it."""
        self._stand_still(fault, node, clock_stood=True)

    def _stand_still(self, fault: Fault, node: str, *, clock_stood: bool) -> None:
        world = self._world
        host, sim = world.hosts[node], world.nodes[node]
        if not host.up or host.frozen:
            return
        host.freeze()
        armed = sim.fence is not None and sim.fence.armed
        world.etcd.look()

        def go_on() -> None:
            stood = clock_stood and host.frozen and host.stood_s() > _JUMP_S
            host.thaw(clock_stood=clock_stood)
            world.etcd.look()
            sim.feed()
            if stood and armed and sim.server is not None:
                before = sim.server.started
                world.loop.call_later(_AWAKE_S, self._awoke, sim, before, host.life)

        self._for(fault, go_on)

    def _awoke(self, sim: SimNode, started: int, life: int) -> None:
        """Whether the Postgres of before still runs by a permission of before.

        Not asked of one that was lifted: its standby may have been added since.
        """
        server, fence = sim.server, sim.fence
        if server is None or fence is None or fence.hung or sim.host.frozen:
            return
        same = server.started == started and sim.host.life == life
        runs = same and server.state == PRIMARY and not server.ending and fence.armed
        self._world.history.add(Awoke(self._world.loop.time(), sim.name, runs))

    def _jump(self, fault: Fault, node: str) -> None:
        world = self._world
        world.hosts[node].clock.wall_off_s += fault.amount
        fence = world.nodes[node].fence
        if fence is not None:
            fence.tick()

        def back() -> None:
            world.hosts[node].clock.wall_off_s -= fault.amount
            if fence is not None:
                fence.tick()

        self._for(fault, back)

    def _lose_slot(self, fault: Fault, node: str) -> None:
        for server in self._world.servers.values():
            slot = server.data.slots.get(node) if server.data else None
            if slot is not None:
                slot.lost = True
                if node in server.senders:
                    server.senders[node].end()

    def _ask(self, fault: Fault, node: str) -> None:
        kind = RequestKind(fault.other)
        self._world.ask(kind, node or None, for_s=fault.amount or 10.0)
