//! A pool at work: what its machine has decided is carried out, in time.

use super::{
    inbox, server, Act, CancelKey, ClientId, Database, Duration, Event, Happened, Hub, NodeId,
    PoolOf, Rc, Seen, Server, ServerId, SWEEP_S,
};

impl PoolOf {
    /// As whom and with what its servers are opened from now on.  Whether that has changed.
    pub fn take_identity(&self, database: &Database, hub: &Hub) -> bool {
        let bytes = |text: &String| text.clone().into_bytes();
        let name = bytes(database.dbname.as_ref().unwrap_or(&self.key.database));
        let settings = database.settings.iter();
        let startup = settings
            .map(|(name, value)| (bytes(name), bytes(value)))
            .collect();
        let mut identity = self.identity.borrow_mut();
        if database.user.as_ref() == Some(&self.key.user) {
            let listed = hub.config().databases.contains_key(&self.key.database);
            let name = if listed { &self.key.database } else { "*" };
            let door = hub.door();
            identity.credential = door.and_then(|door| door.secrets.get(name).cloned());
        }
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

    /// Do what the machine says.
    pub fn carry_out(self: &Rc<Self>, hub: &Rc<Hub>, acts: Vec<Act>) {
        self.act(hub, acts);
        self.tick.notify_one();
    }

    /// The machine has something to do at that time, and maybe nobody would look at it then.
    fn due_at(&self, due_s: f64) {
        if due_s < self.wakes_at_s.get() {
            self.tick.notify_one();
        }
    }

    /// The closing first.
    fn act(self: &Rc<Self>, hub: &Rc<Hub>, acts: Vec<Act>) {
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

    /// A client wants a server.  What it gets at once; else it hears of it by `events`.
    pub fn checkout(
        self: &Rc<Self>,
        hub: &Rc<Hub>,
        client: ClientId,
        events: &inbox::Sender<Event>,
        wish: flightmode_pooler::route::Wish,
        wait_s: f64,
    ) -> Option<Event> {
        let granted = self.machine.borrow_mut().grant(client, &wish);
        if let Some(Act::Grant {
            server: id,
            stale_s,
            ..
        }) = granted
        {
            let Some(server) = self.idle.borrow_mut().remove(&id) else {
                tracing::error!(?client, ?id, "a grant without a server");
                return None;
            };
            self.holders.borrow_mut().insert(id, events.clone());
            return Some(Event::Granted {
                id,
                server,
                stale_s,
            });
        }
        let now_s = hub.now_s();
        let until_s = now_s + wait_s;
        self.waiting.borrow_mut().insert(client, events.clone());
        let acts = self.machine.borrow_mut().wait(client, wish, now_s, until_s);
        self.act(hub, acts);
        self.due_at(until_s);
        None
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
        let now_s = hub.now_s();
        let acts = self.machine.borrow_mut().checkin(id, now_s);
        self.act(hub, acts);
        self.due_at(now_s + hub.config.borrow().times.server_idle_s);
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

    /// The encoding that its servers speak with who asks for none.
    pub fn encoding(&self) -> Option<Vec<u8>> {
        let known = self.reported.borrow();
        known.as_ref()?.get(&b"client_encoding"[..]).cloned()
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
    pub fn key_of(&self, server: ServerId) -> Option<Rc<CancelKey>> {
        self.idle.borrow().get(&server)?.key.clone()
    }
}

/// Log in, and tell the machine how it went.
async fn open(hub: Rc<Hub>, pool: Rc<PoolOf>, id: ServerId, node: NodeId) {
    let target = hub.target_of(node);
    let Some(target) = target else {
        // It was taken out of the settings: a login that nobody makes would count as one for ever.
        return pool.lost(&hub, id);
    };
    let identity = pool.identity.borrow().clone();
    let config = hub.config();
    let within = config.times.server_connect();
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
            // What we logged in with was made of a secret that may be an old one.
            if matches!(failure.verdict(), Some((code, _)) if code.starts_with("28")) {
                if let Some(door) = hub.door() {
                    door.forget(&pool.key.user);
                }
            }
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
pub(super) async fn keep_time(hub: Rc<Hub>, pool: Rc<PoolOf>) {
    let mut sweep_s = hub.now_s() + SWEEP_S;
    loop {
        let next_s = pool.machine.borrow().next_tick_s();
        let next_s = next_s.map_or(sweep_s, |next_s| next_s.min(sweep_s));
        pool.wakes_at_s.set(next_s);
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
    use crate::config::{Config, News};
    use crate::hub::PoolKey;
    use crate::operate::Fresh;
    use crate::orders::Shards;
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
                parting: false,
                standbys: Vec::new(),
            });
            assert_eq!(pool.machine.borrow().census().connecting, 1);
            tokio::task::yield_now().await;
            assert_eq!(pool.machine.borrow().census().connecting, 0);
        });
    }
}
