//! Which replies are owed, by a server, to whom.
//!
//! Intuition: a client sends ahead, so what a reply belongs to can be told only by counting.  This
//! is the count: one entry for each message that will be answered, in the order in which it was
//! sent.
//!
//! Rules
//! - the end of a simple query is `ReadyForQuery` and nothing else;
//! - an error in a group drops all that follows, up to its Sync, and nothing after it;
//! - what the proxy answers itself takes its place in the order and is answered in its turn;
//! - what the proxy asked for itself is swallowed;
//! - a server is free when nothing is owed, no COPY runs and no transaction is open, and not
//!   before;
//! - a reply that nobody asked for ends the server, not the client.
//!
//! Source: Postgres manual, "Message Flow: Extended Query, Pipelining, COPY Operations".

use std::collections::VecDeque;

use flightmode_wire::server::TxStatus;

/// A message that will be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Parse,
    Bind,
    DescribeStatement,
    DescribePortal,
    Execute,
    Close,
    Sync,
    Query,
    FunctionCall,
    /// `CopyDone` or `CopyFail`, sent before the server said that it takes rows.  Not answered.
    CopyEnd,
}

impl Step {
    fn ends_with_ready(self) -> bool {
        matches!(self, Self::Sync | Self::Query | Self::FunctionCall)
    }
}

/// Who sent it and who answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The client, the server.
    Clients,
    /// The proxy, the server: the client hears nothing of it.
    Ours,
    /// The client, the proxy: the server hears nothing of it.
    Local,
}

/// What to do with a client's message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It goes to the server.
    Forward,
    /// It is answered here and now.
    Answer,
    /// It is answered here, after what is owed before it.
    Later,
    /// It is lost: an error has dropped the rest of its group, or COPY ignores it.
    Drop,
}

/// What to do with a server's message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// Whether the client gets it.
    pub forward: bool,
    /// The step that is done with it.
    pub done: Option<Step>,
    /// Answers of ours whose turn has come, after it.
    pub then: Vec<Step>,
    /// It was an error in a group; in a box, for most replies are none.
    pub failed: Option<Box<Failed>>,
}

/// What an error in a group takes with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    /// These steps of the client will never be answered.
    pub dropped: Vec<Step>,
    /// Nor will these, which were asked on its behalf.
    pub dropped_ours: Vec<Step>,
    /// A COPY has failed to which a Sync was sent.  Whether the server read it among the rows, where
    /// it is nothing, or not, and answers it, can't be told: it MUST NOT serve another client.
    pub in_doubt: bool,
}

/// What an abandoned client gets instead of replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instead {
    /// The error of the table in `hold`.
    Error,
    /// `ReadyForQuery`.
    Ready,
}

/// A reply that nobody asked for.  The server is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unasked {
    pub tag: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Copy {
    None,
    /// The client sends rows; whether a Sync came among them.
    In {
        synced: bool,
    },
    Out,
    /// Replication: both, until the connection ends.
    Both,
}

/// See the module.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about the wire"
)]
pub struct Flow {
    owed: VecDeque<(Step, Whose)>,
    status: TxStatus,
    copy: Copy,
    /// An error has dropped the rest of a group whose Sync has not been sent yet.
    skipping: bool,
    /// The client has sent a part of a group, and no Sync.
    open_group: bool,
    /// An error was told in the group whose `ReadyForQuery` is the next.
    failed: bool,
    /// The server may answer a Sync that was sent to a COPY which has failed.
    may_be_ready: bool,
}

impl Flow {
    pub fn new() -> Self {
        Self {
            owed: VecDeque::new(),
            status: TxStatus::Idle,
            copy: Copy::None,
            skipping: false,
            open_group: false,
            failed: false,
            may_be_ready: false,
        }
    }

    /// The state of the transaction as the last `ReadyForQuery` said.
    pub fn status(&self) -> TxStatus {
        self.status
    }

    /// How many `ReadyForQuery` the server owes.
    pub fn ready_owed(&self) -> usize {
        let is_ready =
            |(step, whose): &&(Step, Whose)| step.ends_with_ready() && *whose != Whose::Local;
        self.owed.iter().filter(is_ready).count()
    }

    /// Whether the server may serve another client.
    pub fn is_free(&self) -> bool {
        self.owed.is_empty()
            && self.copy == Copy::None
            && self.status == TxStatus::Idle
            && !self.skipping
            && !self.open_group
    }

    /// Whether the rest of a group is dropped until its Sync.
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// Whether the client is in a group of which all that it has sent is answered, without error.
    pub fn is_quiet_in_group(&self) -> bool {
        self.open_group && !self.is_running() && !self.skipping
    }

    /// Whether the client is in a group: it has sent a part of it, and no Sync.
    pub fn is_in_group(&self) -> bool {
        self.open_group
    }

    /// A timer of a query runs only while something is owed.
    pub fn is_running(&self) -> bool {
        !self.owed.is_empty() || self.copy != Copy::None
    }

    /// A message that will be answered is to be sent.
    pub fn on_sent(&mut self, step: Step, whose: Whose) -> Sent {
        if let (Copy::In { synced }, Step::Sync, Whose::Clients) = (&mut self.copy, step, whose) {
            if self.owed.front() == Some(&(Step::Query, whose)) {
                return Sent::Drop;
            }
            *synced = true;
            return Sent::Forward;
        }
        if self.skipping && whose != Whose::Ours {
            if step != Step::Sync {
                return Sent::Drop;
            }
            self.skipping = false;
        }
        if whose != Whose::Ours {
            self.open_group = !step.ends_with_ready();
        }
        if whose != Whose::Local {
            self.owed.push_back((step, whose));
            return Sent::Forward;
        }
        if self.owed.is_empty() {
            return Sent::Answer;
        }
        self.owed.push_back((step, whose));
        Sent::Later
    }

    /// The client ends its rows (`CopyDone`, `CopyFail`); the rows themselves need no word.
    pub fn on_copy_end_sent(&mut self) -> Sent {
        if let Copy::In { .. } = self.copy {
            self.copy = Copy::None;
        } else if self.skipping || self.owed.is_empty() {
            return Sent::Drop;
        } else {
            self.owed.push_back((Step::CopyEnd, Whose::Clients));
        }
        Sent::Forward
    }

    /// A message of the server that ends nothing but a Bind or a Describe: whether the client gets
    /// it.  Most messages are of this kind.  `None`: it is for `on_reply`, and nothing was done yet.
    pub fn on_passing(&mut self, tag: u8) -> Option<bool> {
        let &(step, whose) = self.owed.front()?;
        match (tag, step) {
            (b'T' | b'D', Step::Query)
            | (b'D', Step::Execute)
            | (b't', Step::DescribeStatement) => {}
            (b'2', Step::Bind) | (b'T' | b'n', Step::DescribePortal | Step::DescribeStatement)
                if self.is_next_of_server() =>
            {
                self.owed.pop_front();
            }
            _ => return None,
        }
        Some(whose == Whose::Clients)
    }

    /// Whether the server owes what comes behind the front: no answer of ours has its turn then.
    fn is_next_of_server(&self) -> bool {
        let next = self.owed.get(1);
        next.is_some_and(|(step, whose)| *whose != Whose::Local && *step != Step::CopyEnd)
    }

    /// A message of the server came; `status` is that of a `ReadyForQuery`.
    ///
    /// A FATAL error is no reply but the loss of the server, and MUST NOT come here.
    pub fn on_reply(&mut self, tag: u8, status: Option<TxStatus>) -> Result<Reply, Unasked> {
        let unasked = Unasked { tag };
        // Notices, settings and notifications come at any time and answer nothing.
        if matches!(tag, b'N' | b'S' | b'A') {
            return Ok(reply(Whose::Clients, None));
        }
        let may_be_ready = tag == b'Z' && std::mem::take(&mut self.may_be_ready);
        if may_be_ready && self.owed.is_empty() {
            // The COPY failed before it read any rows, and the Sync behind it was one.
            self.skipping = false;
            self.open_group = false;
            self.owed.push_back((Step::Sync, Whose::Clients));
        }
        let &(step, whose) = self.owed.front().ok_or(unasked)?;
        match tag {
            b'Z' => {
                if !step.ends_with_ready() {
                    return Err(unasked);
                }
                self.status = status.ok_or(unasked)?;
                self.copy = Copy::None;
                self.failed = false;
                Ok(self.finish(step, whose))
            }
            b'E' => Ok(self.on_error(step, whose)),
            _ if ends(step, tag) => Ok(self.finish(step, whose)),
            _ if belongs(step, tag) => {
                self.on_copy_reply(step, tag);
                Ok(reply(whose, None))
            }
            _ => Err(unasked),
        }
    }

    /// The server is lost.  Every group that waits gets one error, and its `ReadyForQuery`; of a
    /// group without its Sync the rest is dropped when it comes.
    pub fn abandon(&mut self) -> Vec<Instead> {
        let mut instead = Vec::new();
        // Even a lone Sync is an error: it would have committed what was answered before it.
        let mut told = self.failed;
        for (step, whose) in self.owed.drain(..) {
            if whose == Whose::Ours || step == Step::CopyEnd {
                continue;
            }
            if !told {
                instead.push(Instead::Error);
            }
            told = !step.ends_with_ready();
            if !told {
                instead.push(Instead::Ready);
            }
        }
        // In a group of which nothing is owed nobody waits for a word: an error that answers
        // nothing is none that a driver could take.  The next message of it hears of the loss.
        self.skipping |= self.open_group && told;
        self.failed = false;
        self.may_be_ready = false;
        self.copy = Copy::None;
        instead
    }

    /// The state that a client is in after an error of ours.
    pub fn set_status(&mut self, status: TxStatus) {
        self.status = status;
    }

    fn finish(&mut self, step: Step, whose: Whose) -> Reply {
        self.owed.pop_front();
        let mut reply = reply(whose, Some(step));
        reply.then = self.local_turn();
        reply
    }

    /// Answers of ours at the front of the queue.
    fn local_turn(&mut self) -> Vec<Step> {
        let mut turn = Vec::new();
        while let Some((step, whose)) = self.owed.front().copied() {
            match (step, whose) {
                // There was no COPY; the server ignores it too.
                (Step::CopyEnd, _) => (),
                (_, Whose::Local) => turn.push(step),
                _ => break,
            }
            self.owed.pop_front();
        }
        turn
    }

    fn on_error(&mut self, step: Step, whose: Whose) -> Reply {
        let mut reply = reply(whose, None);
        // What was asked in a client's group on its behalf fails that group.
        reply.forward = whose != Whose::Ours || !step.ends_with_ready();
        self.failed = reply.forward;
        let copy = std::mem::replace(&mut self.copy, Copy::None);
        if step.ends_with_ready() {
            return reply;
        }
        let mut failed = Failed::default();
        loop {
            match self.owed.front().copied() {
                Some((Step::Sync, _)) => break,
                Some((Step::CopyEnd, _)) => (),
                Some((next, Whose::Ours)) => failed.dropped_ours.push(next),
                Some((next, _)) => failed.dropped.push(next),
                None => {
                    // A Sync among the rows of a COPY ends no group: the next one does.
                    self.skipping = true;
                    self.may_be_ready = copy == (Copy::In { synced: true });
                    failed.in_doubt = self.may_be_ready;
                    break;
                }
            }
            self.owed.pop_front();
        }
        reply.failed = Some(Box::new(failed));
        reply
    }

    /// The server takes rows now.  What was sent behind the statement it reads while it does.
    fn on_copy_in(&mut self, step: Step) {
        while let Some((next, Whose::Clients)) = self.owed.get(1).copied() {
            match next {
                Step::CopyEnd => self.copy = Copy::None,
                // Ignored among the rows of a COPY (`copyfromparse.c`).
                Step::Sync if step == Step::Execute => {
                    self.copy = Copy::In { synced: true };
                    self.open_group = true;
                }
                _ => return,
            }
            self.owed.remove(1);
            if next == Step::CopyEnd {
                return;
            }
        }
    }

    fn on_copy_reply(&mut self, step: Step, tag: u8) {
        match tag {
            b'G' => {
                self.copy = Copy::In { synced: false };
                self.on_copy_in(step);
            }
            b'H' => self.copy = Copy::Out,
            b'W' => self.copy = Copy::Both,
            b'c' if self.copy == Copy::Out => self.copy = Copy::None,
            _ => (),
        }
    }
}

impl Default for Flow {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a message is the last of a step's reply.
fn ends(step: Step, tag: u8) -> bool {
    match step {
        Step::Parse => tag == b'1',
        Step::Bind => tag == b'2',
        Step::Close => tag == b'3',
        Step::DescribeStatement | Step::DescribePortal => matches!(tag, b'T' | b'n'),
        Step::Execute => matches!(tag, b'C' | b'I' | b's'),
        Step::Sync | Step::Query | Step::FunctionCall | Step::CopyEnd => false,
    }
}

/// Whether a message can be inside a step's reply.
fn belongs(step: Step, tag: u8) -> bool {
    match step {
        Step::DescribeStatement => tag == b't',
        Step::Execute => matches!(tag, b'D' | b'G' | b'H' | b'W' | b'd' | b'c'),
        Step::Query => matches!(
            tag,
            b'C' | b'I' | b'T' | b'D' | b'G' | b'H' | b'W' | b'd' | b'c'
        ),
        Step::FunctionCall => tag == b'V',
        Step::Parse
        | Step::Bind
        | Step::Close
        | Step::DescribePortal
        | Step::Sync
        | Step::CopyEnd => false,
    }
}

fn reply(whose: Whose, done: Option<Step>) -> Reply {
    Reply {
        forward: whose == Whose::Clients,
        done,
        then: Vec::new(),
        failed: None,
    }
}
