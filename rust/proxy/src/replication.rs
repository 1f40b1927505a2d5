//! A client that replicates: it has a server of its own, and bytes go both ways unread.
//!
//! It is counted, listed, cancelled and sent away like the others.  It ends with the term, for a
//! primary of an old term must not be replicated from.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use flightmode_pooler::pool::ClientId;
use flightmode_wire::server::{Authentication, FromServer, TxStatus};
use flightmode_wire::startup::CancelKey;
use tokio::io::{copy_bidirectional, AsyncWriteExt};

use crate::config::Config;
use crate::hub::{Entry, Event, Hub, PoolOf, Whereabouts};
use crate::inbox;
use crate::login::Guest;
use crate::relay::CANCEL_WITHIN;
use crate::server::{self, connect, peer, ConnectError, Identity, Server, Target};
use crate::shard::{about, refuse};

/// Until either side closes, the term ends, or it is sent away.  It is counted already.
/// `known_by`: its number and the secret of its cancel key.
pub async fn replicate(
    guest: Guest,
    hub: &Rc<Hub>,
    config: &Config,
    pool: Rc<PoolOf>,
    address: Option<SocketAddr>,
    known_by: (ClientId, Vec<u8>),
) {
    let (id, secret) = known_by;
    let own_key = CancelKey::new(id.0 as u32, &secret);
    let (sender, events) = inbox::inbox();
    let at = Whereabouts::new(hub.now_s());
    let entry = Entry {
        secret,
        pool: Rc::clone(&pool),
        at: Rc::clone(&at),
        address: address
            .map(|address| address.ip().to_string())
            .unwrap_or_default(),
        events: sender,
        about: about(&guest, hub, address),
        replicates: true,
    };
    hub.clients.borrow_mut().insert(id, Box::new(entry));
    let replica = Replica {
        guest,
        pool,
        own_key,
        at,
        events,
        who: peer(address),
    };
    replica.run(hub, config).await;
    hub.on_left(id);
}

struct Replica {
    guest: Guest,
    pool: Rc<PoolOf>,
    own_key: Option<CancelKey>,
    at: Rc<Whereabouts>,
    events: inbox::Receiver<Event>,
    who: String,
}

impl Replica {
    async fn run(mut self, hub: &Rc<Hub>, config: &Config) {
        let target = match self.primary(hub, config).await {
            Ok(found) => found,
            Err(words) => return refuse(self.guest.stream, hub, "57P03", &words, &self.who).await,
        };
        let mut terms = hub.term.subscribe();
        let mut server = match own_server(&self.guest, &self.pool, &target, config).await {
            Ok(server) => server,
            Err(wrong) => {
                let words = wrong.to_string();
                return refuse(self.guest.stream, hub, "57P03", &words, &self.who).await;
            }
        };
        let key = server.key.clone();
        self.at.key.borrow_mut().clone_from(&key);
        let (greeting, who) = (self.greeting(&server), self.who);
        let guest = &mut self.guest;
        let mut relayed = std::pin::pin!(async {
            guest.stream.write_all(&greeting).await?;
            guest.stream.flush().await?;
            server.stream.write_all(&guest.unread).await?;
            copy_bidirectional(&mut guest.stream, &mut server.stream).await
        });
        loop {
            tokio::select! {
                ended = &mut relayed => {
                    if let Err(wrong) = ended {
                        tracing::debug!(client = who, "a replication connection ended: {wrong}");
                    }
                    return;
                }
                _ = terms.changed() => {
                    tracing::info!(client = who, "replication ends with the term");
                    return;
                }
                event = self.events.recv() => match event {
                    Some(Event::Cancelled) => strike(target.clone(), key.clone()),
                    // It may be inside a message: nothing can be told.
                    Some(Event::Leave { at_once: true, words, .. }) => {
                        tracing::info!(client = who, "replication ends: {words}");
                        return;
                    }
                    // What it has under way may end by itself; it can't go elsewhere.
                    Some(_) => (),
                    None => return,
                },
            }
        }
    }

    /// Held like every client that is new; none in time is an error, and so is its leave.
    async fn primary(&mut self, hub: &Rc<Hub>, config: &Config) -> Result<Target, String> {
        let hold_for = Duration::from_secs_f64(config.times.hold_for_s);
        let mut serving = hub.serving.subscribe();
        let mut held = std::pin::pin!(tokio::time::timeout(hold_for, async {
            loop {
                let node = *serving.borrow_and_update();
                let target = node.and_then(|node| hub.target_of(node));
                if target.is_some() || serving.changed().await.is_err() {
                    return target;
                }
            }
        }));
        loop {
            tokio::select! {
                found = &mut held => {
                    let none = "there is no primary to replicate from";
                    return found.ok().flatten().ok_or_else(|| none.to_owned());
                }
                event = self.events.recv() => match event {
                    Some(Event::Leave { words, .. }) => return Err(words.to_owned()),
                    // It has nothing under way.
                    Some(_) => (),
                    None => return Err("the proxy is shutting down".to_owned()),
                },
            }
        }
    }

    fn greeting(&self, server: &Server) -> Vec<u8> {
        let mut bytes = Vec::new();
        FromServer::Authentication(Authentication::Ok).write(&mut bytes);
        for (name, value) in &*server.reported {
            FromServer::ParameterStatus { name, value }.write(&mut bytes);
        }
        // Not the server's, which would pass by our own check.
        if let Some(key) = self.own_key.clone() {
            FromServer::BackendKeyData(key).write(&mut bytes);
        }
        FromServer::ReadyForQuery(TxStatus::Idle).write(&mut bytes);
        bytes
    }
}

fn strike(target: Target, key: Option<Rc<CancelKey>>) {
    let Some(key) = key else { return };
    tokio::task::spawn_local(async move {
        if let Err(wrong) = server::cancel(&target, &key, CANCEL_WITHIN).await {
            tracing::warn!("a cancel did not get through: {wrong}");
        }
    });
}

async fn own_server(
    guest: &Guest,
    pool: &PoolOf,
    target: &Target,
    config: &Config,
) -> Result<Server, ConnectError> {
    let is_forced = {
        let database = config.database(&guest.database);
        database.is_some_and(|database| database.user.is_some())
    };
    let mut startup = guest.settings.clone();
    startup.push((
        b"replication".to_vec(),
        guest.replication.clone().unwrap_or_default(),
    ));
    let known = pool.identity.borrow().clone();
    let identity = Identity {
        credential: if is_forced {
            known.credential
        } else {
            guest.credential.clone()
        },
        startup,
        ..known
    };
    let within = config.times.server_connect();
    connect(target, &identity, within, 1).await
}
