//! Clients go to the process that takes this one's place: an upgrade drops none of them.
//!
//! Intuition: between two transactions a client is a socket and what is known of it.  Both go to
//! the other process as a `Parcel`; whoever is in the middle of something follows when it is done.
//!
//! Rules
//! - a client is served by one process at a time: from its parcel on, nothing of it is read or
//!   written here, unless the parcel comes back;
//! - TLS can't change its process: such a client's bytes go through this one (`shovel`), which
//!   lives until it leaves;
//! - who has something at its server (a pin, session pooling, replication) stays until it leaves,
//!   and so does who listens: what comes before the heir listens for it would be lost.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use flightmode_pooler::pool::ClientId;
use flightmode_pooler::prepared::Content;
use flightmode_pooler::route::{Target, Wish};
use flightmode_pooler::session::{Carried, Session};
use flightmode_pooler::topology::Lsn;
use flightmode_wire::client::{FromClient, Parse};
use flightmode_wire::scram::{Credential, KeyPair};
use flightmode_wire::startup::CancelKey;
use serde::{Deserialize, Serialize};
use tokio::io::{copy_bidirectional, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use zeroize::Zeroizing;

use crate::census::Who;
use crate::hub::{Event, Hub, PoolKey};
use crate::login::Guest;
use crate::names::Statements;
use crate::relay::{OnGap, Relay};
use crate::shard::{mode_of, relay_of};
use crate::stream::Stream;

/// What a process of another version must know how to read; additions have defaults.
const VERSION: u32 = 1;
/// More than this is not carried: the client stays.
const MOST_BYTES: usize = 8 << 20;

/// A client on its way.
pub struct Parcel {
    pub socket: OwnedFd,
    /// What is known of it, with what proves it to its servers: never for a log.
    pub state: Vec<u8>,
}

/// Where the launcher takes them, and where shards put them.
pub struct Parcels {
    sender: Sender<Parcel>,
    receiver: Mutex<Receiver<Parcel>>,
}

impl Default for Parcels {
    fn default() -> Self {
        let (sender, receiver) = std::sync::mpsc::channel();
        let receiver = Mutex::new(receiver);
        Self { sender, receiver }
    }
}

impl Parcels {
    pub fn sender(&self) -> Sender<Parcel> {
        self.sender.clone()
    }

    /// The next one; waits up to `within`.
    pub fn take(&self, within: Duration) -> Option<Parcel> {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.recv_timeout(within).ok()
    }
}

/// A shard's part in it.
#[derive(Default)]
pub struct Moving {
    heir: RefCell<Option<Sender<Parcel>>>,
    /// Those that the heir did not want.
    stay: RefCell<BTreeSet<ClientId>>,
    /// Connections that need this process, beside its clients.
    bound: Cell<usize>,
    /// Connections that are not in yet.
    entering: Cell<usize>,
    pub admin_listeners: RefCell<Vec<tokio::task::AbortHandle>>,
    carried: Cell<u64>,
}

impl Moving {
    pub fn has_entering(&self) -> bool {
        self.entering.get() > 0
    }

    pub fn is_on(&self) -> bool {
        self.heir.borrow().is_some()
    }

    pub fn on_left(&self, id: ClientId) {
        self.stay.borrow_mut().remove(&id);
    }

    /// A carried client keeps the 32 bits that its cancel key has; those above keep it apart from
    /// clients that came in here.
    fn number(&self, id: u32) -> ClientId {
        self.carried.set(self.carried.get() + 1);
        ClientId((self.carried.get() << 32) | u64::from(id))
    }
}

/// While it lives, the process is needed.
pub struct Bound(Rc<Hub>);

impl Bound {
    pub fn new(hub: &Rc<Hub>) -> Self {
        let bound = &hub.moving.bound;
        bound.set(bound.get() + 1);
        Self(Rc::clone(hub))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let bound = &self.0.moving.bound;
        bound.set(bound.get() - 1);
    }
}

/// While it lives, somebody logs in: the process is needed until that has an end.
pub struct Entering(Rc<Hub>);

impl Entering {
    pub fn new(hub: &Rc<Hub>) -> Self {
        let entering = &hub.moving.entering;
        entering.set(entering.get() + 1);
        Self(Rc::clone(hub))
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        let entering = &self.0.moving.entering;
        entering.set(entering.get() - 1);
        self.0.left.notify_waiters();
    }
}

#[derive(Serialize, Deserialize)]
enum Proof {
    Password(Vec<u8>),
    Keys(Vec<u8>),
}

#[derive(Serialize, Deserialize)]
struct Named {
    name: Vec<u8>,
    sql: Vec<u8>,
    types: Vec<u8>,
    /// See `prepared::Under`; none: unknown.
    #[serde(default)]
    under: Option<Vec<u8>>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct State {
    version: u32,
    id: u32,
    secret: Vec<u8>,
    user: String,
    database: String,
    proof: Option<Proof>,
    settings: Vec<(Vec<u8>, Vec<u8>)>,
    told: Vec<(Vec<u8>, Vec<u8>)>,
    reported: Vec<(Vec<u8>, Vec<u8>)>,
    max_lag_s: Option<f64>,
    seen: u64,
    stale_ok: bool,
    /// See `relay::OnGap`.
    warns_of_gaps: bool,
    named: Vec<Named>,
    unnamed: Option<Vec<u8>>,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    address: String,
    port: u16,
    application: String,
    tls: Option<String>,
    age_s: f64,
}

impl Relay {
    /// Whether the client is on its way to the heir: it is no longer ours then.
    pub fn moves(&mut self) -> bool {
        let Some(heir) = self.hub.moving.heir.borrow().clone() else {
            return false;
        };
        let is_free = self.held.is_none()
            && self.waiting.is_none()
            && self.farewell.is_none()
            && !self.ending
            && !self.skipping
            && !self.source.has_again()
            && !self.source.has_whole()
            && !self.source.is_inside();
        if !is_free || self.hub.moving.stay.borrow().contains(&self.id) {
            return false;
        }
        let Some(state) = self.state() else {
            return false;
        };
        match take_socket(&mut self.stream, &self.hub) {
            Ok(socket) => {
                // The receiver lives as long as the proxy.
                let _ = heir.send(Parcel { socket, state });
            }
            Err(wrong) => tracing::error!("a client could not be handed over: {wrong}"),
        }
        true
    }

    /// What the client has proved itself with, if its servers are logged in with that.
    fn proof(&self) -> Option<Credential> {
        let config = self.hub.config();
        let database = config.database(&self.pool.key.database);
        let is_forced = database.is_some_and(|database| database.user.is_some());
        let identity = self.pool.identity.borrow();
        identity.credential.clone().filter(|_| !is_forced)
    }

    fn state(&self) -> Option<Vec<u8>> {
        let carried = self.session.carried()?;
        let clients = self.hub.clients.borrow();
        let entry = clients.get(&self.id)?;
        let named = self.statements.contents(&self.hub);
        let state = State {
            version: VERSION,
            id: self.id.0 as u32,
            secret: entry.secret.clone(),
            user: entry.about.user.clone(),
            database: self.pool.key.database.clone(),
            proof: self.proof().map(|known| match known {
                Credential::Password(word) => Proof::Password(word.to_vec()),
                Credential::Keys(keys) => Proof::Keys(keys.to_bytes().to_vec()),
            }),
            settings: carried.settings.into_iter().collect(),
            told: carried.told.into_iter().collect(),
            reported: carried.reported.into_iter().collect(),
            max_lag_s: match self.wish.target {
                Target::Primary => None,
                Target::Standby { max_lag_s } => Some(max_lag_s),
            },
            seen: self.wish.seen.0,
            stale_ok: self.wish.stale_ok,
            warns_of_gaps: self.on_gap == OnGap::Warn,
            named: named.into_iter().map(named_of).collect(),
            unnamed: self.statements.unnamed().map(<[u8]>::to_vec),
            unread: self.source.unread.to_vec(),
            unsent: self.to_client.to_vec(),
            address: entry.address.clone(),
            port: entry.about.port,
            application: entry.about.application.clone(),
            tls: entry.about.tls.clone(),
            age_s: self.hub.now_s() - entry.about.since_s,
        };
        let bytes = serde_json::to_vec(&state).ok()?;
        (bytes.len() <= MOST_BYTES).then_some(bytes)
    }
}

fn named_of((name, content): (Vec<u8>, Content)) -> Named {
    Named {
        name,
        sql: content.sql,
        types: content.types,
        under: content.under.known().map(<[u8]>::to_vec),
    }
}

/// The client's socket, or one that leads to it.
fn take_socket(stream: &mut Stream, hub: &Rc<Hub>) -> io::Result<OwnedFd> {
    match std::mem::replace(stream, Stream::Gone) {
        Stream::Tcp(plain) => Ok(plain.into_std()?.into()),
        Stream::Unix(plain) => Ok(plain.into_std()?.into()),
        secured @ (Stream::Tls(_) | Stream::ClientTls(_)) => {
            let (here, there) = UnixStream::pair()?;
            tokio::task::spawn_local(shovel(secured, here, Bound::new(hub)));
            Ok(there.into_std()?.into())
        }
        Stream::Gone => Err(io::ErrorKind::NotConnected.into()),
    }
}

/// Until one of both ends.
async fn shovel(mut client: Stream, mut heir: UnixStream, _bound: Bound) {
    let relayed = async {
        client.flush().await?;
        copy_bidirectional(&mut client, &mut heir).await
    };
    if let Err(wrong) = relayed.await {
        tracing::debug!("a client of TLS that was handed over has left: {wrong}");
    }
}

/// A parcel that was read, before any shard has it.
pub struct Unpacked {
    socket: OwnedFd,
    state: State,
    /// It has come back: it is not handed over again.
    stays: bool,
}

/// Whether this is a client that can be served here.  Raises what is wrong with it.
pub fn check(state: &[u8]) -> Result<(), String> {
    read(state).map(drop)
}

fn read(state: &[u8]) -> Result<State, String> {
    let state: State =
        serde_json::from_slice(state).map_err(|wrong| format!("not a client: {wrong}"))?;
    if state.version != VERSION {
        return Err(format!("a client of version {}", state.version));
    }
    if state.user.is_empty() || CancelKey::new(state.id, &state.secret).is_none() {
        return Err("not a client: it has no name or no key".to_owned());
    }
    Ok(state)
}

/// Read a parcel.  Raises what is wrong with it; then whoever sent it still has the client.
pub fn unpack(parcel: Parcel, stays: bool) -> Result<Unpacked, String> {
    let state = read(&parcel.state)?;
    let socket = parcel.socket;
    Ok(Unpacked {
        socket,
        state,
        stays,
    })
}

impl Unpacked {
    fn address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.state.address.parse().ok()?;
        Some(SocketAddr::new(ip, self.state.port))
    }

    fn stream(&self) -> io::Result<Stream> {
        let socket = socket2::Socket::from(self.socket.try_clone()?);
        socket.set_nonblocking(true)?;
        let is_file = socket.local_addr()?.is_unix();
        Ok(if is_file {
            Stream::Unix(UnixStream::from_std(OwnedFd::from(socket).into())?)
        } else {
            Stream::Tcp(TcpStream::from_std(socket.into())?)
        })
    }

    /// Serve the client, as if it had come in here.
    pub fn welcome(mut self, hub: &Rc<Hub>) {
        let (address, stream) = (self.address(), self.stream());
        let stream = match stream {
            Ok(stream) => stream,
            Err(wrong) => return tracing::error!("a client was handed over in vain: {wrong}"),
        };
        let config = hub.config();
        let state = &mut self.state;
        let key = PoolKey {
            database: std::mem::take(&mut state.database),
            user: std::mem::take(&mut state.user),
        };
        let credential = state.proof.take().and_then(|proof| match proof {
            Proof::Password(word) => Some(Credential::Password(Zeroizing::new(word))),
            Proof::Keys(keys) => KeyPair::from_bytes(&Zeroizing::new(keys)).map(Credential::Keys),
        });
        let Some(pool) = hub.pool(&key, credential) else {
            let words = format!("database \"{}\" is not served here any more", key.database);
            let (hub, who) = (Rc::clone(hub), crate::server::peer(address));
            tokio::task::spawn_local(async move {
                crate::shard::refuse(stream, &hub, "57P01", &words, &who).await;
            });
            return;
        };
        let guest = Guest {
            stream,
            unread: BytesMut::from(&state.unread[..]),
            user: key.user,
            database: key.database,
            settings: Vec::new(),
            credential: None,
            negotiation: Vec::new(),
            secret_len: 0,
            replication: None,
        };
        let of_ip = address.map(|address| address.ip().to_string());
        hub.shards.census.enter_anyway(Who {
            user: &guest.user,
            database: &guest.database,
            address: of_ip.as_deref().unwrap_or_default(),
        });
        let id = hub.moving.number(state.id);
        let secret = std::mem::take(&mut state.secret);
        let mut relay = relay_of(guest, hub, &config, pool, address, (id, secret));
        if self.stays {
            hub.reopen();
            hub.moving.stay.borrow_mut().insert(id);
        }
        self.restore(&mut relay);
        tokio::task::spawn_local(relay.run());
    }

    fn restore(self, relay: &mut Relay) {
        let state = self.state;
        if let Some(entry) = relay.hub.clients.borrow_mut().get_mut(&relay.id) {
            entry.about.application = state.application;
            entry.about.tls = state.tls;
            entry.about.since_s = relay.hub.now_s() - state.age_s;
        }
        let unnamed = state.unnamed.unwrap_or_default();
        let texts = state
            .named
            .iter()
            .map(|named| (named.name.clone(), named.sql.clone()));
        let of_unnamed = text_of(&unnamed);
        let texts: Vec<_> = texts.chain(of_unnamed).collect();
        let carried = Carried {
            settings: state.settings.into_iter().collect(),
            told: state.told.into_iter().collect(),
            reported: state.reported.into_iter().collect(),
        };
        relay.session = Session::of_carried(mode_of(&relay.pool), carried, texts);
        let hub = Rc::clone(&relay.hub);
        let named = state.named.into_iter().map(|named| {
            let content = Content {
                sql: named.sql,
                types: named.types,
                under: hub.catalog.borrow_mut().under(named.under),
            };
            (named.name, content)
        });
        relay.statements = Statements::carried(named.collect(), unnamed, &relay.hub);
        relay.wish = Wish {
            target: state
                .max_lag_s
                .map_or(Target::Primary, |max_lag_s| Target::Standby { max_lag_s }),
            seen: Lsn(state.seen),
            stale_ok: state.stale_ok,
        };
        if state.warns_of_gaps {
            relay.on_gap = OnGap::Warn;
        }
        relay.to_client.extend_from_slice(&state.unsent);
    }
}

/// The text of a whole Parse message, under the empty name.
fn text_of(parse: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let body = parse.get(5..)?;
    match FromClient::read(b'P', body).ok()? {
        FromClient::Parse(Parse { sql, .. }) => Some((Vec::new(), sql.to_vec())),
        _ => None,
    }
}

impl Hub {
    /// Nobody comes in here any more, and each client goes to `heir` when it can.
    pub fn give_away(self: &Rc<Self>, heir: Sender<Parcel>) {
        for listener in self.listeners.take() {
            listener.abort();
        }
        for listener in self.moving.admin_listeners.take() {
            listener.abort();
        }
        *self.moving.heir.borrow_mut() = Some(heir);
        for entry in self.clients.borrow().values() {
            let _ = entry.events.send(Event::Move);
        }
    }

    /// Whether nobody needs this shard any more.  What clients of TLS still have to do with us
    /// needs no server: those are closed with the last client.
    pub fn is_given_away(self: &Rc<Self>) -> bool {
        if !self.clients.borrow().is_empty() || self.moving.has_entering() {
            return false;
        }
        for pool in self.all_pools() {
            if !pool.machine.borrow().is_empty() {
                pool.machine.borrow_mut().pause();
                let acts = pool.machine.borrow_mut().reconnect(self.now_s());
                pool.carry_out(self, acts);
            }
        }
        self.moving.bound.get() == 0
    }

    /// Servers may be opened again.
    fn reopen(self: &Rc<Self>) {
        for pool in self.all_pools() {
            if !self.is_paused(&pool.key.database) {
                let acts = pool.machine.borrow_mut().resume(self.now_s());
                pool.carry_out(self, acts);
            }
        }
    }

    /// The heir is gone: whoever is here stays.
    pub fn keep(self: &Rc<Self>) {
        self.moving.heir.borrow_mut().take();
        self.reopen();
    }
}
