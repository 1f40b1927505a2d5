//! Who serves and who waits: the servers and the queue of one user of one database.
//!
//! Intuition: a pool is a small table of servers and a queue of clients.  Everything that happens
//! to it is an event with a time; the answer is a list of acts for somebody who owns sockets.
//!
//! Rules
//! - strict FIFO among the clients that the same node can serve; the freed server is handed to
//!   the first of them at once;
//! - a server serves one client, and nobody while a cancel for it is under way;
//! - a server that was opened to a primary dies with that primary's term; one that was opened to
//!   a standby lives through its promotion, and is then the first to serve writers;
//! - after each event no client waits that an idle server could serve;
//! - nobody is told anything because a server died while nobody used it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::numbers::ByNumber;
use crate::route::{route, Route, Wish};
use crate::topology::{Change, NodeId, Topology};

pub mod operate;
mod servers;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(pub u64);

/// What a pool may do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Servers of one node, at most.
    pub size: usize,
    /// Servers of each node that are kept open, used or not.
    pub warm: usize,
    /// Logins to one node at a time.
    pub logins: usize,
    /// Clients that may wait.
    pub waiting: usize,
    /// Between a failed login and the next, in seconds.  News of the node end it at once.
    pub retry_s: f64,
    /// Who waits while all servers of its node serve others does so for so long at most; its own
    /// deadline is for the time without a server.
    pub full_s: f64,
    /// A client that has waited this long is told so, once.
    pub notice_after_s: f64,
    /// An idle server above `warm` is closed after this long.
    pub idle_s: f64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            size: 20,
            warm: 2,
            logins: 4,
            waiting: 10_000,
            retry_s: 0.1,
            full_s: f64::INFINITY,
            notice_after_s: 5.0,
            idle_s: 600.0,
        }
    }
}

/// Between a standby's refusal of a user or database and the next login there.
const DENIED_RETRY_S: f64 = 1.0;

/// What has to be done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Act {
    /// The client has the server now; `lag_s` if the data are older than it asked for.
    Grant {
        client: ClientId,
        server: ServerId,
        stale_s: Option<f64>,
    },
    /// Log in to the node; report by `connected` or `closed`.
    Connect { server: ServerId, node: NodeId },
    /// Close the socket at once.  The pool has forgotten the server.
    Close { server: ServerId },
    /// The client's server is gone: see its unit and the table in `hold`.
    Lost { client: ClientId, server: ServerId },
    /// The client has waited to its deadline and left the queue.
    Expired { client: ClientId },
    /// Tell the client that it waits behind this many, who hold all servers.
    Notice { client: ClientId, ahead: usize },
    /// The queue is full.
    Refuse { client: ClientId },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Idle,
    Busy(ClientId),
    /// Free, and a cancel may still strike.
    Shielded,
}

#[derive(Debug)]
struct Server {
    node: NodeId,
    state: State,
    /// The term in which the node was primary for this session; `None` for a standby's.
    primary_in: Option<u64>,
    cancels: u32,
    closing: bool,
    idle_since_s: f64,
}

#[derive(Debug)]
struct Waiter {
    client: ClientId,
    wish: Wish,
    since_s: f64,
    /// So long it may be without a node that serves, and until when that is.
    hold_s: f64,
    deadline_s: f64,
    look_at_s: f64,
    noticed: bool,
}

impl Waiter {
    /// Whether it has waited enough.  `queues`: for one of the servers that serve others.
    fn is_over(&mut self, queues: bool, full_s: f64, now_s: f64) -> bool {
        let full_at_s = self.since_s + full_s;
        if queues {
            self.deadline_s = now_s + self.hold_s;
            self.look_at_s = self.deadline_s.min(full_at_s);
            now_s >= full_at_s
        } else {
            self.look_at_s = self.deadline_s;
            now_s >= self.deadline_s
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Pool {
    limits: Limits,
    topology: Topology,
    servers: ByNumber<ServerId, Server>,
    /// How many of them each node has; asked for each client that has to wait.
    counts: BTreeMap<NodeId, usize>,
    /// The last one back is the first to go: its caches are warm.
    idle: BTreeMap<NodeId, Vec<ServerId>>,
    queue: VecDeque<Waiter>,
    retry_at_s: BTreeMap<NodeId, f64>,
    /// The primary will have none of our user or database: see `denied`.
    unwelcome: bool,
    paused: bool,
    next_server: u64,
    turn: usize,
}

impl Pool {
    pub fn new(limits: Limits, topology: Topology) -> Self {
        Self {
            limits,
            topology,
            servers: ByNumber::default(),
            counts: BTreeMap::new(),
            idle: BTreeMap::new(),
            queue: VecDeque::new(),
            retry_at_s: BTreeMap::new(),
            unwelcome: false,
            paused: false,
            next_server: 0,
            turn: 0,
        }
    }

    /// A client wants a server and waits for it: until `deadline_s` if there is none to wait for,
    /// as long as `full_s` if they serve others.
    pub fn checkout(
        &mut self,
        client: ClientId,
        wish: Wish,
        now_s: f64,
        deadline_s: f64,
    ) -> Vec<Act> {
        match self.grant(client, &wish) {
            Some(act) => vec![act],
            None => self.wait(client, wish, now_s, deadline_s),
        }
    }

    /// A client to which nothing could be granted: see `checkout`.
    pub fn wait(&mut self, client: ClientId, wish: Wish, now_s: f64, deadline_s: f64) -> Vec<Act> {
        let mut acts = Vec::new();
        if self.queue.len() >= self.limits.waiting {
            acts.push(Act::Refuse { client });
            return acts;
        }
        let node = route(&self.topology, &wish, self.turn).node();
        self.queue.push_back(Waiter {
            client,
            wish,
            since_s: now_s,
            hold_s: deadline_s - now_s,
            deadline_s,
            look_at_s: deadline_s.min(now_s + self.limits.full_s),
            noticed: false,
        });
        // Those before it have what can be opened for them, or will when it may be.
        if node.is_none_or(|node| self.count(node) < self.limits.size) {
            self.open(now_s, &mut acts);
        }
        acts
    }

    /// A client that waits has gone.
    pub fn leave(&mut self, client: ClientId) {
        self.queue.retain(|waiter| waiter.client != client);
    }

    /// A client gives its server back: no reply is owed, no transaction open, nothing pinned.
    pub fn checkin(&mut self, server: ServerId, now_s: f64) -> Vec<Act> {
        let mut acts = Vec::new();
        let Some(found) = self.servers.get_mut(&server) else {
            return acts;
        };
        if !matches!(found.state, State::Busy(_)) {
            return acts;
        }
        found.state = State::Shielded;
        self.rest(server, now_s, &mut acts);
        acts
    }

    /// A login is done.
    pub fn connected(&mut self, server: ServerId, now_s: f64) -> Vec<Act> {
        let mut acts = Vec::new();
        let Some(found) = self.servers.get(&server) else {
            return acts;
        };
        if found.state != State::Connecting {
            return acts;
        }
        self.retry_at_s.remove(&found.node);
        self.unwelcome = false;
        self.rest(server, now_s, &mut acts);
        self.open(now_s, &mut acts);
        acts
    }

    /// A login failed, or a socket was closed by its server or by the network.
    pub fn closed(&mut self, server: ServerId, now_s: f64) -> Vec<Act> {
        let mut acts = Vec::new();
        let Some(gone) = self.forget(server) else {
            return acts;
        };
        match gone.state {
            State::Busy(client) => acts.push(Act::Lost { client, server }),
            State::Connecting => {
                self.retry_at_s
                    .insert(gone.node, now_s + self.limits.retry_s);
            }
            State::Idle | State::Shielded => (),
        }
        self.open(now_s, &mut acts);
        acts
    }

    /// A login failed, and will fail again: the server knows no such user or database.
    ///
    /// From then on the primary is asked only for somebody who waits: nothing is kept warm that
    /// may never be, and each failure costs the server a process and a line in its log.  A
    /// standby may not have heard yet of what the primary knows, so it is asked again, seldom.
    pub fn denied(&mut self, server: ServerId, now_s: f64) -> Vec<Act> {
        let Some(node) = self.servers.get(&server).map(|found| found.node) else {
            return Vec::new();
        };
        let is_primarys = self.topology.writable() == Some(node);
        self.unwelcome |= is_primarys;
        let acts = self.closed(server, now_s);
        if !is_primarys {
            self.retry_at_s.insert(node, now_s + DENIED_RETRY_S);
        }
        acts
    }

    /// Whether `denied` was the last that the primary said.
    pub fn is_unwelcome(&self) -> bool {
        self.unwelcome
    }

    /// News of the cluster.  BEFORE anything else is done with the acts, the `Close` among them
    /// must be: a session of an old term may still answer.
    pub fn on_topology(&mut self, news: Topology, now_s: f64) -> (Change, Vec<Act>) {
        let change = self.topology.accept(news);
        let mut acts = Vec::new();
        if change != Change::Ignored {
            self.retry_at_s.clear();
            // Another primary may know the user and the database.
            self.unwelcome &= change != Change::NewTerm;
            self.close_void(&mut acts);
            self.serve(&mut acts);
            self.open(now_s, &mut acts);
        }
        (change, acts)
    }

    /// A session turned out to be in recovery: its `in_hot_standby` says so, or
    /// `pg_is_in_recovery()` does.  A refused write (25006) alone is no proof, for a read-only
    /// transaction of a client's own gets the same.
    ///
    /// If it was opened to the supposed primary, everybody is held until there are news, and it
    /// is closed when it is given back.
    pub fn on_found_in_recovery(&mut self, server: ServerId) -> bool {
        match self.servers.get_mut(&server) {
            Some(Server {
                primary_in: Some(term),
                closing,
                ..
            }) => {
                *closing = true;
                self.topology.doubt(*term)
            }
            _ => false,
        }
    }

    /// A cancel for this server's client is about to be sent.  The server to send it to is still
    /// that client's: `false` means that it no longer is, and that nothing may be sent.
    pub fn cancel_begins(&mut self, server: ServerId, of: ClientId) -> bool {
        match self.servers.get_mut(&server) {
            Some(found) if found.state == State::Busy(of) => {
                found.cancels += 1;
                true
            }
            _ => false,
        }
    }

    /// The server closed the connection that the cancel came by: it has struck, or never will.
    pub fn cancel_ends(&mut self, server: ServerId, now_s: f64) -> Vec<Act> {
        let mut acts = Vec::new();
        let Some(found) = self.servers.get_mut(&server) else {
            return acts;
        };
        found.cancels = found.cancels.saturating_sub(1);
        if found.state == State::Shielded {
            self.rest(server, now_s, &mut acts);
            self.open(now_s, &mut acts);
        }
        acts
    }

    /// The server serves its client and nobody else: a cancel may strike it yet (to be called
    /// before `cancel_ends`), or it has statements that nobody can use any more.
    pub fn close_after(&mut self, server: ServerId) {
        if let Some(found) = self.servers.get_mut(&server) {
            found.closing = true;
        }
    }

    /// Grant nothing more; what is granted runs to its end.
    pub fn pause(&mut self) {
        self.paused = true;
    }

    pub fn resume(&mut self, now_s: f64) -> Vec<Act> {
        self.paused = false;
        let mut acts = Vec::new();
        self.serve(&mut acts);
        self.open(now_s, &mut acts);
        acts
    }

    /// Close every server: the idle at once, the others when they are given back.
    pub fn reconnect(&mut self, now_s: f64) -> Vec<Act> {
        let mut acts = Vec::new();
        for server in self.sorted(|found| !matches!(found.state, State::Busy(_))) {
            self.drop_server(server, &mut acts);
        }
        self.servers
            .values_mut()
            .for_each(|found| found.closing = true);
        self.open(now_s, &mut acts);
        acts
    }

    /// Time has passed.
    pub fn tick(&mut self, now_s: f64) -> Vec<Act> {
        let mut acts = Vec::new();
        let (topology, turn, full_s) = (&self.topology, self.turn, self.limits.full_s);
        let open: BTreeSet<NodeId> = self
            .servers
            .values()
            .filter(|server| server.state != State::Connecting)
            .map(|server| server.node)
            .collect();
        self.queue.retain_mut(|waiter| {
            let node = route(topology, &waiter.wish, turn).node();
            let queues = node.is_some_and(|node| open.contains(&node));
            let is_over = waiter.is_over(queues, full_s, now_s);
            if is_over {
                acts.push(Act::Expired {
                    client: waiter.client,
                });
            }
            !is_over
        });
        for (ahead, waiter) in self.queue.iter_mut().enumerate() {
            if !waiter.noticed && now_s >= waiter.since_s + self.limits.notice_after_s {
                waiter.noticed = true;
                acts.push(Act::Notice {
                    client: waiter.client,
                    ahead,
                });
            }
        }
        self.close_unused(now_s, &mut acts);
        self.open(now_s, &mut acts);
        acts
    }

    /// When `tick` has something to do again; `None`: only an event can change anything.
    pub fn next_tick_s(&self) -> Option<f64> {
        let notice_after_s = self.limits.notice_after_s;
        let waits = self.queue.iter().map(|waiter| {
            let notice_s = waiter.since_s + notice_after_s;
            if waiter.noticed {
                waiter.look_at_s
            } else {
                waiter.look_at_s.min(notice_s)
            }
        });
        let idle_s = self.limits.idle_s;
        let unused = self
            .idle
            .iter()
            .filter(|(node, _)| self.count(**node) > self.limits.warm);
        let unused = unused
            .filter_map(|(_, idle)| idle.first())
            .filter_map(|server| Some(self.servers.get(server)?.idle_since_s + idle_s));
        waits
            .chain(self.retry_at_s.values().copied())
            .chain(unused)
            .reduce(f64::min)
    }

    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Clients that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Servers that are open or being opened.
    pub fn len(&self) -> usize {
        self.servers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.servers.is_empty()
    }

    /// The server is free of its client: to the idle ones, and to the first who waits for it.
    fn rest(&mut self, server: ServerId, now_s: f64, acts: &mut Vec<Act>) {
        let Some(found) = self.servers.get_mut(&server) else {
            return;
        };
        found.idle_since_s = now_s;
        if found.cancels > 0 {
            found.state = State::Shielded;
            return;
        }
        if found.closing {
            self.drop_server(server, acts);
            self.open(now_s, acts);
            return;
        }
        found.state = State::Idle;
        self.idle.entry(found.node).or_default().push(server);
        self.serve(acts);
    }

    /// Hand idle servers to those who wait, in their order.
    fn serve(&mut self, acts: &mut Vec<Act>) {
        let mut at = 0;
        while at < self.queue.len() && self.idle.values().any(|idle| !idle.is_empty()) {
            let Some(waiter) = self.queue.remove(at) else {
                break;
            };
            if let Some(act) = self.grant(waiter.client, &waiter.wish) {
                acts.push(act);
            } else {
                self.queue.insert(at, waiter);
                at += 1;
            }
        }
    }

    /// A server that is free now.  Nobody who waits could be served by it, so there is nobody whom
    /// the client could overtake.
    pub fn grant(&mut self, client: ClientId, wish: &Wish) -> Option<Act> {
        if self.paused {
            return None;
        }
        // A reader takes the next standby that has a server free, not only the next standby.
        let turns = self.topology.standbys.len().max(1);
        let (chosen, server) = (0..turns).find_map(|step| {
            let chosen = route(&self.topology, wish, self.turn.wrapping_add(step));
            let server = self.idle.get_mut(&chosen.node()?)?.pop()?;
            Some((chosen, server))
        })?;
        self.turn = self.turn.wrapping_add(1);
        self.servers.get_mut(&server)?.state = State::Busy(client);
        let stale_s = match chosen {
            Route::ServeStale { lag_s, .. } => Some(lag_s),
            Route::Serve(_) | Route::Hold => None,
        };
        Some(Act::Grant {
            client,
            server,
            stale_s,
        })
    }

    /// Open what those who wait need, and what is to be kept warm.
    fn open(&mut self, now_s: f64, acts: &mut Vec<Act>) {
        self.retry_at_s.retain(|_, at_s| now_s < *at_s);
        if self.paused {
            return;
        }
        let mut wanted: BTreeMap<NodeId, usize> = BTreeMap::new();
        let standbys = self.topology.standbys.iter().map(|standby| standby.node);
        let warm = if self.unwelcome { 0 } else { self.limits.warm };
        for node in self.topology.serving().into_iter().chain(standbys) {
            wanted.insert(node, warm.saturating_sub(self.count(node)));
        }
        // No node can take more than its size, so no more of the queue needs a look.
        let most = self.limits.size * wanted.len();
        let mut needed: BTreeMap<NodeId, usize> = BTreeMap::new();
        for waiter in self.queue.iter().take(most) {
            if let Some(node) = route(&self.topology, &waiter.wish, self.turn).node() {
                *needed.entry(node).or_default() += 1;
            }
        }
        for (node, warm) in wanted {
            let logins = self.connecting(node);
            let needed = needed
                .get(&node)
                .copied()
                .unwrap_or(0)
                .saturating_sub(logins);
            self.connect(node, warm.max(needed), logins, now_s, acts);
        }
    }

    fn connect(
        &mut self,
        node: NodeId,
        wanted: usize,
        logins: usize,
        now_s: f64,
        acts: &mut Vec<Act>,
    ) {
        if self.retry_at_s.contains_key(&node) {
            return;
        }
        let room = self.limits.size.saturating_sub(self.count(node));
        let room = room.min(self.limits.logins.saturating_sub(logins));
        let is_primary = self.topology.writable() == Some(node);
        for _ in 0..wanted.min(room) {
            let server = ServerId(self.next_server);
            self.next_server += 1;
            let primary_in = is_primary.then_some(self.topology.term);
            *self.counts.entry(node).or_default() += 1;
            self.servers.insert(
                server,
                Server {
                    node,
                    state: State::Connecting,
                    primary_in,
                    cancels: 0,
                    closing: false,
                    idle_since_s: now_s,
                },
            );
            acts.push(Act::Connect { server, node });
        }
    }
}
