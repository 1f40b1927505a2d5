"""What goes wrong in a run, and when: a list of values, drawn from the seed or written by hand."""

from flightmode.model.cluster import RequestKind
from simulator.fault import Fault
from simulator.history import Awoke
from simulator.node import SimNode
from simulator.postgres import PRIMARY
from simulator.store import Moods
from simulator.store_faults import StoreFaults
from simulator.world import APP, NODES

# A machine that stood still for so long must not go on as if it had not (S1).
_JUMP_S = 1.0
# A link gets slower in so many steps.
_STEPS = 20
# So soon after a machine goes on its fence has seen the clocks.
_AWAKE_S = 0.2


class Faults(StoreFaults):
    """Lets them happen, and undoes them."""

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

    def _end_agent(self, fault: Fault, node: str) -> None:
        """It is told to end, as for another version, which takes so long to begin."""
        sim = self._world.nodes[node]
        sim.end_agent()
        self._for(fault, sim.start_agent)

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

    def _namesake(self, fault: Fault, node: str) -> None:
        """Another machine, bare, is brought up under this node's name."""
        twin = self._world.twin(node)
        twin.start_agent()
        self._for(fault, twin.kill_agent)

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

    def _override_names(self, fault: Fault, node: str) -> None:
        """ALTER SYSTEM SET synchronous_standby_names = '', and a reload; RESET after its time."""
        server = self._world.servers[node]

        def reload(*, overruled: bool) -> None:
            server.overruled = overruled
            if server.state == PRIMARY:
                server.sessions.reload()

        reload(overruled=True)
        self._for(fault, lambda: reload(overruled=False))

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

    def _lose_all_data(self, fault: Fault, node: str) -> None:
        """Whoever else has them: only a person can go on from there."""
        self._world.servers[node].lose_data()

    def _lose_packets(self, fault: Fault, node: str) -> None:
        lossy = self._world.network.lossy
        lossy[node] = fault.amount
        self._for(fault, lambda: lossy.pop(node, None))

    def _mute(self, fault: Fault, node: str) -> None:
        """Its heartbeats get to nobody; everything else does, as behind a wrong firewall."""
        muted = self._world.heartbeats.muted
        muted[node] += 1
        self._for(fault, lambda: muted.subtract((node,)))

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
