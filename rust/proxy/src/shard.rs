//! One thread: its listeners, its clients, its pools.
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use flightmode_pooler::guc::Values;
use flightmode_pooler::pool::ClientId;
use flightmode_pooler::route::{Target, Wish};
use flightmode_pooler::session::{Mode, Session};
use flightmode_pooler::started::as_started;
use flightmode_pooler::topology::Lsn;
use flightmode_wire::report::Report;
use flightmode_wire::scram::Credential;
use flightmode_wire::server::{Authentication, FromServer, TxStatus};
use flightmode_wire::startup::CancelKey;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;

use crate::auth_query::Asked;
use crate::census::Who;
use crate::config::{Config, PoolMode};
use crate::console;
use crate::events::Happened;
use crate::hub::{About, Entry, Event, Hub, PoolKey, PoolOf, Whereabouts};
use crate::inbox;
use crate::listen::Kind;
use crate::login::{receive, Arrival, Guest, Refused};
use crate::moving::Entering;
use crate::names::Statements;
use crate::porch::Comer;
use crate::proxy_protocol;
use crate::relay::{OnGap, Relay, Unconfirmed, CANCEL_WITHIN};
use crate::replication::replicate;
use crate::secrets::Users;
use crate::server::{self, fill};
use crate::source::Source;
use crate::stream::Stream;

/// What a client meets before it is in.
pub struct Door {
    pub acceptor: Option<TlsAcceptor>,
    pub tls_only: bool,
    /// The digest of our certificate, for clients that bind their channel to it; without one
    /// they are not offered to.
    pub end_point: Option<Vec<u8>>,
    pub users: Users,
    /// By database: what its own user logs in with.
    pub secrets: BTreeMap<String, Credential>,
    pub mock_key: [u8; 32],
    /// Where those are asked for that the list does not have.
    pub asked: Option<Asked>,
}

/// A connection, from its first byte to its last.
pub async fn serve(
    mut stream: Stream,
    mut address: Option<SocketAddr>,
    hub: Rc<Hub>,
    kind: Kind,
    comer: Option<Comer>,
) {
    let mut config = hub.config();
    if kind.admin {
        config = Rc::new(console::by_file(&config));
    }
    let Some(door) = hub.door() else { return };
    let entering = Entering::new(&hub);
    let within = Duration::from_secs_f64(config.limits.preauth_s.max(0.1));
    let arrival = tokio::time::timeout(within, async {
        if kind.proxied {
            address = proxy_protocol::receive(&mut stream, address).await?;
        }
        let ip = address.map(|address| address.ip());
        receive(stream, ip, &door, &config).await
    })
    .await;
    let who = server::peer(address);
    match arrival {
        Ok(Ok(Arrival::Cancel(key))) => cancel(&hub, &key).await,
        Ok(Ok(Arrival::Guest(guest))) => {
            // From here on the census counts it.
            drop(comer);
            let by = (address, kind, entering);
            welcome(*guest, by, &hub, &config).await;
        }
        Ok(Err(Refused::Told { sqlstate, message })) => hub.on_refused(&who, sqlstate, &message),
        Ok(Err(Refused::Broken(wrong))) if wrong.kind() == io::ErrorKind::InvalidData => {
            hub.on_refused(&who, "08P01", &wrong.to_string());
        }
        Ok(Err(Refused::Broken(wrong))) => {
            tracing::debug!(client = who, "left before it was in: {wrong}");
        }
        Err(_) => hub.on_refused(&who, "57014", "too slow to log in"),
    }
}

pub async fn refuse(mut stream: Stream, hub: &Rc<Hub>, sqlstate: &str, message: &str, who: &str) {
    hub.on_refused(who, sqlstate, message);
    let mut bytes = Vec::new();
    Report::new("FATAL", sqlstate, message).write_error(&mut bytes);
    // It may have gone already.
    let _ = stream.write_all(&bytes).await;
    let _ = stream.shutdown().await;
}

async fn welcome(
    guest: Guest,
    (address, kind, entering): (Option<SocketAddr>, Kind, Entering),
    hub: &Rc<Hub>,
    config: &Rc<Config>,
) {
    let who = server::peer(address);
    if console::is_console(config, &guest.database) {
        drop(entering);
        return console::serve(guest, hub, config, kind, address).await;
    }
    let ip = address.map(|address| address.ip());
    if hub.draining.get() {
        let words = "the proxy is shutting down";
        return refuse(guest.stream, hub, "57P03", words, &who).await;
    }
    if hub.memory.is_over(hub) {
        let words = format!(
            "no memory for one more client (memory_mb is {})",
            config.limits.memory_mb
        );
        return refuse(guest.stream, hub, "53200", &words, &who).await;
    }
    let of_ip = ip.map(|ip| ip.to_string()).unwrap_or_default();
    let counted = Who {
        user: &guest.user,
        database: &guest.database,
        address: &of_ip,
    };
    let census = &hub.shards.census;
    if let Err(words) = census.enter(counted, config) {
        return refuse(guest.stream, hub, "53300", &words, &who).await;
    }
    let key = PoolKey {
        database: guest.database.clone(),
        user: guest.user.clone(),
    };
    let Some(pool) = hub.pool(&key, guest.credential.clone()) else {
        census.leave(counted);
        let words = format!("database \"{}\" is not served here", guest.database);
        return refuse(guest.stream, hub, "3D000", &words, &who).await;
    };
    let mut secret = vec![0; guest.secret_len];
    fill(&mut secret);
    let known_by = (hub.client_id(), secret);
    if guest.replication.is_some() {
        drop(entering);
        return replicate(guest, hub, config, pool, address, known_by).await;
    }
    let mut relay = relay_of(guest, hub, config, pool, address, known_by);
    match relay.begin().await {
        Ok(()) => {
            hub.logins.borrow_mut().accepted += 1;
            // In a task of its own: this one has room for a login, which is a lot for an idle client.
            tokio::task::spawn_local(relay.run());
        }
        Err((sqlstate, words)) => {
            hub.on_refused(&who, &sqlstate, &words);
            relay.end_with(&sqlstate, &words);
            relay.run().await;
        }
    }
}

/// It is counted already.  `known_by`: its number and the secret of its cancel key.
pub fn relay_of(
    guest: Guest,
    hub: &Rc<Hub>,
    config: &Config,
    pool: Rc<PoolOf>,
    address: Option<SocketAddr>,
    (id, secret): (ClientId, Vec<u8>),
) -> Relay {
    let (events_in, events) = inbox::inbox();
    let at = Whereabouts::new(hub.now_s());
    let entry = Entry {
        secret,
        pool: Rc::clone(&pool),
        at: Rc::clone(&at),
        address: address
            .map(|address| address.ip().to_string())
            .unwrap_or_default(),
        events: events_in.clone(),
        about: about(&guest, hub, address),
        replicates: false,
    };
    hub.clients.borrow_mut().insert(id, Box::new(entry));
    let mode = mode_of(&pool);
    let on_gap = on_gap(&guest.settings);
    let (wish, settings) = wish_of(guest.settings);
    let settings = pool.starts.shared(&Rc::new(settings));
    let source = Source::new(guest.unread, config.limits.max_message);
    Relay {
        id,
        hub: Rc::clone(hub),
        pool,
        stream: guest.stream,
        source,
        to_client: bytes::BytesMut::new(),
        session: Session::new(mode, settings),
        statements: Statements::default(),
        wish,
        held: None,
        waiting: None,
        skipping: false,
        unconfirmed: Unconfirmed::No,
        settling: false,
        nap: None,
        held_since_s: None,
        was_held_s: 0.0,
        stale_plans: 0,
        reruns: 0,
        ending: false,
        patience: None,
        at,
        events_in,
        events,
        kept: 0,
        farewell: None,
        hearing: None,
        on_gap,
    }
}

pub fn mode_of(pool: &PoolOf) -> Mode {
    match pool.mode.get() {
        PoolMode::Session => Mode::Session,
        PoolMode::Transaction | PoolMode::Statement => Mode::Transaction,
    }
}

pub fn about(guest: &Guest, hub: &Hub, address: Option<SocketAddr>) -> About {
    let named = guest
        .settings
        .iter()
        .find(|(name, _)| name == b"application_name");
    About {
        user: guest.user.clone(),
        port: address.map_or(0, |address| address.port()),
        application: named
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .unwrap_or_default(),
        tls: guest.stream.tls_version(),
        since_s: hub.now_s(),
    }
}

const ON_GAP: &[u8] = b"flightmode.listen_gap";

fn on_gap(settings: &[(Vec<u8>, Vec<u8>)]) -> OnGap {
    let warns = |(name, value): &(Vec<u8>, Vec<u8>)| name == ON_GAP && value == b"warn";
    if settings.iter().any(warns) {
        OnGap::Warn
    } else {
        OnGap::End
    }
}

/// Where a client wants its statements to run: settings of ours among those of its start-up.
fn wish_of(settings: Vec<(Vec<u8>, Vec<u8>)>) -> (Wish, Values) {
    let mut wish = Wish {
        target: Target::Primary,
        seen: Lsn(0),
        stale_ok: false,
    };
    let mut lag_s = 10.0;
    let mut on_standby = false;
    let mut values = Values::new();
    for (name, value) in settings {
        let text = String::from_utf8_lossy(&value).into_owned();
        match name.as_slice() {
            b"flightmode.target" => on_standby = text == "standby",
            b"flightmode.max_lag_s" => lag_s = text.parse().unwrap_or(lag_s),
            ON_GAP => (),
            b"flightmode.stale_ok" => wish.stale_ok = matches!(text.as_str(), "on" | "true" | "1"),
            _ => drop(values.insert(name, value)),
        }
    }
    if on_standby {
        wish.target = Target::Standby { max_lag_s: lag_s };
    }
    (wish, values)
}

impl Relay {
    /// The end of the login.  What a server says of itself is told as our own; if none has
    /// spoken yet, one has to.  Raises when none does in time.
    async fn begin(&mut self) -> Result<(), (String, String)> {
        if self.pool.reported.borrow().is_none() {
            self.ask_for_server();
            self.await_server().await?;
        }
        let mut bytes = Vec::new();
        FromServer::Authentication(Authentication::Ok).write(&mut bytes);
        let reported = self.pool.reported.borrow().clone().unwrap_or_default();
        let told = match as_started(&reported, self.session.settings().values()) {
            // Most clients of a pool come with the same.
            Some(own) => self.pool.variants.shared(&Rc::new(own)),
            None => Rc::clone(&reported),
        };
        for (name, value) in self.session.on_login(&reported, &told) {
            let (name, value) = (name.as_slice(), value.as_slice());
            FromServer::ParameterStatus { name, value }.write(&mut bytes);
        }
        let secret = self
            .hub
            .clients
            .borrow()
            .get(&self.id)
            .map(|entry| entry.secret.clone());
        if let Some(key) = CancelKey::new(self.id.0 as u32, &secret.unwrap_or_default()) {
            FromServer::BackendKeyData(key).write(&mut bytes);
        }
        FromServer::ReadyForQuery(TxStatus::Idle).write(&mut bytes);
        self.to_client.extend_from_slice(&bytes);
        Ok(())
    }

    async fn await_server(&mut self) -> Result<(), (String, String)> {
        let told = |words: String| Err(("57P03".to_owned(), words));
        loop {
            match self.events.recv().await {
                Some(Event::Granted { id, mut server, .. }) => {
                    self.waiting = None;
                    // The login has waited; its first statement has not.
                    self.held_since_s = None;
                    self.at.pace.on_over(TxStatus::Idle, self.hub.now_s());
                    self.pool.note_reported(&mut server);
                    let pool = Rc::clone(&self.pool);
                    pool.checkin(&self.hub, id, server);
                    return Ok(());
                }
                Some(Event::Expired) => {
                    self.waiting = None;
                    let failure = self.pool.failure.borrow().clone();
                    let why = failure.unwrap_or_else(|| "no primary accepts writes".to_owned());
                    return told(format!("no server for this login: {why}"));
                }
                Some(Event::Ahead(_) | Event::Void(_) | Event::Move | Event::Mail) => (),
                Some(Event::Leave { words, .. }) => return told(words.to_owned()),
                Some(Event::Denied(sqlstate, words)) => return Err((sqlstate, words)),
                Some(Event::Refused | Event::Cancelled) | None => {
                    return told("too many clients wait for a server".to_owned());
                }
            }
        }
    }
}

/// Stop what the client with this key runs, and nobody else's, whichever shard it is at.  Returns
/// when that is done: who cancels may send its next statement after this.
pub async fn cancel(hub: &Rc<Hub>, key: &CancelKey) {
    let (done, mut all) = tokio::sync::mpsc::unbounded_channel::<bool>();
    let wanted = key.clone();
    hub.shards.each(move |hub| {
        let (hub, key, done) = (Rc::clone(hub), wanted.clone(), done.clone());
        tokio::task::spawn_local(async move {
            // Nobody listens when the one who cancels has gone.
            let _ = done.send(cancel_here(&hub, &key).await);
        });
    });
    let mut is_known = false;
    while let Some(found) = all.recv().await {
        is_known |= found;
    }
    if !is_known {
        hub.sink.tell(Happened::CancelUnknown {
            client: key.pid(),
            secret: key.secret().to_vec(),
        });
    }
}

/// Whether the client is here.
async fn cancel_here(hub: &Rc<Hub>, key: &CancelKey) -> bool {
    let found = hub.clients.borrow().iter().find_map(|(id, entry)| {
        let fits = CancelKey::new(id.0 as u32, &entry.secret).is_some_and(|own| own == *key);
        fits.then(|| {
            let (pool, events) = (Rc::clone(&entry.pool), entry.events.clone());
            let of_server = entry.at.key.borrow().clone();
            let own_server = entry.replicates.then_some(events);
            (*id, pool, entry.at.server.get(), of_server, own_server)
        })
    });
    let is_here = found.is_some();
    match found {
        // Its server is known to itself alone, and it may have ended in this very moment.
        Some((.., Some(events))) => drop(events.send(Event::Cancelled)),
        Some((client, pool, Some(server), Some(of_server), None)) => {
            strike(hub, client, &pool, server, &of_server).await;
        }
        // Its statement has not begun: it waits for a server, or there is none.
        Some((client, pool, None, _, None)) => {
            pool.tell(client, Event::Cancelled);
            pool.leave(client);
        }
        _ => (),
    }
    is_here
}

/// Cancel what a client runs at a server, if the server is still its own.
pub async fn strike(
    hub: &Rc<Hub>,
    client: ClientId,
    pool: &Rc<PoolOf>,
    server: flightmode_pooler::pool::ServerId,
    key: &CancelKey,
) {
    if !pool.machine.borrow_mut().cancel_begins(server, client) {
        return;
    }
    let target = pool.node_of(server).and_then(|node| hub.target_of(node));
    if let Some(target) = target {
        if let Err(wrong) = server::cancel(&target, key, CANCEL_WITHIN).await {
            tracing::warn!("a cancel did not get through: {wrong}");
            // It may strike yet, and must not strike the next client.
            pool.machine.borrow_mut().close_after(server);
        }
    }
    let acts = pool.machine.borrow_mut().cancel_ends(server, hub.now_s());
    pool.carry_out(hub, acts);
}

/// The certificate and key of the door.  Raises `io::Error` with the path in its words.
pub fn acceptor(config: &Config) -> io::Result<(Option<TlsAcceptor>, Option<Vec<u8>>)> {
    let tls = &config.client_tls;
    let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else {
        return Ok((None, None));
    };
    let chain = crate::tls::certificates(cert)?;
    let end_point = chain.first().and_then(|found| crate::tls::end_point(found));
    let settings = crate::tls::server_settings(chain, key, tls.client_ca.as_deref())?;
    Ok((Some(TlsAcceptor::from(Arc::new(settings))), end_point))
}
