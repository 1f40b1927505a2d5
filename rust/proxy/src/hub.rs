//! What all clients of a shard share: the pools, who is who, and who may be cancelled by which key.
//!
//! The pools decide (`pooler::pool`); here their acts are carried out.  One thread, no locks.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

use flightmode_pooler::guc::Values;
use flightmode_pooler::pool::operate::Seen;
use flightmode_pooler::pool::{Act, ClientId, Limits, Pool, ServerId};
use flightmode_pooler::prepared::Catalog;
use flightmode_pooler::topology::{Change, NodeId, Standby, Topology};
use flightmode_pooler::unit::Ledger;
use flightmode_wire::scram::Credential;
use tokio::sync::{watch, Notify};

use crate::config::{Config, Database, News, PoolMode, Times};
use crate::events::{Happened, Sink};
use crate::inbox;
use crate::memory::Memory;
use crate::moving::Moving;
use crate::operate::Fresh;
use crate::orders::Shards;
use crate::pace::Pace;
use crate::server::{self, Identity, Server, Target};
use crate::shard::Door;
use crate::stats::{Counts, Holds, Logins};
use crate::variants::Variants;

/// What one unit may keep to run again, and all units of a shard.
const KEPT_BY_UNIT: usize = 1 << 20;
const KEPT_IN_ALL: usize = 64 << 20;
/// Servers that were closed while nobody used them are noticed after so long.
const SWEEP_S: f64 = 0.5;

/// What a client hears from the shard.
pub enum Event {
    /// A server is the client's now.  `stale_s`: how old its data are, if older than asked for.
    Granted {
        id: ServerId,
        server: Box<Server>,
        stale_s: Option<f64>,
    },
    /// The server must not be used any more.
    Void(ServerId),
    /// It has waited long enough.
    Expired,
    /// It waits behind this many.
    Ahead(usize),
    /// Too many wait.
    Refused,
    /// Its user wants it to wait no longer.
    Cancelled,
    /// It goes to another process when it can.
    Move,
    /// A server will have none of its user or database: the end of its login.
    Denied(String, String),
    /// It is sent away: now, or when it is between two transactions.
    Leave {
        sqlstate: &'static str,
        words: &'static str,
        at_once: bool,
    },
}

/// Users and databases have pools of their own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey {
    pub database: String,
    pub user: String,
}

/// The servers of one user of one database.
pub struct PoolOf {
    pub key: PoolKey,
    pub mode: Cell<PoolMode>,
    pub machine: RefCell<Pool>,
    idle: RefCell<HashMap<ServerId, Box<Server>>>,
    /// Where each server is and since when.
    nodes: RefCell<HashMap<ServerId, (NodeId, f64)>>,
    pub waiting: RefCell<HashMap<ClientId, inbox::Sender<Event>>>,
    holders: RefCell<HashMap<ServerId, inbox::Sender<Event>>>,
    pub identity: RefCell<Identity>,
    /// What a server of this pool last said of itself at its login.
    pub reported: RefCell<Option<Rc<Values>>>,
    pub variants: Variants,
    tick: Notify,
    pub failure: RefCell<Option<String>>,
    pub in_reserve: Cell<bool>,
    pub counts: Counts,
}

/// See the module.
pub struct Hub {
    pub config: RefCell<Rc<Config>>,
    pub targets: RefCell<BTreeMap<NodeId, Target>>,
    pub names: RefCell<Vec<String>>,
    pub topology: RefCell<Topology>,
    pub pools: RefCell<BTreeMap<PoolKey, Rc<PoolOf>>>,
    pub ledger: RefCell<Ledger>,
    pub catalog: RefCell<Catalog>,
    pub clients: RefCell<HashMap<ClientId, Entry>>,
    /// The term, for who has a server of its own.
    pub term: watch::Sender<u64>,
    pub door: RefCell<Option<Rc<Door>>>,
    /// The names of databases that are paused; none: all of them.
    pub paused: RefCell<BTreeSet<Option<String>>>,
    pub draining: Cell<bool>,
    /// The last client has left.
    pub left: Notify,
    pub listeners: RefCell<Vec<tokio::task::AbortHandle>>,
    pub moving: Moving,
    pub shards: Shards,
    pub sink: Sink,
    pub memory: Memory,
    pub logins: RefCell<Logins>,
    pub holds: RefCell<Holds>,
    /// Limits of time have changed.
    pub timed: Notify,
    /// Since when there was no primary, and until when there was none.
    pub no_primary_since_s: Cell<Option<f64>>,
    pub no_primary_until_s: Cell<f64>,
    pub told_in_recovery: Cell<Option<(u64, NodeId)>>,
    next_client: Cell<u64>,
    began: Instant,
}

/// A client as others find it.
pub struct Entry {
    pub secret: Vec<u8>,
    pub pool: Rc<PoolOf>,
    pub server: Rc<Cell<Option<ServerId>>>,
    /// The key of the server that it has now.
    pub key: Rc<RefCell<Option<flightmode_wire::startup::CancelKey>>>,
    pub address: String,
    pub events: inbox::Sender<Event>,
    pub pace: Rc<Pace>,
    pub about: About,
}

/// What an operator is told of a client.
#[derive(Clone, Debug, Default)]
pub struct About {
    pub port: u16,
    pub application: String,
    pub tls: Option<String>,
    pub since_s: f64,
}

/// What this shard's pool of a database may do: each has its part of what all have.
pub fn limits_of(database: &Database, hub: &Hub) -> Limits {
    let size = hub.shards.share(database.pool_size).max(1);
    Limits {
        size,
        warm: hub.shards.share(database.min_pool_size).clamp(1, size),
        idle_s: hub.config.borrow().times.server_idle_s,
        full_s: full_s(&hub.config.borrow().times),
        ..Limits::default()
    }
}

fn full_s(times: &Times) -> f64 {
    if times.query_wait_s > 0.0 {
        times.query_wait_s
    } else {
        times.hold_for_s
    }
}

impl Hub {
    pub fn new(fresh: &Fresh, shards: Shards, sink: Sink) -> Rc<Self> {
        let hub = Self::empty(fresh.config.clone(), shards, sink);
        hub.take_nodes(fresh);
        *hub.door.borrow_mut() = Some(fresh.door(&hub));
        hub.memory
            .set_cap(fresh.config.limits.memory_mb, hub.shards.count());
        hub
    }

    fn empty(config: Config, shards: Shards, sink: Sink) -> Rc<Self> {
        let first = shards.number() as u64;
        Rc::new(Self {
            targets: RefCell::default(),
            names: RefCell::default(),
            config: RefCell::new(Rc::new(config)),
            topology: RefCell::default(),
            pools: RefCell::default(),
            ledger: RefCell::new(Ledger::new(KEPT_BY_UNIT, KEPT_IN_ALL)),
            catalog: RefCell::default(),
            clients: RefCell::default(),
            term: watch::Sender::new(0),
            door: RefCell::default(),
            paused: RefCell::default(),
            draining: Cell::new(false),
            left: Notify::new(),
            listeners: RefCell::default(),
            moving: Moving::default(),
            shards,
            sink,
            memory: Memory::default(),
            logins: RefCell::default(),
            holds: RefCell::default(),
            timed: Notify::new(),
            no_primary_since_s: Cell::new(Some(0.0)),
            no_primary_until_s: Cell::new(0.0),
            told_in_recovery: Cell::new(None),
            next_client: Cell::new(1 + first),
            began: Instant::now(),
        })
    }

    pub fn now_s(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    pub fn config(&self) -> Rc<Config> {
        Rc::clone(&self.config.borrow())
    }

    pub fn client_id(&self) -> ClientId {
        let id = self.next_client.get();
        self.next_client.set(id + self.shards.count() as u64);
        ClientId(id)
    }

    /// The pool of a user of a database; made when the first comes.
    pub fn pool(
        self: &Rc<Self>,
        key: &PoolKey,
        credential: Option<Credential>,
    ) -> Option<Rc<PoolOf>> {
        let config = self.config();
        let database = config.database(&key.database)?;
        if let Some(found) = self.pools.borrow().get(key) {
            if credential.is_some() {
                found.identity.borrow_mut().credential = credential;
            }
            return Some(Rc::clone(found));
        }
        let mut machine = Pool::new(limits_of(&database, self), self.topology.borrow().clone());
        if self.is_paused(&key.database) {
            machine.pause();
        }
        let pool = Rc::new(PoolOf {
            key: key.clone(),
            mode: Cell::new(config.mode_of(&database, &key.user)),
            machine: RefCell::new(machine),
            idle: RefCell::default(),
            nodes: RefCell::default(),
            waiting: RefCell::default(),
            holders: RefCell::default(),
            identity: RefCell::new(Identity {
                user: key.user.clone().into_bytes(),
                database: Vec::new(),
                credential,
                startup: Vec::new(),
            }),
            reported: RefCell::default(),
            variants: Variants::default(),
            tick: Notify::new(),
            failure: RefCell::default(),
            in_reserve: Cell::new(false),
            counts: Counts::default(),
        });
        pool.take_identity(&database);
        self.pools
            .borrow_mut()
            .insert(key.clone(), Rc::clone(&pool));
        tokio::task::spawn_local(keep_time(Rc::clone(self), Rc::clone(&pool)));
        Some(pool)
    }

    /// A pool for a user or database that the primary does not know goes with its last client: who
    /// guesses names must not fill our memory.  Other pools stay, for their servers and for what
    /// is told to logins while there is no primary.
    fn forget(&self, pool: &Rc<PoolOf>) -> bool {
        // One is the table's and one is `keep_time`'s: nobody else can come back to it.
        let is_alone = Rc::strong_count(pool) == 2;
        let machine = pool.machine.borrow();
        let goes = is_alone && machine.is_unwelcome() && machine.is_empty();
        if goes {
            self.pools.borrow_mut().remove(&pool.key);
        }
        goes
    }

    /// News of the cluster, to every pool.
    pub fn on_news(self: &Rc<Self>, news: &News) {
        let topology = self.topology_of(news);
        let change = self.topology.borrow_mut().accept(topology.clone());
        if change == Change::Ignored {
            return;
        }
        // Not for each piece of news: who replicates would be cut off by a lag.
        self.term.send_if_modified(|term| {
            std::mem::replace(term, news.term) != news.term || change == Change::PrimaryGone
        });
        self.on_primary();
        for pool in self.all_pools() {
            let (_, acts) = pool
                .machine
                .borrow_mut()
                .on_topology(topology.clone(), self.now_s());
            pool.carry_out(self, acts);
        }
    }

    pub fn name_of(&self, node: NodeId) -> String {
        let names = self.names.borrow();
        names.get(node.0 as usize).cloned().unwrap_or_default()
    }

    pub fn door(&self) -> Option<Rc<Door>> {
        self.door.borrow().clone()
    }

    fn topology_of(&self, news: &News) -> Topology {
        let names = self.names.borrow();
        let number = |name: &str| {
            let found = names.iter().position(|known| known == name);
            found.map(|number| NodeId(number as u32))
        };
        Topology {
            term: news.term,
            revision: news.revision,
            primary: news.primary.as_deref().and_then(number),
            fenced: news.fenced,
            standbys: news
                .standbys
                .iter()
                .filter_map(|standby| {
                    Some(Standby {
                        node: number(&standby.node)?,
                        lag_s: standby.lag_s,
                        replayed: standby.lsn(),
                    })
                })
                .collect(),
        }
    }
}

impl PoolOf {
    /// As whom and with what its servers are opened from now on.  Whether that has changed.
    pub fn take_identity(&self, database: &Database) -> bool {
        let bytes = |text: &String| text.clone().into_bytes();
        let name = bytes(database.dbname.as_ref().unwrap_or(&self.key.database));
        let settings = database.settings.iter();
        let startup = settings
            .map(|(name, value)| (bytes(name), bytes(value)))
            .collect();
        let mut identity = self.identity.borrow_mut();
        let before = (
            std::mem::replace(&mut identity.database, name),
            std::mem::replace(&mut identity.startup, startup),
        );
        before.0 != identity.database || before.1 != identity.startup
    }

    /// A session of this pool says that it is in recovery.
    pub fn on_found_in_recovery(self: &Rc<Self>, hub: &Rc<Hub>, id: ServerId) {
        let was_primary = self.machine.borrow_mut().on_found_in_recovery(id);
        if let (true, Some(node)) = (was_primary, self.node_of(id)) {
            hub.on_primary_in_recovery(node);
        }
    }

    /// Do what the machine says, the closing first.
    pub fn carry_out(self: &Rc<Self>, hub: &Rc<Hub>, acts: Vec<Act>) {
        for act in &acts {
            if let Act::Close { server } = act {
                self.close(*server);
            }
        }
        for act in acts {
            match act {
                Act::Close { .. } => (),
                Act::Grant {
                    client,
                    server,
                    stale_s,
                } => self.grant(hub, client, server, stale_s),
                Act::Connect { server, .. } if !self.has_room(hub, server) => {
                    let acts = self.machine.borrow_mut().closed(server, hub.now_s());
                    self.carry_out(hub, acts);
                }
                Act::Connect { server, node } => {
                    self.nodes.borrow_mut().insert(server, (node, hub.now_s()));
                    tokio::task::spawn_local(open(Rc::clone(hub), Rc::clone(self), server, node));
                }
                Act::Lost { server, .. } => self.tell_holder(server),
                Act::Expired { client } => self.tell(client, Event::Expired),
                Act::Notice { client, ahead } => {
                    if let Some(events) = self.waiting.borrow().get(&client) {
                        let _ = events.send(Event::Ahead(ahead));
                    }
                    hub.sink.tell(Happened::PoolWait {
                        database: self.key.database.clone(),
                        user: self.key.user.clone(),
                        ahead,
                    });
                }
                Act::Refuse { client } => self.tell(client, Event::Refused),
            }
        }
        self.tick.notify_one();
    }

    fn close(&self, server: ServerId) {
        self.nodes.borrow_mut().remove(&server);
        self.idle.borrow_mut().remove(&server);
        self.tell_holder(server);
    }

    fn tell_holder(&self, server: ServerId) {
        if let Some(events) = self.holders.borrow_mut().remove(&server) {
            // A client that has gone has nothing to lose.
            let _ = events.send(Event::Void(server));
        }
    }

    pub fn tell(&self, client: ClientId, event: Event) {
        if let Some(events) = self.waiting.borrow_mut().remove(&client) {
            let _ = events.send(event);
        }
    }

    fn grant(self: &Rc<Self>, hub: &Rc<Hub>, client: ClientId, id: ServerId, stale_s: Option<f64>) {
        let server = self.idle.borrow_mut().remove(&id);
        let events = self.waiting.borrow_mut().remove(&client);
        let (Some(server), Some(events)) = (server, events) else {
            tracing::error!(?client, ?id, "a grant without a server or without a client");
            return;
        };
        self.holders.borrow_mut().insert(id, events.clone());
        let event = Event::Granted {
            id,
            server,
            stale_s,
        };
        if let Err(Event::Granted { id, server, .. }) = events.send(event) {
            // The client left in this very moment: nothing was sent to its server.
            self.checkin(hub, id, server);
        }
    }

    /// A client wants a server, and hears of it by `events`.
    pub fn checkout(
        self: &Rc<Self>,
        hub: &Rc<Hub>,
        client: ClientId,
        events: &inbox::Sender<Event>,
        wish: flightmode_pooler::route::Wish,
        wait_s: f64,
    ) {
        let now_s = hub.now_s();
        self.waiting.borrow_mut().insert(client, events.clone());
        let acts = self
            .machine
            .borrow_mut()
            .checkout(client, wish, now_s, now_s + wait_s);
        self.carry_out(hub, acts);
    }

    /// A client that waited has gone.
    pub fn leave(&self, client: ClientId) {
        self.waiting.borrow_mut().remove(&client);
        self.machine.borrow_mut().leave(client);
    }

    /// A client gives its server back.
    pub fn checkin(self: &Rc<Self>, hub: &Rc<Hub>, id: ServerId, server: Box<Server>) {
        self.holders.borrow_mut().remove(&id);
        self.idle.borrow_mut().insert(id, server);
        let acts = self.machine.borrow_mut().checkin(id, hub.now_s());
        self.carry_out(hub, acts);
    }

    /// The server is gone, or of no more use.  Whoever held it knows.
    pub fn lost(self: &Rc<Self>, hub: &Rc<Hub>, id: ServerId) {
        self.holders.borrow_mut().remove(&id);
        self.nodes.borrow_mut().remove(&id);
        let acts = self.machine.borrow_mut().closed(id, hub.now_s());
        self.carry_out(hub, acts);
    }

    /// The server will have none of this user or database.
    fn denied(self: &Rc<Self>, hub: &Rc<Hub>, id: ServerId) {
        self.nodes.borrow_mut().remove(&id);
        let acts = self.machine.borrow_mut().denied(id, hub.now_s());
        self.carry_out(hub, acts);
    }

    /// What a server says of itself is told to the next client as our own.  Servers say the
    /// same, mostly: then they share it.
    pub fn note_reported(&self, server: &mut Server) {
        let mut known = self.reported.borrow_mut();
        match &*known {
            Some(shared) if *shared == server.reported => server.reported = Rc::clone(shared),
            _ => *known = Some(Rc::clone(&server.reported)),
        }
    }

    /// Plans of prepared statements have gone stale at one server, so at the others too: whoever
    /// comes next has them parsed anew.
    pub fn forget_prepared(&self) {
        for server in self.idle.borrow_mut().values_mut() {
            server.prepared.clear();
        }
    }

    pub fn node_of(&self, server: ServerId) -> Option<NodeId> {
        self.nodes.borrow().get(&server).map(|(node, _)| *node)
    }

    pub fn born_of(&self, server: ServerId) -> Option<f64> {
        self.nodes.borrow().get(&server).map(|(_, born_s)| *born_s)
    }

    /// The key of a server that nobody uses.
    pub fn key_of(&self, server: ServerId) -> Option<flightmode_wire::startup::CancelKey> {
        self.idle.borrow().get(&server)?.key.clone()
    }
}

/// Log in, and tell the machine how it went.
async fn open(hub: Rc<Hub>, pool: Rc<PoolOf>, id: ServerId, node: NodeId) {
    let target = hub.targets.borrow().get(&node).cloned();
    let Some(target) = target else {
        // It was taken out of the settings: a login that nobody makes would count as one for ever.
        return pool.lost(&hub, id);
    };
    let identity = pool.identity.borrow().clone();
    let config = hub.config();
    let within = Duration::from_secs_f64(config.times.server_connect_s.max(0.1));
    match server::connect(&target, &identity, within, config.max_prepared).await {
        Ok(mut server) => {
            pool.note_reported(&mut server);
            *pool.failure.borrow_mut() = None;
            if pool.nodes.borrow().contains_key(&id) {
                // One that is still in recovery is asked again before a writer's first statement.
                pool.idle.borrow_mut().insert(id, Box::new(server));
                let acts = pool.machine.borrow_mut().connected(id, hub.now_s());
                pool.carry_out(&hub, acts);
            }
        }
        Err(failure) => {
            let words = failure.to_string();
            pool.deny_logins(&hub, node, &failure);
            if pool.failure.borrow().as_ref() != Some(&words) {
                let name = hub.name_of(node);
                tracing::warn!(
                    node = name,
                    user = pool.key.user,
                    database = pool.key.database,
                    "no session at the server: {words}"
                );
                hub.sink.tell(Happened::ServerRefused {
                    node: name,
                    database: pool.key.database.clone(),
                    user: pool.key.user.clone(),
                    reason: words.clone(),
                });
            }
            *pool.failure.borrow_mut() = Some(words);
            if failure.verdict().is_some() {
                pool.denied(&hub, id);
            } else {
                pool.lost(&hub, id);
            }
        }
    }
}

/// Wakes the pool's machine when it asks for it, and looks after idle servers.
async fn keep_time(hub: Rc<Hub>, pool: Rc<PoolOf>) {
    let mut sweep_s = hub.now_s() + SWEEP_S;
    loop {
        let next_s = pool.machine.borrow().next_tick_s();
        let next_s = next_s.map_or(sweep_s, |next_s| next_s.min(sweep_s));
        let wait = Duration::from_secs_f64((next_s - hub.now_s()).max(0.001));
        tokio::select! {
            () = tokio::time::sleep(wait) => (),
            () = pool.tick.notified() => (),
        }
        // However often it is woken, what is due is done.
        if hub.now_s() < next_s {
            continue;
        }
        let acts = pool.machine.borrow_mut().tick(hub.now_s());
        if !acts.is_empty() {
            pool.carry_out(&hub, acts);
        }
        if hub.now_s() >= sweep_s {
            pool.sweep(&hub);
            pool.retire(&hub);
            pool.look_at_reserve(&hub);
            sweep_s = hub.now_s() + SWEEP_S;
            if hub.forget(&pool) {
                return;
            }
        }
    }
}

impl PoolOf {
    /// The oldest server that has had its time, if there is one: one by one, so that not all of
    /// a pool log in at once.
    fn retire(self: &Rc<Self>, hub: &Rc<Hub>) {
        let lifetime_s = hub.config.borrow().times.server_lifetime_s;
        let born = |seen: &Seen| self.born_of(seen.server).unwrap_or(f64::INFINITY);
        let seen = self.machine.borrow().seen();
        let oldest = seen
            .iter()
            .filter(|seen| !seen.closing && !seen.connecting)
            .min_by(|left, right| born(left).total_cmp(&born(right)));
        let (Some(oldest), true) = (oldest, lifetime_s > 0.0) else {
            return;
        };
        if hub.now_s() - born(oldest) >= lifetime_s {
            let acts = self.machine.borrow_mut().retire(oldest.server, hub.now_s());
            self.carry_out(hub, acts);
        }
    }

    /// Servers that said something, or closed, while nobody used them.
    fn sweep(self: &Rc<Self>, hub: &Rc<Hub>) {
        let mut idle = self.idle.borrow_mut();
        let gone: Vec<ServerId> = idle
            .iter_mut()
            .filter_map(|(id, server)| (!server.is_quiet()).then_some(*id))
            .collect();
        for id in &gone {
            idle.remove(id);
        }
        drop(idle);
        for id in gone {
            self.lost(hub, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flightmode_pooler::route::{Target as Where, Wish};
    use flightmode_pooler::topology::Lsn;

    const WRITER: Wish = Wish {
        target: Where::Primary,
        seen: Lsn(0),
        stale_ok: false,
    };

    /// A shard that nobody listens for, and a pool of it.
    fn shard() -> (Rc<Hub>, Rc<PoolOf>) {
        let text = r#"{"listen":[],"nodes":{"ams":{"host":"127.0.0.1","port":1}}}"#;
        let config: Config = serde_json::from_str(text).expect("settings");
        let fresh = Fresh::read(&config, [0; 32]).expect("no files");
        let (inbox, _) = tokio::sync::mpsc::unbounded_channel();
        let (sink, _) = crate::events::channel();
        let hub = Hub::new(&fresh, Shards::new(vec![inbox]), sink);
        let key = PoolKey {
            database: "app".to_owned(),
            user: "ada".to_owned(),
        };
        let pool = hub.pool(&key, None).expect("every database is served");
        (hub, pool)
    }

    fn on_a_shard(test: impl std::future::Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        tokio::task::LocalSet::new().block_on(&runtime, test);
    }

    #[test]
    fn who_waits_is_told_in_time_however_often_the_pool_is_woken() {
        on_a_shard(async {
            let (hub, pool) = shard();
            let (events_in, mut events) = inbox::inbox();
            pool.checkout(&hub, ClientId(1), &events_in, WRITER, 0.05);
            tokio::task::yield_now().await;
            // What is due now is done by whatever wakes it first, not by a timer begun anew.
            std::thread::sleep(Duration::from_millis(60));
            pool.tick.notify_one();
            let mut turns = 3;
            std::future::poll_fn(|cx| {
                turns -= 1;
                cx.waker().wake_by_ref();
                if turns > 0 {
                    std::task::Poll::Pending
                } else {
                    std::task::Poll::Ready(())
                }
            })
            .await;
            let heard = tokio::time::timeout(Duration::ZERO, events.recv()).await;
            assert!(matches!(heard, Ok(Some(Event::Expired))));
        });
    }

    #[test]
    fn a_node_that_was_taken_out_of_the_settings_leaves_no_login_behind() {
        on_a_shard(async {
            let (hub, pool) = shard();
            hub.targets.borrow_mut().clear();
            hub.on_news(&News {
                term: 1,
                revision: 1,
                primary: Some("ams".to_owned()),
                fenced: false,
                standbys: Vec::new(),
            });
            assert_eq!(pool.machine.borrow().census().connecting, 1);
            tokio::task::yield_now().await;
            assert_eq!(pool.machine.borrow().census().connecting, 0);
        });
    }
}
