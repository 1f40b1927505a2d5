//! A client: what it has, what binds it to its server, and what it is told when that is lost.
//!
//! Intuition: `flow` counts replies, `guc` keeps settings, `unit` what is at stake.  Here they
//! hear of every message, and agree on the two questions that matter: may the server serve
//! another client now, and what does the loss of the server mean to this one.
//!
//! Rules
//! - a setting counts from its `CommandComplete`; an error in an implicit transaction takes back
//!   what was set before it in the same;
//! - a pin counts from the moment its statement is sent, and is gone when what undoes it is
//!   committed: DISCARD TEMP and UNLISTEN come back with a ROLLBACK;
//! - a client whose pins named something that only the lost server had (a lock, a temporary
//!   table) is the one client that must notice at once: it would go on believing that it has it.

mod carried;
mod listens;
mod lost;
mod named;
mod pins;
mod reading;

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use flightmode_wire::client::{FromClient, Object};
use flightmode_wire::server::{FromServer, TxStatus};

use crate::aftermath::Aftermath;
use crate::flow::{Failed, Flow, Reply, Sent, Step, Unasked, Whose};
use crate::guc::{Reported, Settings, Values};
use crate::listening::Listening;
use crate::notices::{is_deaf, with_warnings};
use crate::statement::{Pin, Said, Statement};
use crate::texts::{prepared, queried, Text};
use crate::unit::{Effect, Ledger, Unit};

/// When a client gives its server back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// After each transaction.
    Transaction,
    /// When it leaves.
    Session,
}

/// What a reply means beyond itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    pub reply: Reply,
    /// The client's names of statements that are gone.
    pub deallocated: Option<Deallocated>,
}

pub use carried::Carried;
use named::Named;
use pins::Pins;
use reading::Reading;

/// Which names a DEALLOCATE or DISCARD has taken away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deallocated {
    One(Vec<u8>),
    All,
}

/// What the loss of a server means to its client.
#[derive(Debug, PartialEq, Eq)]
pub enum Lost {
    /// Nothing: it gets another server when it needs one.
    Nothing,
    /// Take these messages again, as if the client had just sent them, when there is a server.
    RunAgain(Vec<Bytes>),
    /// Send this to the client.  It may be nothing: then the next statement hears of it.
    Tell(Vec<u8>),
    /// Send this and close: what the session had is gone.
    End(Vec<u8>),
}

/// What was sent and is not answered yet.
#[derive(Debug)]
struct Running {
    text: Rc<Text>,
    /// As many of its statements are done.
    done: usize,
}

impl Running {
    /// Those that are not done.
    fn left(&self) -> &[Statement] {
        self.text.statements.get(self.done..).unwrap_or_default()
    }

    /// The next one is done.
    fn pop(&mut self) -> Option<&Statement> {
        self.done += 1;
        self.text.statements.get(self.done - 1)
    }
}

/// A name that is about to mean something, or nothing any more: an error before its turn drops
/// it, and the name goes on as if nobody had said anything.
#[derive(Debug)]
enum Naming {
    Parse(Box<[u8]>, Rc<Text>),
    Close(Box<[u8]>),
    /// A portal is closed when that is sent, as it is bound when that is sent; it has a turn all
    /// the same.
    OfPortal,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    mode: Mode,
    flow: Flow,
    settings: Settings,
    reported: Rc<Values>,
    /// How texts are to be read, by what is in `reported`.
    reading: Reading,
    told: Reported,
    pins: Pins,
    /// Those that are gone when the transaction is committed.
    unpinned: Pins,
    unit: Unit,
    /// By the client's names; a Parse or Close that is not answered yet waits at the side.
    statements: Named<Rc<Text>>,
    naming: VecDeque<Naming>,
    portals: Named<Rc<Text>>,
    /// Each Query and Execute that is not answered yet.
    running: VecDeque<Running>,
    failed: bool,
    /// In a box: few are in one, and each that is not would have room for it.
    aftermath: Option<Box<Aftermath>>,
    /// Of a client that listens, and not at its own server.
    listening: Option<Box<Listening>>,
}

impl Session {
    /// A client that has just logged in, with the settings of its start-up packet.
    pub fn new(mode: Mode, start: impl Into<Rc<Values>>) -> Self {
        Self {
            mode,
            flow: Flow::new(),
            settings: Settings::new(start),
            reported: Rc::default(),
            reading: Reading::default(),
            told: Reported::default(),
            pins: Pins::default(),
            unpinned: Pins::default(),
            unit: Unit::new(),
            statements: Named::default(),
            naming: VecDeque::new(),
            portals: Named::default(),
            running: VecDeque::new(),
            failed: false,
            aftermath: None,
            listening: None,
        }
    }

    /// Whether the server may go to another client.
    pub fn may_release(&self) -> bool {
        self.mode == Mode::Transaction && self.pins.is_empty() && self.flow.is_free()
    }

    /// Why a client that is in no transaction keeps its server.
    pub fn pins(&self) -> impl Iterator<Item = Pin> + '_ {
        self.pins.iter()
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// What a text that is sent now will mean to the server (see [`Settings::meaning`]); `None`: it
    /// can't be told, since a setting is under way or was changed in a way that can't be followed.
    pub fn meaning(&self) -> Option<Vec<u8>> {
        let is_unknown = |pin| matches!(pin, Pin::Setting | Pin::Unreadable);
        let mut left = self.running.iter().flat_map(Running::left);
        let is_touched = self.settings.is_touched();
        let changes = left.any(|statement| match statement.said {
            Said::Set { .. } | Said::SetLocal { .. } | Said::ResetAll | Said::DiscardAll => true,
            Said::Commit | Said::Rollback | Said::PrepareTransaction | Said::RollbackTo(_) => {
                is_touched
            }
            _ => false,
        });
        let is_known = !changes && !self.pins.iter().any(is_unknown);
        is_known.then(|| self.settings.meaning())
    }

    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// What the server gets instead of this text, if that would make it keep its warnings.
    pub fn with_warnings(&self, sql: &[u8]) -> Option<Vec<u8>> {
        let louder = with_warnings(sql, self.reading.standard_strings)?;
        self.reading.is_possible.then_some(louder)
    }

    /// Whether the client wants no notices at all, not even warnings.
    pub fn is_deaf(&self) -> bool {
        let level = self.settings.holding(b"client_min_messages");
        level.is_some_and(is_deaf)
    }

    /// The end of its login: servers report this, and what the client is told of them is `told`,
    /// for it came with settings of its own (`started`).
    pub fn on_login(
        &mut self,
        reported: &Rc<Values>,
        told: &Rc<Values>,
    ) -> Vec<(Vec<u8>, Vec<u8>)> {
        self.reported = Rc::clone(reported);
        self.told.news_from(told)
    }

    /// A server is the client's now; `reported` are its `ParameterStatus`.  What the client has to
    /// be told of them.
    pub fn on_server(&mut self, reported: &Rc<Values>) -> Vec<(Vec<u8>, Vec<u8>)> {
        if Rc::ptr_eq(&self.reported, reported) {
            // The client has heard of all of it, from a server like this one.
            return Vec::new();
        }
        let is_same = self.reported == *reported;
        self.reported = Rc::clone(reported);
        self.reading = Reading::of(reported);
        if is_same {
            return Vec::new();
        }
        self.told.news_from(reported)
    }

    /// A message of the client.  `raw` is the same in bytes.  `whose` is `Local` for a Parse or
    /// Close that the server need not hear of, and for the Sync of a group that no server has
    /// heard of (also of one that is skipped, see `flow`).  Not for a client in an aftermath.
    pub fn on_message(
        &mut self,
        message: &FromClient,
        raw: &[u8],
        whose: Whose,
        ledger: &mut Ledger,
    ) -> Sent {
        let Some(step) = step_of(message) else {
            return self.on_unanswered(message, raw, ledger);
        };
        if self.has_only_prepared() {
            // What it has seen so far holds at any server: from here on it may run again.
            std::mem::take(&mut self.unit).end(ledger);
        }
        let sent = self.flow.on_sent(step, whose);
        match sent {
            Sent::Drop => return sent,
            // It would be answered a second time if the unit ran again.
            Sent::Answer if step != Step::Sync => self.unit.on_seen(),
            _ => (),
        }
        if whose == Whose::Ours {
            return sent;
        }
        let effect = self.note(message);
        self.unit.on_sent(raw, effect, ledger);
        if (sent, step, self.flow.status()) == (Sent::Answer, Step::Sync, TxStatus::Idle) {
            self.on_ready(TxStatus::Idle, ledger);
        }
        sent
    }

    fn on_unanswered(&mut self, message: &FromClient, raw: &[u8], ledger: &mut Ledger) -> Sent {
        let sent = match message {
            FromClient::CopyDone | FromClient::CopyFail(_) => self.flow.on_copy_end_sent(),
            // The rest of a COPY whose server is gone.
            FromClient::CopyData(_) if !self.flow.is_running() => Sent::Drop,
            _ => Sent::Forward,
        };
        if sent == Sent::Forward {
            let effect = match message {
                FromClient::CopyData(_) => Effect::MayWrite,
                _ => Effect::ReadOnly,
            };
            self.unit.on_sent(raw, effect, ledger);
        }
        sent
    }

    /// A message of the server that only goes on or is swallowed, and whether it goes on.  `None`:
    /// it may mean more, and nothing was done with it yet: it is for `on_reply`.
    pub fn on_passing(&mut self, tag: u8) -> Option<bool> {
        let forward = self.flow.on_passing(tag)?;
        if forward {
            self.unit.on_seen();
        }
        Some(forward)
    }

    /// A message of the server.  Not for a FATAL error: that is the loss of the server.
    pub fn on_reply(
        &mut self,
        message: &FromServer,
        ledger: &mut Ledger,
    ) -> Result<Heard, Unasked> {
        let (tag, status) = tag_of(message);
        let reply = self.flow.on_reply(tag, status)?;
        let mut deallocated = None;
        // What comes at any time is no part of an answer.
        if reply.forward && !matches!(tag, b'N' | b'S' | b'A') {
            self.unit.on_seen();
        }
        match message {
            FromServer::ParameterStatus { name, value } => {
                Rc::make_mut(&mut self.reported).insert(name.to_vec(), value.to_vec());
                self.reading = Reading::of(&self.reported);
                self.told.on_status(name, value);
            }
            FromServer::CommandComplete(tag) if reply.forward => {
                let done = self.running.front_mut().and_then(Running::pop);
                // Most say nothing that matters here, and cost no copy.
                let said = done
                    .map(|done| &done.said)
                    .filter(|said| **said != Said::Other);
                if let Some(said) = said.cloned() {
                    deallocated = self.on_done(said, tag);
                }
            }
            FromServer::Error(_) if reply.forward => self.on_error(reply.failed.as_deref()),
            _ => (),
        }
        self.on_step_done(&reply);
        if let Some(status) = status.filter(|_| reply.forward) {
            self.on_ready(status, ledger);
        }
        Ok(Heard { reply, deallocated })
    }

    fn on_step_done(&mut self, reply: &Reply) {
        let here = reply.done.filter(|_| reply.forward);
        for step in here.iter().chain(&reply.then) {
            if names(*step) {
                self.on_named();
            }
        }
        if reply.forward
            && matches!(
                reply.done,
                Some(Step::Execute | Step::Query | Step::FunctionCall)
            )
        {
            self.running.pop_front();
        }
    }

    /// The oldest Parse or Close under way is done.  To be called for a `Local` one that was
    /// answered at once (`Sent::Answer`).
    pub fn on_named(&mut self) {
        match self.naming.pop_front() {
            Some(Naming::Parse(name, text)) => self.statements.insert(&name, text),
            Some(Naming::Close(name)) => drop(self.statements.remove(&name)),
            Some(Naming::OfPortal) | None => (),
        }
    }

    fn on_error(&mut self, failed: Option<&Failed>) {
        self.failed = true;
        for step in failed.iter().flat_map(|failed| &failed.dropped) {
            match step {
                step if names(*step) => drop(self.naming.pop_front()),
                Step::Execute | Step::Query | Step::FunctionCall => drop(self.running.pop_front()),
                _ => (),
            }
        }
    }

    fn on_done(&mut self, said: Said, tag: &[u8]) -> Option<Deallocated> {
        match said {
            // COMMIT of a failed transaction is a ROLLBACK, and its tag says so.
            Said::Commit | Said::Rollback | Said::PrepareTransaction => {
                if tag == b"ROLLBACK" {
                    self.on_rolled_back();
                } else {
                    self.on_committed();
                }
                self.failed = false;
            }
            Said::Savepoint(name) => {
                self.settings.savepoint(&name);
                self.on_listening(|listening| listening.savepoint(&name));
            }
            Said::RollbackTo(name) => {
                self.settings.rollback_to(&name);
                self.on_listening(|listening| listening.rollback_to(&name));
                // Which of them came after the savepoint is not kept: they pin on.
                self.unpinned = Pins::default();
            }
            Said::Release(name) => {
                self.settings.release(&name);
                self.on_listening(|listening| listening.release(&name));
            }
            Said::Set { name, value } => self.settings.set(&name, value.as_deref()),
            Said::SetLocal { name, value } => self.settings.set_local(&name, value.as_deref()),
            Said::ResetAll => self.settings.reset_all(),
            Said::Pins(pin) => {
                // What has undone one like it came before.
                self.unpinned.remove(pin);
            }
            Said::Unpins(Pin::Temporary) => self.unpinned.insert(Pin::Temporary),
            Said::Listen(channel) => {
                self.unpinned.remove(Pin::Listen);
                self.on_listening(|listening| listening.listen(channel));
            }
            Said::Unlisten(Some(channel)) => {
                self.on_listening(|listening| listening.unlisten(channel));
            }
            Said::Unlisten(None) => {
                self.unpinned.insert(Pin::Listen);
                self.on_listening(Listening::unlisten_all);
            }
            // No ROLLBACK brings back a lock or a cursor.
            Said::Unpins(pin) => self.unpin(pin),
            Said::Deallocate(name) => {
                let Some(name) = name else {
                    return Some(self.forget_statements());
                };
                self.statements.remove(&name);
                return Some(Deallocated::One(name));
            }
            Said::DiscardAll => {
                self.settings.discard_all();
                self.unpinned.extend(self.pins);
                self.portals.clear();
                self.on_listening(Listening::unlisten_all);
                return Some(self.forget_statements());
            }
            Said::Begin | Said::SetTransaction | Said::Notify | Said::Other => (),
        }
        None
    }

    fn on_committed(&mut self) {
        self.settings.commit();
        self.on_listening(Listening::commit);
        for pin in std::mem::take(&mut self.unpinned).iter() {
            self.unpin(pin);
        }
    }

    fn on_rolled_back(&mut self) {
        self.settings.rollback();
        self.on_listening(Listening::rollback);
        self.unpinned = Pins::default();
    }

    /// Unless what was sent ahead pins anew.
    fn unpin(&mut self, pin: Pin) {
        let pins = |said: &Said| match said {
            Said::Listen(_) => pin == Pin::Listen,
            said => *said == Said::Pins(pin),
        };
        let mut left = self.running.iter().flat_map(Running::left);
        if !left.any(|statement| pins(&statement.said)) {
            self.pins.remove(pin);
        }
    }

    fn forget_statements(&mut self) -> Deallocated {
        self.statements.clear();
        self.unpin(Pin::SqlPrepare);
        Deallocated::All
    }

    fn on_ready(&mut self, status: TxStatus, ledger: &mut Ledger) {
        if status != TxStatus::Idle {
            self.unit.on_open();
            // What was sent ahead may end it, and go on behind that.
            for statement in self.running.iter().flat_map(Running::left) {
                self.unit.on_behind(statement.effect);
                match &statement.said {
                    Said::Rollback => self.unit.on_rollback_sent(),
                    said if commits(said) => self.unit.on_commit_sent(),
                    _ => (),
                }
            }
            return;
        }
        if std::mem::take(&mut self.failed) {
            self.on_rolled_back();
        } else {
            self.on_committed();
        }
        let next = if self.flow.is_running() {
            Unit::sent_ahead(self.unit.effect())
        } else {
            self.portals.clear();
            self.listening = self.listening.take().filter(|one| !one.is_over());
            Unit::new()
        };
        std::mem::replace(&mut self.unit, next).end(ledger);
    }

    /// Whether the client is in a transaction that a failover has ended.  Its messages then go to
    /// `on_aftermath`, and it needs no server.
    pub fn is_in_aftermath(&self) -> bool {
        self.aftermath.is_some()
    }

    /// A message of such a client; the answer is appended.  Whether it was a Parse or Close that is
    /// done: the client goes by it from then on, at every server.
    pub fn on_aftermath(&mut self, message: &FromClient, out: &mut Vec<u8>) -> bool {
        let Some(aftermath) = &mut self.aftermath else {
            return false;
        };
        let is_accepted = aftermath.on_message(message, out);
        if aftermath.is_over() {
            self.aftermath = None;
            self.flow = Flow::new();
        }
        match *message {
            FromClient::Parse(parse) if is_accepted => {
                let text = self.read_prepared(parse.sql);
                self.statements.insert(parse.name, text);
            }
            FromClient::Close(Object::Statement(name)) if is_accepted => {
                self.statements.remove(name);
            }
            _ => (),
        }
        is_accepted
    }
}

/// Whether it waits in `naming` for its answer.
fn names(step: Step) -> bool {
    matches!(step, Step::Parse | Step::Close)
}

fn commits(said: &Said) -> bool {
    matches!(said, Said::Commit | Said::PrepareTransaction)
}

fn step_of(message: &FromClient) -> Option<Step> {
    Some(match message {
        FromClient::Query(_) => Step::Query,
        FromClient::Parse(_) => Step::Parse,
        FromClient::Bind(_) => Step::Bind,
        FromClient::Describe(Object::Statement(_)) => Step::DescribeStatement,
        FromClient::Describe(Object::Portal(_)) => Step::DescribePortal,
        FromClient::Execute { .. } => Step::Execute,
        FromClient::Close(_) => Step::Close,
        FromClient::Sync => Step::Sync,
        FromClient::FunctionCall(_) => Step::FunctionCall,
        _ => return None,
    })
}

fn tag_of(message: &FromServer) -> (u8, Option<TxStatus>) {
    if let FromServer::ReadyForQuery(status) = message {
        return (b'Z', Some(*status));
    }
    let tag = match message {
        FromServer::ParseComplete => b'1',
        FromServer::BindComplete => b'2',
        FromServer::CloseComplete => b'3',
        FromServer::NoData => b'n',
        FromServer::PortalSuspended => b's',
        FromServer::EmptyQueryResponse => b'I',
        FromServer::CopyDone => b'c',
        FromServer::RowDescription(_) => b'T',
        FromServer::ParameterDescription(_) => b't',
        FromServer::DataRow(_) => b'D',
        FromServer::FunctionCallResponse(_) => b'V',
        FromServer::CopyIn(_) => b'G',
        FromServer::CopyOut(_) => b'H',
        FromServer::CopyBoth(_) => b'W',
        FromServer::CopyData(_) => b'd',
        FromServer::CommandComplete(_) => b'C',
        FromServer::Error(_) => b'E',
        FromServer::Notice(_) => b'N',
        FromServer::ParameterStatus { .. } => b'S',
        FromServer::Notification { .. } => b'A',
        FromServer::Authentication(_) => b'R',
        FromServer::BackendKeyData(_) => b'K',
        FromServer::NegotiateProtocolVersion { .. } => b'v',
        FromServer::ReadyForQuery(_) => b'Z',
    };
    (tag, None)
}
