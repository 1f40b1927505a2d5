//! What all clients of a shard share: the pools, who is who, and who may be cancelled by which key.
//!
//! The pools decide (`pooler::pool`); here their acts are carried out.  One thread, no locks.

mod pools;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use flightmode_pooler::guc::Values;
use flightmode_pooler::numbers::ByNumber;
use flightmode_pooler::pool::operate::Seen;
use flightmode_pooler::pool::{Act, ClientId, Limits, Pool, ServerId};
use flightmode_pooler::prepared::Catalog;
use flightmode_pooler::topology::{Change, NodeId, Standby, Topology};
use flightmode_pooler::unit::Ledger;
use flightmode_wire::scram::Credential;
use flightmode_wire::startup::CancelKey;
use tokio::sync::{watch, Notify};

use crate::clock::Clock;
use crate::config::{Config, Database, News, PoolMode};
use crate::events::{Happened, Sink};
use crate::inbox;
use crate::listener::Listener;
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
    /// Something has come on a channel that it listens to, or is to be said of that.
    Mail,
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
    /// How long its clients wait while its servers serve others; zero: as long as they are held.
    pub query_wait_s: Cell<f64>,
    pub machine: RefCell<Pool>,
    idle: RefCell<ByNumber<ServerId, Box<Server>>>,
    /// Where each server is and since when.
    nodes: RefCell<ByNumber<ServerId, (NodeId, f64)>>,
    pub waiting: RefCell<ByNumber<ClientId, inbox::Sender<Event>>>,
    holders: RefCell<ByNumber<ServerId, inbox::Sender<Event>>>,
    pub identity: RefCell<Identity>,
    /// What a server of this pool last said of itself at its login.
    pub reported: RefCell<Option<Rc<Values>>>,
    pub variants: Variants,
    /// With which settings clients come in.
    pub starts: Variants,
    tick: Notify,
    /// When the machine is looked at next, whatever happens.
    wakes_at_s: Cell<f64>,
    pub failure: RefCell<Option<String>>,
    pub in_reserve: Cell<bool>,
    pub counts: Counts,
    pub listener: Listener,
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
    /// In boxes, for a table is twice as large as what is in it.
    pub clients: RefCell<ByNumber<ClientId, Box<Entry>>>,
    /// Who is at the console; counted nowhere, and sent away by nobody.
    pub operators: RefCell<BTreeMap<ClientId, Operator>>,
    /// The term, for who has a server of its own.
    pub term: watch::Sender<u64>,
    /// Where something may begin, for who waits for that outside of every pool.
    pub serving: watch::Sender<Option<NodeId>>,
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
    pub clock: Clock,
}

/// A client as others find it.
pub struct Entry {
    pub secret: Vec<u8>,
    pub pool: Rc<PoolOf>,
    pub at: Rc<Whereabouts>,
    pub address: String,
    pub events: inbox::Sender<Event>,
    pub about: About,
    /// It has a server of its own, which no pool knows.
    pub replicates: bool,
}

/// What a client is doing, and which server it has for that.
#[derive(Default)]
pub struct Whereabouts {
    pub server: Cell<Option<ServerId>>,
    /// The key of that server.
    pub key: RefCell<Option<Rc<CancelKey>>>,
    pub pace: Pace,
}

impl Whereabouts {
    pub fn new(now_s: f64) -> Rc<Self> {
        Rc::new(Self {
            pace: Pace::new(now_s),
            ..Self::default()
        })
    }

    /// It has no server any more.
    pub fn on_parted(&self) {
        self.server.set(None);
        self.key.borrow_mut().take();
    }
}

/// Somebody at the console.
pub struct Operator {
    pub database: String,
    pub address: String,
    pub about: About,
}

/// What an operator is told of a client.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// As it proved to be; its server may be logged in as somebody else.
    pub user: String,
    pub port: u16,
    pub application: String,
    pub tls: Option<String>,
    pub since_s: f64,
}

/// What this shard's pool of a database may do: each has its part of what all have.
pub fn limits_of(database: &Database, user: &str, hub: &Hub) -> Limits {
    let (size, _) = hub.config().size_of(database, user);
    let size = hub.shards.share(size).max(1);
    Limits {
        size,
        warm: hub.shards.share(database.min_pool_size).clamp(1, size),
        idle_s: hub.config.borrow().times.server_idle_s,
        full_s: full_s(&hub.config(), database, user),
        ..Limits::default()
    }
}

fn full_s(config: &Config, database: &Database, user: &str) -> f64 {
    match config.query_wait_of(database, user) {
        own if own > 0.0 => own,
        _ => config.times.hold_for_s,
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
            operators: RefCell::default(),
            term: watch::Sender::new(0),
            serving: watch::Sender::new(None),
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
            clock: Clock::new(),
        })
    }

    pub fn now_s(&self) -> f64 {
        self.clock.now_s()
    }

    pub fn config(&self) -> Rc<Config> {
        Rc::clone(&self.config.borrow())
    }

    pub fn client_id(&self) -> ClientId {
        let id = self.next_client.get();
        self.next_client.set(id + self.shards.count() as u64);
        ClientId(id)
    }

    /// The pool of a user of a database; made when the first comes.  A database with a user of its
    /// own has one pool for all.
    pub fn pool(
        self: &Rc<Self>,
        key: &PoolKey,
        mut credential: Option<Credential>,
    ) -> Option<Rc<PoolOf>> {
        let config = self.config();
        let database = config.database(&key.database)?;
        let mut key = key.clone();
        if let Some(user) = &database.user {
            key.user.clone_from(user);
            // What a client proved itself with is nothing that another user could use.
            credential = None;
        }
        if let Some(found) = self.pools.borrow().get(&key) {
            if credential.is_some() {
                found.identity.borrow_mut().credential = credential;
            }
            return Some(Rc::clone(found));
        }
        let mut machine = Pool::new(
            limits_of(&database, &key.user, self),
            self.topology.borrow().clone(),
        );
        if self.is_paused(&key.database) {
            machine.pause();
        }
        let pool = Rc::new(PoolOf {
            key: key.clone(),
            mode: Cell::new(config.mode_of(&database, &key.user)),
            query_wait_s: Cell::new(config.query_wait_of(&database, &key.user)),
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
            starts: Variants::default(),
            tick: Notify::new(),
            wakes_at_s: Cell::new(0.0),
            failure: RefCell::default(),
            in_reserve: Cell::new(false),
            counts: Counts::default(),
            listener: Listener::default(),
        });
        pool.take_identity(&database, self);
        self.pools.borrow_mut().insert(key, Rc::clone(&pool));
        tokio::task::spawn_local(pools::keep_time(Rc::clone(self), Rc::clone(&pool)));
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

    /// Where it is; `None`: it is in the settings no more.
    pub fn target_of(&self, node: NodeId) -> Option<Target> {
        self.targets.borrow().get(&node).cloned()
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
            parting: news.parting,
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
