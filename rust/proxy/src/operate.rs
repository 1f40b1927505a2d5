//! A shard does what an operator asks for: pause, drain, other settings.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;
use std::time::Duration;

use crate::census::Who;
use crate::config::Config;
use crate::events::Happened;
use crate::hub::{limits_of, Event, Hub, PoolKey, PoolOf};
use crate::orders::{Command, Outcome};
use crate::secrets::{private, Known, Users};
use crate::server::Target;
use crate::shard::Door;
use crate::{tls, StartError};

use flightmode_pooler::pool::ClientId;
use flightmode_pooler::topology::NodeId;
use flightmode_wire::scram::Credential;
use zeroize::Zeroizing;

/// Settings with what their files say, checked: it can be taken by every shard.
pub struct Fresh {
    pub config: Config,
    users: Users,
    /// By database: what its own user logs in with.
    secrets: BTreeMap<String, Credential>,
    acceptor: Option<tokio_rustls::TlsAcceptor>,
    end_point: Option<Vec<u8>>,
    to_servers: Option<Arc<rustls::ClientConfig>>,
    mock_key: [u8; 32],
}

impl Fresh {
    /// Raises when a file is not as it must be: then nothing has changed.
    pub fn read(config: &Config, mock_key: [u8; 32]) -> Result<Self, StartError> {
        let users = match &config.auth.users_file {
            Some(path) => Users::load(path, &mock_key)?,
            None => Users::default(),
        };
        let secrets = own_secrets(config, &users)?;
        let (acceptor, end_point) = match config.client_tls.mode {
            crate::config::ClientTlsMode::Disable => (None, None),
            _ => crate::shard::acceptor(config).map_err(StartError::Tls)?,
        };
        Ok(Self {
            config: config.clone(),
            users,
            secrets,
            acceptor,
            end_point,
            to_servers: tls::client_settings(&config.server_tls).map_err(StartError::Tls)?,
            mock_key,
        })
    }

    pub fn door(&self, hub: &Rc<Hub>) -> Rc<Door> {
        Rc::new(Door {
            acceptor: self.acceptor.clone(),
            tls_only: self.config.client_tls.mode == crate::config::ClientTlsMode::Require,
            end_point: self.end_point.clone(),
            users: self.users.clone(),
            secrets: self.secrets.clone(),
            mock_key: self.mock_key,
            asked: crate::auth_query::Asked::new(&self.config, self.mock_key, hub),
        })
    }

    fn target(&self, name: &str) -> Option<Target> {
        let node = self.config.nodes.get(name)?;
        Some(Target {
            host: node.host.clone(),
            port: node.port,
            tls: self.to_servers.clone(),
            tls_optional: self.config.server_tls.mode == crate::config::ServerTlsMode::Prefer,
        })
    }
}

/// What databases with a user of their own log in with.  Raises when a file can't be read.
fn own_secrets(config: &Config, users: &Users) -> Result<BTreeMap<String, Credential>, StartError> {
    let mut secrets = BTreeMap::new();
    for (name, database) in &config.databases {
        let Some(user) = &database.user else { continue };
        let word = match (&database.secret_file, users.get(user.as_bytes())) {
            (Some(path), _) => {
                let text = private(path)?;
                let line = text.lines().next().unwrap_or_default();
                Some(Zeroizing::new(line.as_bytes().to_vec()))
            }
            // Who has the secret of SCRAM only can tell a password from another, and not log in.
            (None, Some(Known::Password { word, .. })) => Some(word.clone()),
            (None, _) => None,
        };
        if let Some(word) = word {
            secrets.insert(name.clone(), Credential::Password(word));
        }
    }
    Ok(secrets)
}

impl Hub {
    /// From now on these settings.  A node keeps its number; those who are in stay in.
    pub fn reload(self: &Rc<Self>, fresh: &Fresh) {
        let before = self.config();
        self.take_nodes(fresh);
        self.memory
            .set_cap(fresh.config.limits.memory_mb, self.shards.count());
        *self.config.borrow_mut() = Rc::new(fresh.config.clone());
        *self.door.borrow_mut() = Some(fresh.door(self));
        let moved =
            before.nodes != fresh.config.nodes || before.server_tls != fresh.config.server_tls;
        for pool in self.all_pools() {
            self.reload_pool(&pool, moved);
        }
        self.open_ahead();
        self.timed.notify_one();
    }

    /// Where the user is known before any client comes, so is what its pool has to have.
    pub fn open_ahead(self: &Rc<Self>) {
        for (name, database) in &self.config().databases {
            if let (Some(user), true) = (&database.user, database.min_pool_size > 0) {
                let key = PoolKey {
                    database: name.clone(),
                    user: user.clone(),
                };
                if name != "*" {
                    self.pool(&key, None);
                }
            }
        }
    }

    pub fn take_nodes(&self, fresh: &Fresh) {
        let mut names = self.names.borrow_mut();
        for name in fresh.config.nodes.keys() {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        let numbered = names.iter().enumerate();
        *self.targets.borrow_mut() = numbered
            .filter_map(|(number, name)| Some((NodeId(number as u32), fresh.target(name)?)))
            .collect();
    }

    fn reload_pool(self: &Rc<Self>, pool: &Rc<PoolOf>, moved: bool) {
        let config = self.config();
        // A database that is served no more keeps its clients until they leave.
        let Some(database) = config.database(&pool.key.database) else {
            return;
        };
        let now_s = self.now_s();
        pool.mode.set(config.mode_of(&database, &pool.key.user));
        let wait_s = config.query_wait_of(&database, &pool.key.user);
        pool.query_wait_s.set(wait_s);
        pool.in_reserve.set(false);
        let limits = limits_of(&database, &pool.key.user, self);
        let acts = pool.machine.borrow_mut().set_limits(limits, now_s);
        pool.carry_out(self, acts);
        let before = pool.identity.borrow().database.clone();
        if pool.take_identity(&database, self) || moved {
            let acts = pool.machine.borrow_mut().reconnect(now_s);
            pool.carry_out(self, acts);
        }
        // Where it listens, and as whom, is no matter while it does; but in which database.
        let is_another = pool.identity.borrow().database != before;
        pool.on_listener_changed(is_another);
    }

    pub fn all_pools(&self) -> Vec<Rc<PoolOf>> {
        self.pools.borrow().values().cloned().collect()
    }

    fn pools_of(&self, database: Option<&str>) -> Vec<Rc<PoolOf>> {
        let mut pools = self.all_pools();
        pools.retain(|pool| database.is_none_or(|name| name == pool.key.database));
        pools
    }

    /// `left`: the shards that are not drained yet.
    pub fn carry_out(self: &Rc<Self>, command: &Command, left: &Arc<AtomicUsize>) -> Outcome {
        let database = match command {
            Command::Pause { database }
            | Command::Resume { database }
            | Command::Reconnect { database }
            | Command::Kill { database } => database.as_deref(),
            Command::KillClient { id } => return self.kill_client(ClientId(*id)),
            Command::Drain { .. } => None,
        };
        if let Some(name) = database.filter(|name| self.config().database(name).is_none()) {
            return Outcome {
                wrong: Some(format!("database \"{name}\" is not served here")),
                ..Outcome::default()
            };
        }
        let pools = self.pools_of(database);
        let outcome = Outcome {
            clients: self.clients_of(database).len(),
            servers: pools.iter().map(|pool| pool.machine.borrow().len()).sum(),
            wrong: None,
        };
        match command {
            Command::Pause { .. } => self.pause(database, &pools),
            Command::Resume { .. } => self.resume(database, &pools),
            Command::Reconnect { .. } => self.reconnect(&pools),
            Command::Kill { .. } => self.kill(database, &pools),
            Command::Drain { within_s } => self.drain(*within_s, left),
            Command::KillClient { .. } => (),
        }
        outcome
    }

    fn clients_of(&self, database: Option<&str>) -> Vec<crate::inbox::Sender<Event>> {
        let clients = self.clients.borrow();
        let of = clients
            .values()
            .filter(|entry| database.is_none_or(|name| name == entry.pool.key.database));
        of.map(|entry| entry.events.clone()).collect()
    }

    fn pause(self: &Rc<Self>, database: Option<&str>, pools: &[Rc<PoolOf>]) {
        self.paused.borrow_mut().insert(database.map(str::to_owned));
        for pool in pools {
            pool.machine.borrow_mut().pause();
            pool.on_listener_changed(false);
        }
        // What is idle is closed now, what is used when it comes back: the database may be
        // restarted then.
        self.reconnect(pools);
    }

    fn resume(self: &Rc<Self>, database: Option<&str>, pools: &[Rc<PoolOf>]) {
        match database {
            Some(name) => drop(self.paused.borrow_mut().remove(&Some(name.to_owned()))),
            None => self.paused.borrow_mut().clear(),
        }
        for pool in pools {
            if !self.is_paused(&pool.key.database) {
                let acts = pool.machine.borrow_mut().resume(self.now_s());
                pool.carry_out(self, acts);
                pool.on_listener_changed(false);
            }
        }
    }

    pub fn is_paused(&self, database: &str) -> bool {
        let paused = self.paused.borrow();
        paused.contains(&None) || paused.contains(&Some(database.to_owned()))
    }

    fn reconnect(self: &Rc<Self>, pools: &[Rc<PoolOf>]) {
        for pool in pools {
            let acts = pool.machine.borrow_mut().reconnect(self.now_s());
            pool.carry_out(self, acts);
        }
    }

    fn kill(self: &Rc<Self>, database: Option<&str>, pools: &[Rc<PoolOf>]) {
        self.send_away(database, "terminated by an administrator", true);
        self.pause(database, pools);
        for pool in pools {
            let acts = pool.machine.borrow_mut().kill(self.now_s());
            pool.carry_out(self, acts);
        }
    }

    fn kill_client(&self, id: ClientId) -> Outcome {
        let clients = self.clients.borrow();
        let found = clients.get(&id);
        if let Some(entry) = found {
            let _ = entry.events.send(Event::Leave {
                sqlstate: "57P01",
                words: "terminated by an administrator",
                at_once: true,
            });
        }
        Outcome {
            clients: usize::from(found.is_some()),
            ..Outcome::default()
        }
    }

    fn send_away(&self, database: Option<&str>, words: &'static str, at_once: bool) {
        for events in self.clients_of(database) {
            let _ = events.send(Event::Leave {
                sqlstate: "57P01",
                words,
                at_once,
            });
        }
    }

    fn drain(self: &Rc<Self>, within_s: f64, left: &Arc<AtomicUsize>) {
        self.draining.set(true);
        for listener in self.listeners.take() {
            listener.abort();
        }
        self.send_away(None, "the proxy is shutting down", false);
        let within = Duration::from_secs_f64(within_s.clamp(0.0, 86_400.0));
        let (hub, left) = (Rc::clone(self), Arc::clone(left));
        tokio::task::spawn_local(async move {
            if tokio::time::timeout(within, hub.emptied()).await.is_err() {
                hub.send_away(None, "the proxy is shutting down", true);
                // Those who replicate end with a term, and with this.
                hub.term.send_modify(|_| ());
                hub.without_clients().await;
            }
            if left.fetch_sub(1, Ordering::AcqRel) == 1 {
                hub.sink.tell(Happened::Drained);
            }
        });
    }

    /// No client is left, and nobody logs in.
    async fn emptied(&self) {
        while !self.clients.borrow().is_empty() || self.moving.has_entering() {
            self.left.notified().await;
        }
    }

    async fn without_clients(&self) {
        while !self.clients.borrow().is_empty() {
            self.left.notified().await;
        }
    }

    /// A client has gone.
    pub fn on_left(&self, id: ClientId) {
        let gone = self.clients.borrow_mut().remove(&id);
        if let Some(gone) = gone {
            self.shards.census.leave(Who {
                user: &gone.about.user,
                database: &gone.pool.key.database,
                address: &gone.address,
            });
        }
        self.moving.on_left(id);
        if self.clients.borrow().is_empty() {
            self.left.notify_waiters();
        }
    }
}
