//! One client at work: what it says goes to the server it has, what that says comes back.
//!
//! The machines of `pooler` decide; here bytes are moved.  One future waits for everything at
//! once (both sockets, both directions, the shard's events, the clock), so that a side that does
//! not read holds up nobody but itself, and makes us keep no more than `buffer` for it.

mod hearing;
mod parting;

use std::future::{poll_fn, Future};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use flightmode_pooler::hold::on_budget_over;
use flightmode_pooler::pool::{ClientId, ServerId};
use flightmode_pooler::route::{Target, Wish};
use flightmode_pooler::session::{Lost, Session};
use flightmode_pooler::unit::Ledger;
use flightmode_wire::client::FromClient;
use flightmode_wire::report::Report;
use flightmode_wire::server::{FromServer, TxStatus};
use tokio::task::coop::poll_proceed;
use tokio::time::Sleep;

use crate::buffers::release;
use crate::hub::{Event, Hub, PoolOf, Whereabouts};
use crate::inbox;
use crate::names::{set_all, Statements};
use crate::server::{self, Server};
use crate::source::Source;
use crate::stream::{read, write, Stream};
pub use hearing::{Hearing, Listens, OnGap};

/// The server that a client has.
pub struct Held {
    pub id: ServerId,
    pub server: Box<Server>,
    /// A message of the server of which a part went on already: what is left, and whether the
    /// client gets it.
    pub passing: Option<(usize, bool)>,
    /// The client's unnamed statement is the one that the server has.
    pub has_unnamed: bool,
    /// A standby's old data, as the client was told.
    pub is_stale: bool,
    /// Settings of its last client have to be taken back.
    pub undoes: bool,
    pub listens: Listens,
}

/// See the module.
pub struct Relay {
    pub id: ClientId,
    pub hub: Rc<Hub>,
    pub pool: Rc<PoolOf>,
    pub stream: Stream,
    pub source: Source,
    pub to_client: BytesMut,
    pub session: Session,
    pub statements: Statements,
    pub wish: Wish,
    pub held: Option<Held>,
    pub waiting: Option<Waiting>,
    /// The group of an error of ours goes on to its Sync.
    pub skipping: bool,
    /// A commit was acknowledged without its standby.
    pub unconfirmed: Unconfirmed,
    /// The server is being brought to the client's settings, or is not known to take writes:
    /// nothing of the client goes to it.
    pub settling: bool,
    pub nap: Option<Pin<Box<Sleep>>>,
    /// Since when the client is held, or for how long it was for the same statement: a second
    /// fault gives it no new budget.
    pub held_since_s: Option<f64>,
    pub was_held_s: f64,
    /// How often the same statement met a plan that had gone stale.
    pub stale_plans: u32,
    /// How often it was run again because its server was lost.
    pub reruns: u32,
    pub ending: bool,
    /// When a client that is sent away and does not listen is left.
    pub patience: Option<Pin<Box<Sleep>>>,
    pub at: Rc<Whereabouts>,
    pub events_in: inbox::Sender<Event>,
    pub events: inbox::Receiver<Event>,
    /// Bytes that are kept for it, as the shard has counted them.
    pub kept: usize,
    /// What it is told when it is sent away, once it is between two transactions.
    pub farewell: Option<(&'static str, &'static str)>,
    /// Of a client that listens by the listener of its pool.
    pub hearing: Option<Box<Hearing>>,
    pub on_gap: OnGap,
}

/// Whether the client is told that its commit may not last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unconfirmed {
    No,
    /// The server said so: the next tag, or the end of the group, is not to be believed.
    Noted,
    /// The client was told, by an error: what the server says up to its end goes nowhere.
    Told,
}

/// A client that waits for a server.
pub struct Waiting {
    since_s: f64,
}

enum Woken {
    FromClient,
    FromServer,
    ClientGone,
    ServerGone,
    Event(Event),
    Wrote,
    Rested,
    OutOfPatience,
}

impl Relay {
    /// Until the client leaves or is sent away.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn keeps room for its argument twice, and idle clients are many"
    )]
    pub fn run(mut self) -> impl Future<Output = ()> {
        async move {
            let hub = Rc::clone(&self.hub);
            let mut goes_on = {
                let _standing = hub.clock.stand_still();
                self.turn()
            };
            while goes_on {
                let woken = poll_fn(|cx| self.poll(cx)).await;
                let _standing = hub.clock.stand_still();
                goes_on = self.on_woken(woken) && self.turn();
            }
            self.leave();
        }
    }

    /// What there is to do, up to the next wait.  Whether there is one.
    fn turn(&mut self) -> bool {
        self.work();
        if self.hearing.is_some() {
            self.hear();
        }
        self.on_worked();
        !((self.ending && self.to_client.is_empty()) || self.moves())
    }

    /// Whether the client is still there.
    fn on_woken(&mut self, woken: Woken) -> bool {
        match woken {
            Woken::FromClient | Woken::FromServer | Woken::Wrote => (),
            Woken::ClientGone | Woken::OutOfPatience => return false,
            Woken::Rested => self.on_rested(),
            Woken::ServerGone => self.on_server_gone(true),
            Woken::Event(event) => self.on_event(event),
        }
        true
    }

    /// Everything that can be done without waiting.
    fn work(&mut self) {
        loop {
            self.take_from_server();
            self.take_from_client();
            if !self.give_back() {
                return;
            }
        }
    }

    pub fn limit(&self) -> usize {
        self.hub.config.borrow().limits.buffer
    }

    fn poll(&mut self, cx: &mut Context) -> Poll<Woken> {
        // Two that never let up must leave the shard to the others now and then.
        ready!(poll_proceed(cx)).made_progress();
        if let Poll::Ready(woken) = self.poll_writes(cx) {
            return Poll::Ready(woken);
        }
        if let Poll::Ready(Some(event)) = self.events.poll_recv(cx) {
            return Poll::Ready(Woken::Event(event));
        }
        if self.ending {
            let patience = self.patience.get_or_insert_with(|| nap(FAREWELL));
            if patience.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Woken::OutOfPatience);
            }
        }
        if let Some(nap) = &mut self.nap {
            if nap.as_mut().poll(cx).is_ready() {
                self.nap = None;
                return Poll::Ready(Woken::Rested);
            }
        }
        let (limit, stalled) = (self.limit(), self.is_stalled());
        if let Some(held) = &mut self.held {
            if self.to_client.len() < limit && !stalled {
                match read(&mut held.server.stream, &mut held.server.unread, cx) {
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Woken::ServerGone),
                    Poll::Ready(Ok(_)) => return Poll::Ready(Woken::FromServer),
                    Poll::Pending => (),
                }
            }
        }
        let unsent = self
            .held
            .as_ref()
            .map_or(0, |held| held.server.unsent.len());
        let has_room = unsent < limit && self.to_client.len() < limit;
        if !self.ending && !stalled && has_room && self.source.wants_more(limit) {
            match read(&mut self.stream, &mut self.source.unread, cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Woken::ClientGone),
                Poll::Ready(Ok(length)) => {
                    self.pool.counts.on_received(length);
                    return Poll::Ready(Woken::FromClient);
                }
                Poll::Pending => (),
            }
        }
        release(&mut self.source.unread);
        release(&mut self.to_client);
        Poll::Pending
    }

    fn poll_writes(&mut self, cx: &mut Context) -> Poll<Woken> {
        let (length, limit) = (self.to_client.len(), self.limit());
        let was_full = length >= limit;
        if write(&mut self.stream, &mut self.to_client, cx).is_err() {
            return Poll::Ready(Woken::ClientGone);
        }
        self.pool.counts.on_sent(length - self.to_client.len());
        let mut wrote = self.ending && self.to_client.is_empty();
        wrote |= was_full && self.to_client.len() < limit;
        let is_corked = self.hearing.as_ref().is_some_and(|one| one.is_corked());
        if let Some(held) = self.held.as_mut().filter(|_| !is_corked) {
            let had = held.server.unsent.len();
            let server = &mut *held.server;
            if write(&mut server.stream, &mut server.unsent, cx).is_err() {
                return Poll::Ready(Woken::ServerGone);
            }
            // What was sent may free the server, or room for more.
            let has = server.unsent.len();
            wrote |= had > 0 && has == 0 && self.session.may_release();
            // What the client sent behind a long message is here already, and nothing else wakes us.
            wrote |= had >= limit && has < limit;
        }
        if wrote {
            Poll::Ready(Woken::Wrote)
        } else {
            Poll::Pending
        }
    }

    // ------------------------------------------------------------------ servers come and go

    /// A server is needed.  If there is one, it is here when this returns.
    pub fn get_server(&mut self) {
        if let Some(event) = self.ask() {
            self.on_event(event);
        }
    }

    /// A server is needed, and comes as an event.
    pub fn ask_for_server(&mut self) {
        if let Some(event) = self.ask() {
            // Our own end of it is open for as long as we live.
            let _ = self.events_in.send(event);
        }
    }

    /// Once.
    fn ask(&mut self) -> Option<Event> {
        if self.waiting.is_some() {
            return None;
        }
        let now_s = self.hub.now_s();
        self.waiting = Some(Waiting { since_s: now_s });
        self.at.pace.on_waiting(now_s);
        let since_s = *self.held_since_s.get_or_insert(now_s - self.was_held_s);
        let wait_s = since_s + self.budget_s() - now_s;
        // It would be granted a server at once, and that one fail like those before.
        if wait_s <= 0.0 && now_s > since_s {
            self.on_expired();
            return None;
        }
        let pool = Rc::clone(&self.pool);
        pool.checkout(&self.hub, self.id, &self.events_in, self.wish, wait_s)
    }

    fn budget_s(&self) -> f64 {
        let hold_for_s = self.hub.config.borrow().times.hold_for_s;
        match self.pool.query_wait_s.get() {
            own if own > 0.0 => own.min(hold_for_s),
            _ => hold_for_s,
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Granted {
                id,
                server,
                stale_s,
            } => self.on_granted(id, server, stale_s),
            Event::Void(id) => {
                if self.held.as_ref().is_some_and(|held| held.id == id) {
                    self.on_server_gone(false);
                }
            }
            Event::Expired => self.on_expired(),
            Event::Ahead(ahead) => {
                let words = format!("waiting for a server, behind {ahead} others");
                Report::new("NOTICE", "01000", &words).write_notice(&mut self.out());
            }
            Event::Refused => self.fail("53300", "too many clients wait for a server"),
            // It goes when it has taken its turn, and is in already.
            Event::Move | Event::Denied(..) => (),
            Event::Mail => self.look_at_mail(),
            Event::Cancelled => self.fail("57014", "canceling statement due to user request"),
            Event::Leave {
                sqlstate,
                words,
                at_once,
            } => self.on_leave(sqlstate, words, at_once),
        }
    }

    fn out(&mut self) -> Appended<'_> {
        Appended {
            bytes: Vec::new(),
            to: &mut self.to_client,
        }
    }

    fn on_granted(&mut self, id: ServerId, mut server: Box<Server>, stale_s: Option<f64>) {
        let waited_s = self
            .waiting
            .take()
            .map_or(0.0, |waiting| self.hub.now_s() - waiting.since_s);
        self.pool.counts.on_waited(waited_s);
        self.hub.on_waited(waited_s, true);
        if !server.is_quiet() {
            // It closed while it was idle; nothing was sent, so nobody is told.
            self.pool.lost(&self.hub, id);
            self.get_server();
            return;
        }
        for (name, value) in self.session.on_server(&server.reported) {
            let mut bytes = Vec::new();
            let (name, value) = (name.as_slice(), value.as_slice());
            FromServer::ParameterStatus { name, value }.write(&mut bytes);
            self.to_client.extend_from_slice(&bytes);
        }
        if let Some(lag_s) = stale_s {
            let words = format!("there is no primary: the data are {lag_s:.1} s old");
            Report::new("NOTICE", "01000", &words).write_notice(&mut self.out());
        }
        self.at.server.set(Some(id));
        self.at.key.borrow_mut().clone_from(&server.key);
        let changes = self.session.settings().changes_from(&server.settings);
        let mut held = Held {
            id,
            server,
            passing: None,
            has_unnamed: false,
            is_stale: stale_s.is_some(),
            undoes: changes.iter().any(|(_, value)| value.is_none()),
            listens: Listens::No,
        };
        if !changes.is_empty() {
            held.server.settings = Rc::clone(self.session.settings().shared());
        }
        self.held = Some(held);
        if !changes.is_empty() {
            self.settle();
            for sql in set_all(&changes) {
                self.send_ours(&FromClient::Query(&sql));
            }
        } else if self.is_in_recovery() {
            self.settle();
            self.send_ours(&FromClient::Sync);
        } else {
            self.is_no_longer_held();
        }
    }

    /// Nothing of the client goes to its server before that has answered.  One that never does is
    /// given up when the budget is over.
    fn settle(&mut self) {
        self.settling = true;
        let now_s = self.hub.now_s();
        let left_s = self.held_since_s.unwrap_or(now_s) + self.budget_s() - now_s;
        let left = Duration::try_from_secs_f64(left_s).unwrap_or_default();
        self.nap = Some(nap(left.max(SETTLES_WITHIN)));
    }

    fn is_no_longer_held(&mut self) {
        if let Some(since_s) = self.held_since_s.take() {
            self.was_held_s = self.hub.now_s() - since_s;
        }
    }

    /// Whether the server is to take writes and was a standby when it last spoke.  It says that
    /// it no longer is before its next `ReadyForQuery`, and not a moment earlier.
    fn is_in_recovery(&self) -> bool {
        self.wish.target == Target::Primary
            && self
                .held
                .as_ref()
                .is_some_and(|held| !held.is_stale && held.server.is_standby)
    }

    /// The server has answered what it was asked before it hears of its client.
    pub fn on_settled(&mut self) {
        if self.is_in_recovery() {
            // It is being promoted.  What it would say now may lack what was committed.
            self.nap = Some(nap(RECOVERY_PAUSE));
            let node = self
                .held
                .as_ref()
                .and_then(|held| self.pool.node_of(held.id));
            if let Some(node) = node {
                self.hub.tell_in_recovery(node);
            }
        } else {
            self.settling = false;
            self.nap = None;
            self.is_no_longer_held();
        }
    }

    /// A pause between two questions is over, or the budget of a server that has not answered.
    fn on_rested(&mut self) {
        let is_asked = self.session.flow().is_running();
        let since_s = self.held_since_s.unwrap_or_else(|| self.hub.now_s());
        if !is_asked && self.hub.now_s() < since_s + self.budget_s() {
            self.settle();
            self.send_ours(&FromClient::Sync);
            return;
        }
        if is_asked {
            // Nothing of the client was sent there, so it loses nothing but its turn.
            self.on_server_gone(true);
        } else {
            self.settling = false;
            self.check_in();
        }
        self.on_expired();
    }

    /// The server is gone.  `found`: we saw it first, and the pool has to hear of it.
    pub fn on_server_gone(&mut self, found: bool) {
        self.lose_server(found, Session::on_server_lost);
    }

    /// The same with what it means to the session.
    pub fn lose_server(&mut self, found: bool, meaning: fn(&mut Session, &mut Ledger) -> Lost) {
        let Some(in_message) = self.forget_server(found) else {
            return;
        };
        let mut ledger = self.hub.ledger.borrow_mut();
        if self.reruns >= MOST_RERUNS {
            self.session.on_enough(&mut ledger);
        }
        let lost = meaning(&mut self.session, &mut ledger);
        drop(ledger);
        match lost {
            // It has half a message: whatever came behind that would be taken for the rest.
            _ if in_message => self.ending = true,
            Lost::Nothing => (),
            Lost::RunAgain(messages) => {
                self.reruns += u32::from(!messages.is_empty());
                self.source.again(messages);
            }
            Lost::Tell(bytes) => {
                self.was_held_s = 0.0;
                self.to_client.extend_from_slice(&bytes);
            }
            Lost::End(bytes) => {
                self.to_client.extend_from_slice(&bytes);
                self.ending = true;
            }
        }
        self.at
            .pace
            .on_over(self.session.flow().status(), self.hub.now_s());
    }

    /// Close it, and forget what was under way there.  Whether the client has half a message.
    pub fn forget_server(&mut self, found: bool) -> Option<bool> {
        let held = self.held.take()?;
        self.at.on_parted();
        drop(held.server);
        self.statements.on_server_lost(&self.hub);
        self.source.forget_part();
        self.unconfirmed = Unconfirmed::No;
        self.settling = false;
        self.nap = None;
        if let Some(hearing) = &mut self.hearing {
            hearing.on_server_lost();
        }
        if found {
            self.pool.lost(&self.hub, held.id);
        }
        Some(matches!(held.passing, Some((_, true))))
    }

    /// Give the server back if nothing binds it.  Whether that was done.
    fn give_back(&mut self) -> bool {
        let is_free = self.session.may_release() && !self.source.is_inside();
        let Some(held) = &self.held else { return false };
        if self.settling {
            return false;
        }
        let server = &held.server;
        let is_quiet =
            server.unsent.is_empty() && server.unread.is_empty() && held.passing.is_none();
        if !is_free || !is_quiet || self.source.has_whole() || self.unlistens() {
            return false;
        }
        self.was_held_s = 0.0;
        self.check_in();
        false
    }

    fn check_in(&mut self) {
        let Some(mut held) = self.held.take() else {
            return;
        };
        self.at.on_parted();
        let values = self.session.settings().shared();
        if !Rc::ptr_eq(&held.server.settings, values) && held.server.settings != *values {
            held.server.settings = Rc::clone(values);
        }
        let pool = Rc::clone(&self.pool);
        pool.checkin(&self.hub, held.id, held.server);
    }
}

/// Bytes that are written to a `Vec` and go to the client when it is dropped.
struct Appended<'a> {
    bytes: Vec<u8>,
    to: &'a mut BytesMut,
}

impl std::ops::Deref for Appended<'_> {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl std::ops::DerefMut for Appended<'_> {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for Appended<'_> {
    fn drop(&mut self) {
        self.to.extend_from_slice(&self.bytes);
    }
}

fn nap(how_long: Duration) -> Pin<Box<Sleep>> {
    Box::pin(tokio::time::sleep(how_long))
}

/// How long a connection may take that only hands its key over.
pub const CANCEL_WITHIN: Duration = Duration::from_secs(5);
/// The same for a client that has gone: its server is closed after that.
const CANCEL_ABANDONED: Duration = Duration::from_secs(1);
/// A server that is granted late has as long to answer, whatever is left of the budget.
const SETTLES_WITHIN: Duration = Duration::from_secs(1);
/// Between two questions whether a server has left recovery.
const RECOVERY_PAUSE: Duration = Duration::from_millis(10);
/// A read that has lost so many servers may be what kills them.
const MOST_RERUNS: u32 = 3;
/// How long a client that is sent away may take to hear why.
const FAREWELL: Duration = Duration::from_secs(5);
