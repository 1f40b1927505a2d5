//! What all clients of a shard share: the pools, who is who, and who may be cancelled by which key.
//!
//! The pools decide (`pooler::pool`); here their acts are carried out.  One thread, no locks.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flightmode_pooler::guc::Values;
use flightmode_pooler::pool::{Act, ClientId, Limits, Pool, ServerId};
use flightmode_pooler::prepared::Catalog;
use flightmode_pooler::topology::{Change, Lsn, NodeId, Standby, Topology};
use flightmode_pooler::unit::Ledger;
use flightmode_wire::scram::Credential;
use tokio::sync::{mpsc, watch, Notify};

use crate::config::{Config, News, PoolMode};
use crate::server::{self, Identity, Server, Target};

/// What one unit may keep to run again, and all units of a shard.
const KEPT_BY_UNIT: usize = 1 << 20;
const KEPT_IN_ALL: usize = 64 << 20;
/// Servers that were closed while nobody used them are noticed after so long.
const SWEEP: Duration = Duration::from_millis(500);

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
    pub mode: PoolMode,
    pub machine: RefCell<Pool>,
    idle: RefCell<HashMap<ServerId, Box<Server>>>,
    nodes: RefCell<HashMap<ServerId, NodeId>>,
    waiting: RefCell<HashMap<ClientId, mpsc::UnboundedSender<Event>>>,
    holders: RefCell<HashMap<ServerId, mpsc::UnboundedSender<Event>>>,
    identity: RefCell<Identity>,
    /// What a server of this pool last said of itself at its login.
    pub reported: RefCell<Option<Values>>,
    tick: Notify,
    pub failure: RefCell<Option<String>>,
    pub counts: Counts,
}

/// Sums since the start.
#[derive(Default)]
pub struct Counts {
    pub transactions: Cell<u64>,
    pub queries: Cell<u64>,
    pub waited_us: Cell<u64>,
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
    pub paused: Cell<bool>,
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
}

impl Hub {
    pub fn new(config: Config, tls: Option<&Arc<rustls::ClientConfig>>) -> Rc<Self> {
        let optional = config.server_tls.mode == crate::config::ServerTlsMode::Prefer;
        let names: Vec<String> = config.nodes.keys().cloned().collect();
        let targets = config.nodes.values().enumerate().map(|(number, node)| {
            let target = Target {
                host: node.host.clone(),
                port: node.port,
                tls: tls.cloned(),
                tls_optional: optional,
            };
            (NodeId(number as u32), target)
        });
        Rc::new(Self {
            targets: RefCell::new(targets.collect()),
            names: RefCell::new(names),
            config: RefCell::new(Rc::new(config)),
            topology: RefCell::default(),
            pools: RefCell::default(),
            ledger: RefCell::new(Ledger::new(KEPT_BY_UNIT, KEPT_IN_ALL)),
            catalog: RefCell::default(),
            clients: RefCell::default(),
            term: watch::Sender::new(0),
            paused: Cell::new(false),
            next_client: Cell::new(1),
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
        self.next_client.set(id + 1);
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
        let of_user = config.users.get(&key.user).and_then(|user| user.pool_mode);
        let limits = Limits {
            size: database.pool_size.max(1),
            warm: database.min_pool_size.max(1).min(database.pool_size.max(1)),
            idle_s: config.times.server_idle_s,
            ..Limits::default()
        };
        let name = database.dbname.as_ref().unwrap_or(&key.database);
        let mut machine = Pool::new(limits, self.topology.borrow().clone());
        if self.paused.get() {
            machine.pause();
        }
        let pool = Rc::new(PoolOf {
            key: key.clone(),
            mode: of_user.or(database.pool_mode).unwrap_or_default(),
            machine: RefCell::new(machine),
            idle: RefCell::default(),
            nodes: RefCell::default(),
            waiting: RefCell::default(),
            holders: RefCell::default(),
            identity: RefCell::new(Identity {
                user: key.user.clone().into_bytes(),
                database: name.clone().into_bytes(),
                credential,
                startup: database
                    .settings
                    .iter()
                    .map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes()))
                    .collect(),
            }),
            reported: RefCell::default(),
            tick: Notify::new(),
            failure: RefCell::default(),
            counts: Counts::default(),
        });
        self.pools
            .borrow_mut()
            .insert(key.clone(), Rc::clone(&pool));
        tokio::task::spawn_local(keep_time(Rc::clone(self), Rc::clone(&pool)));
        Some(pool)
    }

    /// News of the cluster, to every pool.
    pub fn on_news(self: &Rc<Self>, news: &News) {
        let topology = self.topology_of(news);
        if self.topology.borrow_mut().accept(topology.clone()) == Change::Ignored {
            return;
        }
        self.term.send_replace(news.term);
        let pools: Vec<_> = self.pools.borrow().values().cloned().collect();
        for pool in pools {
            let (_, acts) = pool
                .machine
                .borrow_mut()
                .on_topology(topology.clone(), self.now_s());
            pool.carry_out(self, acts);
        }
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
                        replayed: lsn(&standby.replayed),
                    })
                })
                .collect(),
        }
    }
}

fn lsn(text: &str) -> Lsn {
    let parse = |part: &str| u64::from_str_radix(part, 16).ok();
    let both = text.split_once('/');
    let value = both.and_then(|(high, low)| Some((parse(high)? << 32) | parse(low)?));
    Lsn(value.unwrap_or(0))
}

impl PoolOf {
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
                Act::Connect { server, node } => {
                    self.nodes.borrow_mut().insert(server, node);
                    tokio::task::spawn_local(open(Rc::clone(hub), Rc::clone(self), server, node));
                }
                Act::Lost { server, .. } => self.tell_holder(server),
                Act::Expired { client } => self.tell(client, Event::Expired),
                Act::Notice { client, ahead } => {
                    if let Some(events) = self.waiting.borrow().get(&client) {
                        let _ = events.send(Event::Ahead(ahead));
                    }
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

    fn tell(&self, client: ClientId, event: Event) {
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
        if let Err(unheard) = events.send(event) {
            // The client left in this very moment: nothing was sent to its server.
            if let Event::Granted { id, server, .. } = unheard.0 {
                self.checkin(hub, id, server);
            }
        }
    }

    /// A client wants a server, and hears of it by `events`.
    pub fn checkout(
        self: &Rc<Self>,
        hub: &Rc<Hub>,
        client: ClientId,
        events: &mpsc::UnboundedSender<Event>,
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

    pub fn node_of(&self, server: ServerId) -> Option<NodeId> {
        self.nodes.borrow().get(&server).copied()
    }
}

/// Log in, and tell the machine how it went.
async fn open(hub: Rc<Hub>, pool: Rc<PoolOf>, id: ServerId, node: NodeId) {
    let target = hub.targets.borrow().get(&node).cloned();
    let Some(target) = target else { return };
    let identity = pool.identity.borrow().clone();
    let config = hub.config();
    let within = Duration::from_secs_f64(config.times.server_connect_s.max(0.1));
    match server::connect(&target, &identity, within, config.max_prepared).await {
        Ok(server) => {
            *pool.reported.borrow_mut() = Some(server.reported.clone());
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
            if pool.failure.borrow().as_ref() != Some(&words) {
                let name = hub
                    .names
                    .borrow()
                    .get(node.0 as usize)
                    .cloned()
                    .unwrap_or_default();
                tracing::warn!(
                    node = name,
                    user = pool.key.user,
                    database = pool.key.database,
                    "no session at the server: {words}"
                );
            }
            *pool.failure.borrow_mut() = Some(words);
            pool.lost(&hub, id);
        }
    }
}

/// Wakes the pool's machine when it asks for it, and looks after idle servers.
async fn keep_time(hub: Rc<Hub>, pool: Rc<PoolOf>) {
    loop {
        let next_s = pool.machine.borrow().next_tick_s();
        let wait = next_s.map_or(SWEEP, |next_s| {
            Duration::from_secs_f64((next_s - hub.now_s()).clamp(0.001, SWEEP.as_secs_f64()))
        });
        tokio::select! {
            () = tokio::time::sleep(wait) => (),
            () = pool.tick.notified() => continue,
        }
        let acts = pool.machine.borrow_mut().tick(hub.now_s());
        if !acts.is_empty() {
            pool.carry_out(&hub, acts);
        }
        pool.sweep(&hub);
    }
}

impl PoolOf {
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
