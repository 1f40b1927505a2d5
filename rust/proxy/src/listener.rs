//! The connection that listens for all clients of a pool.
//!
//! It is there while anybody listens.  `pooler::channels` decides what is said to its server; here
//! that is said, and what comes is given to those who listen (`mail`).
//!
//! Rules
//! - a client's LISTEN goes to its own server when this one has the channel, and not before
//!   (`hearing`);
//! - it ends with the term, with PAUSE and with other settings of its database, and is opened anew.
//!   Who had a channel meanwhile is told that there was a gap;
//! - nobody waits here without an end: who waits for a channel that can't be had in time listens
//!   at its own server.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Buf;
use flightmode_pooler::channels::{Answered, Channels, Command, Has};
use flightmode_pooler::numbers::ByNumber;
use flightmode_pooler::pool::ClientId;
use flightmode_pooler::topology::NodeId;
use flightmode_wire::client::FromClient;
use flightmode_wire::frame::{Rules, Stage, Talker, HEADER};
use flightmode_wire::server::FromServer;
use serde::Serialize;
use tokio::sync::{watch, Notify};
use tokio::time::Instant;

use crate::hub::{Hub, PoolOf};
use crate::mail::{Gap, Mail, Note};
use crate::names::identifier;
use crate::server::{self, Server};
use crate::stream::{read, write};

/// Who waits for a channel waits no longer than this, and neither do we for an answer.
const WITHIN: Duration = Duration::from_secs(5);
/// Between two logins.
const PAUSE: Duration = Duration::from_millis(100);
/// A longer message of a server is none that it has for who listens, in bytes.
const LONGEST: usize = 1 << 20;

/// Counters since the start, and how it is now.
#[derive(Default)]
pub struct Told {
    /// From the server.
    pub notifications: Cell<u64>,
    /// To clients' mail.
    pub given: Cell<u64>,
    /// Clients that had a gap.
    pub gaps: Cell<u64>,
    /// Where it listens, as which process and since when.
    pub at: Cell<Option<(NodeId, u32, f64)>>,
}

/// Of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListenerStats {
    /// Connections that listen: one for each shard where somebody does.
    pub listeners: usize,
    pub listened_channels: usize,
    pub listening_clients: usize,
    /// From servers, each once for all who listen.
    pub notifications: u64,
    /// To clients.
    pub notifications_sent: u64,
    /// Clients that may have missed some, for the connection was lost.
    pub listen_gaps: u64,
}

impl ListenerStats {
    /// Of another shard.
    pub fn add(&mut self, other: &Self) {
        self.listeners += other.listeners;
        // Some are the same.
        self.listened_channels = self.listened_channels.max(other.listened_channels);
        self.listening_clients += other.listening_clients;
        self.notifications += other.notifications;
        self.notifications_sent += other.notifications_sent;
        self.listen_gaps += other.listen_gaps;
    }
}

/// A pool's part in it.
#[derive(Default)]
pub struct Listener {
    pub channels: RefCell<Channels>,
    mails: RefCell<ByNumber<ClientId, Rc<Mail>>>,
    changed: Notify,
    is_running: Cell<bool>,
    renews: Cell<bool>,
    pub told: Told,
}

impl PoolOf {
    /// The client wants a channel; it hears by its mail when it is there, or that it will not be.
    pub fn listen(
        self: &Rc<Self>,
        hub: &Rc<Hub>,
        id: ClientId,
        mail: &Rc<Mail>,
        name: &[u8],
    ) -> Has {
        let listener = &self.listener;
        let has = listener.channels.borrow_mut().add(id, name);
        if has == Has::Never {
            return has;
        }
        listener.mails.borrow_mut().insert(id, Rc::clone(mail));
        if !listener.is_running.replace(true) {
            tokio::task::spawn_local(keep(Rc::clone(hub), Rc::clone(self)));
        }
        listener.changed.notify_one();
        has
    }

    pub fn unlisten(&self, id: ClientId, name: &[u8]) {
        self.listener.channels.borrow_mut().remove(id, name);
        self.listener.changed.notify_one();
    }

    /// The client is to hear by its mail when all that was notified of before this has come.
    /// When so many of its fences are passed; `None`: nothing listens now.
    pub fn fence(&self, id: ClientId, mail: &Mail) -> Option<u32> {
        self.listener.told.at.get()?;
        self.listener.channels.borrow_mut().fence(id);
        self.listener.changed.notify_one();
        mail.fences.set(mail.fences.get() + 1);
        Some(mail.fences.get())
    }

    /// The client listens no more.
    pub fn forget_listener(&self, id: ClientId) {
        self.listener.channels.borrow_mut().forget_fences(id);
        self.listener.mails.borrow_mut().remove(&id);
    }

    /// What concerns its connection has changed: it is paused or no longer is, or it has to be
    /// another one.
    pub fn on_listener_changed(&self, renews: bool) {
        let listener = &self.listener;
        listener.renews.set(listener.renews.get() || renews);
        listener.changed.notify_one();
    }
}

impl Listener {
    pub fn stats(&self) -> ListenerStats {
        let (channels, clients) = self.channels.borrow().counts();
        ListenerStats {
            listeners: usize::from(self.told.at.get().is_some()),
            listened_channels: channels,
            listening_clients: clients,
            notifications: self.told.notifications.get(),
            notifications_sent: self.told.given.get(),
            listen_gaps: self.told.gaps.get(),
        }
    }

    fn is_wanted(&self) -> bool {
        !self.channels.borrow().is_empty()
    }

    fn wake(&self, id: ClientId, how: impl FnOnce(&Mail)) {
        if let Some(mail) = self.mails.borrow().get(&id) {
            how(mail);
            mail.wake();
        }
    }

    /// Who waits need not wait any more.
    fn refuse_waiting(&self) {
        for id in self.channels.borrow().waiting() {
            self.wake(id, |mail| mail.refused.set(true));
        }
    }

    fn on_note(&self, hub: &Hub, note: &Rc<Note>) {
        let told = &self.told;
        told.notifications.set(told.notifications.get() + 1);
        let mails = self.mails.borrow();
        for id in self.channels.borrow().by(&note.channel) {
            if let Some(mail) = mails.get(&id) {
                told.given.set(told.given.get() + 1);
                mail.put(note, hub);
            }
        }
    }

    fn on_answer(&self, refused: bool) {
        let Answered { woken, fenced } = self.channels.borrow_mut().on_answer(refused);
        for id in woken {
            self.wake(id, |_| ());
        }
        if let Some(id) = fenced {
            self.wake(id, |mail| mail.passed.set(mail.passed.get() + 1));
        }
        if !self.channels.borrow().is_asked() {
            self.end_gaps();
        }
    }

    fn end_gaps(&self) {
        for mail in self.mails.borrow().values() {
            if mail.gap.get() == Gap::Open {
                mail.gap.set(Gap::Over);
                mail.wake();
            }
        }
    }

    fn on_lost(&self) {
        self.told.at.set(None);
        let gaps = self.channels.borrow_mut().on_lost();
        let told = &self.told.gaps;
        told.set(told.get() + gaps.len() as u64);
        for id in gaps {
            self.wake(id, |mail| mail.gap.set(Gap::Open));
        }
        // Nothing more comes from there.
        for mail in self.mails.borrow().values() {
            mail.passed.set(mail.fences.get());
            mail.wake();
        }
    }
}

/// As long as anybody listens.
async fn keep(hub: Rc<Hub>, pool: Rc<PoolOf>) {
    let mut patience = Patience::new();
    while pool.listener.is_wanted() {
        // Of the moment before the login: a term that ends during it is not missed.
        let terms = hub.term.subscribe();
        let Some((node, server)) = log_in(&hub, &pool, &mut patience).await else {
            continue;
        };
        patience = Patience::new();
        let why = Session::new(&hub, &pool, node, server).run(terms).await;
        pool.listener.on_lost();
        if pool.listener.is_wanted() {
            let (database, user) = (&pool.key.database, &pool.key.user);
            tracing::warn!(database, user, "what listens for clients has ended: {why}");
            tokio::time::sleep(PAUSE).await;
        }
    }
    // Nothing waits in between: who comes now begins another.
    pool.listener.is_running.set(false);
}

/// With what keeps it from a session.
struct Patience {
    /// Then those who wait are refused.
    until: Instant,
    /// Before the next login, if one fails.
    pause: Duration,
}

impl Patience {
    fn new() -> Self {
        Self {
            until: Instant::now() + WITHIN,
            pause: PAUSE,
        }
    }
}

/// A session where something may begin.  `None`: there is none now, or nobody wants it any more.
async fn log_in(
    hub: &Rc<Hub>,
    pool: &Rc<PoolOf>,
    patience: &mut Patience,
) -> Option<(NodeId, Server)> {
    let mut serving = hub.serving.subscribe();
    let node = *serving.borrow_and_update();
    let target = node.and_then(|node| hub.target_of(node));
    let is_paused = pool.machine.borrow().is_paused();
    let (Some(node), Some(target), false) = (node, target, is_paused) else {
        tokio::select! {
            _ = serving.changed() => (),
            () = pool.listener.changed.notified() => (),
            () = tokio::time::sleep_until(patience.until) => {
                pool.listener.refuse_waiting();
                patience.until = Instant::now() + WITHIN;
            }
        }
        return None;
    };
    pool.listener.renews.set(false);
    let mut identity = pool.identity.borrow().clone();
    let is_named = |(name, _): &(Vec<u8>, Vec<u8>)| name == b"application_name";
    if !identity.startup.iter().any(is_named) {
        let name = (
            b"application_name".to_vec(),
            b"flightmode listener".to_vec(),
        );
        identity.startup.push(name);
    }
    let within = hub.config().times.server_connect();
    match server::connect(&target, &identity, within, 1).await {
        Ok(server) => Some((node, server)),
        Err(wrong) => {
            tracing::warn!(
                node = hub.name_of(node),
                database = pool.key.database,
                user = pool.key.user,
                "no session that listens: {wrong}"
            );
            pool.listener.refuse_waiting();
            tokio::time::sleep(patience.pause).await;
            patience.pause = (patience.pause * 2).min(WITHIN);
            None
        }
    }
}

/// One connection, from its login to its end.
struct Session<'a> {
    hub: &'a Rc<Hub>,
    pool: &'a Rc<PoolOf>,
    server: Server,
    /// An error came, and not yet the end of its answer.
    is_refused: bool,
    /// What we ask for ourselves is not answered yet.
    is_new: bool,
}

impl<'a> Session<'a> {
    fn new(hub: &'a Rc<Hub>, pool: &'a Rc<PoolOf>, node: NodeId, server: Server) -> Self {
        let pid = server.key.as_ref().map_or(0, |key| key.pid());
        pool.listener.told.at.set(Some((node, pid, hub.now_s())));
        Self {
            hub,
            pool,
            server,
            is_refused: false,
            is_new: true,
        }
    }

    /// Why it has ended.
    async fn run(mut self, mut terms: watch::Receiver<u64>) -> String {
        let pool = self.pool;
        // It is idle for as long as nobody notifies.  Servers before 14 know no such limit.
        self.say(b"SET idle_session_timeout = 0");
        // Since it owes an answer, or has last said something while it did.
        let (mut heard, mut was_asked) = (Instant::now(), true);
        loop {
            self.say_all();
            if !pool.listener.is_wanted() {
                return self.part("nobody listens any more").await;
            }
            if pool.machine.borrow().is_paused() {
                return self.part("paused").await;
            }
            if pool.listener.renews.take() {
                return self.part("other settings").await;
            }
            let is_asked = self.is_new || pool.listener.channels.borrow().is_asked();
            if !was_asked {
                heard = Instant::now();
            }
            was_asked = is_asked;
            tokio::select! {
                ended = poll_fn(|cx| self.poll(cx)) => {
                    if let Some(why) = ended {
                        return why;
                    }
                    heard = Instant::now();
                }
                () = pool.listener.changed.notified() => (),
                _ = terms.changed() => return self.part("the term has ended").await,
                () = tokio::time::sleep_until(heard + WITHIN), if is_asked => {
                    return "it does not answer".to_owned();
                }
            }
            if let Some(why) = self.take_all() {
                return why;
            }
            // Who it came for is to take it before more comes: what is kept for each has a bound.
            tokio::task::yield_now().await;
        }
    }

    /// Ready when something has come, or with why nothing more will.
    fn poll(&mut self, cx: &mut Context) -> Poll<Option<String>> {
        let server = &mut self.server;
        if let Err(wrong) = write(&mut server.stream, &mut server.unsent, cx) {
            return Poll::Ready(Some(wrong.to_string()));
        }
        match read(&mut server.stream, &mut server.unread, cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(0)) => Poll::Ready(Some("its server has closed it".to_owned())),
            Poll::Ready(Ok(_)) => Poll::Ready(None),
            Poll::Ready(Err(wrong)) => Poll::Ready(Some(wrong.to_string())),
        }
    }

    fn say(&mut self, sql: &[u8]) {
        let mut bytes = Vec::new();
        FromClient::Query(sql).write(&mut bytes);
        self.server.unsent.extend_from_slice(&bytes);
    }

    fn say_all(&mut self) {
        let commands = self.pool.listener.channels.borrow_mut().to_say();
        for command in commands {
            let (word, channel) = match &command {
                Command::Listen(channel) => (&b"LISTEN "[..], channel),
                Command::Unlisten(channel) => (&b"UNLISTEN "[..], channel),
                Command::Nothing => {
                    self.say(b"");
                    continue;
                }
            };
            let mut sql = word.to_vec();
            identifier(channel, &mut sql);
            self.say(&sql);
        }
    }

    /// What has come; why it ends.
    fn take_all(&mut self) -> Option<String> {
        let rules = Rules::new(Talker::Server, Stage::Session);
        let mut unread = std::mem::take(&mut self.server.unread);
        let ended = loop {
            let frame = match rules.peek(&unread) {
                Ok(Some(frame)) if frame.len <= unread.len() => frame,
                Ok(Some(frame)) if frame.len > LONGEST => break Some("too long".to_owned()),
                Ok(_) => break None,
                Err(wrong) => break Some(wrong.to_string()),
            };
            let message = &unread[..frame.len];
            let ended = match FromServer::read(frame.tag, &message[HEADER..]) {
                Ok(said) => self.on_message(&said, message),
                Err(wrong) => Some(wrong.to_string()),
            };
            unread.advance(frame.len);
            if ended.is_some() {
                break ended;
            }
        };
        self.server.unread = unread;
        ended
    }

    fn on_message(&mut self, said: &FromServer, bytes: &[u8]) -> Option<String> {
        let listener = &self.pool.listener;
        match said {
            FromServer::Notification { pid, channel, .. } => {
                listener.on_note(self.hub, &Note::new(*pid, channel, bytes));
            }
            FromServer::ReadyForQuery(_) => {
                let refused = std::mem::take(&mut self.is_refused);
                if !std::mem::take(&mut self.is_new) {
                    listener.on_answer(refused);
                }
            }
            FromServer::Error(report) => {
                let code = report.sqlstate().unwrap_or("XX000");
                // In recovery nobody listens; it will not be for long.
                if report.is_fatal() || code == "25006" {
                    return Some(code.to_owned());
                }
                self.is_refused = true;
            }
            _ => (),
        }
        None
    }

    /// A goodbye, and why.
    async fn part(mut self, why: &str) -> String {
        let mut bytes = Vec::new();
        FromClient::Terminate.write(&mut bytes);
        self.server.unsent.extend_from_slice(&bytes);
        let server = &mut self.server;
        // It may be gone already.
        poll_fn(|cx| Poll::Ready(write(&mut server.stream, &mut server.unsent, cx).is_ok())).await;
        why.to_owned()
    }
}
