//! What a client has at stake at a server: one transaction, or one statement (or group up to
//! its Sync) outside of one.
//!
//! Intuition: when a server is lost, what matters is what of this unit may have had an effect,
//! and what the client has seen of it.  Both are noted while the bytes pass.
//!
//! Rule: what the client sent is kept as one copy, within a cap for the unit and one for all units
//! of a shard.  Beyond either the unit only loses the right to run again; the client notices
//! nothing else.  Slices of the receive buffers would cost more: most messages are shorter than what
//! it takes to share a buffer, and one of them would hold all of it.

use bytes::Bytes;
use flightmode_wire::frame::{self, Rules, Talker};

use crate::hold::Moment;

/// What a statement can do to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// None: the server itself enforces it (a standby, a read-only transaction).
    ReadOnly,
    /// None by its text: it reads tables and calls nothing but known harmless functions.
    LooksRead,
    /// Unknown, so any.
    MayWrite,
}

/// How far a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Alone,
    Open,
    Ending,
    Leaving,
}

/// Whether a text that was sent opens a transaction before it does anything, and does not end it.
///
/// Such a text has no effect of its own, although nothing of it was answered yet.  That holds for
/// one text alone: its error skips the rest of it, but not another text that was sent behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    No,
    Sending,
    Yes,
    Never,
}

/// What a statement in the extended protocol takes, in bytes: Parse, Bind, Describe, Execute, Sync.
const USUAL: usize = 256;

/// How much of what clients sent is kept, over all units of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ledger {
    used: usize,
    per_unit: usize,
    in_all: usize,
}

impl Ledger {
    /// Both in bytes.
    pub fn new(per_unit: usize, in_all: usize) -> Self {
        Self {
            used: 0,
            per_unit,
            in_all,
        }
    }

    pub fn used(&self) -> usize {
        self.used
    }

    fn allows(&self, unit: usize, more: usize) -> bool {
        unit + more <= self.per_unit && self.used + more <= self.in_all
    }
}

/// Why a unit can't run again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotKept {
    /// Larger than a unit may be, or the shard's cap is reached.
    TooLarge,
}

/// What is known at the moment a server is lost.  The place where an outcome is looked up or a
/// transaction is replayed: `sent` is all that the client said, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub moment: Moment,
    pub sent: Result<Vec<Bytes>, NotKept>,
}

/// What one client has at stake.
#[derive(Debug)]
pub struct Unit {
    stage: Stage,
    effect: Effect,
    /// Whole messages, one behind the other.
    sent: Vec<u8>,
    too_large: bool,
    seen: bool,
    begun: Begun,
}

impl Unit {
    /// A statement of its own, so far without effect.
    pub fn new() -> Self {
        Self {
            stage: Stage::Alone,
            effect: Effect::ReadOnly,
            sent: Vec::new(),
            too_large: false,
            seen: false,
            begun: Begun::No,
        }
    }

    /// The unit of what was sent before the one in front of it was answered.  Its messages are not
    /// told apart from those of that one, so it can't run again.
    pub fn sent_ahead(effect: Effect) -> Self {
        Self {
            effect,
            too_large: true,
            ..Self::new()
        }
    }

    /// The most that any of its statements can do.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// Something was sent behind what ends the transaction: a ROLLBACK is then no longer the last
    /// word, and what comes behind it is on its own.
    pub fn on_behind(&mut self, effect: Effect) {
        if self.stage == Stage::Leaving && effect != Effect::ReadOnly {
            self.stage = Stage::Ending;
        }
    }

    /// A message of the client goes to the server.
    pub fn on_sent(&mut self, message: &[u8], effect: Effect, ledger: &mut Ledger) {
        self.begun = match self.begun {
            Begun::Sending => Begun::Yes,
            Begun::Yes if effect == Effect::MayWrite => Begun::Never,
            before => before,
        };
        self.effect = self.effect.max(effect);
        self.on_behind(effect);
        if self.too_large {
            return;
        }
        if !ledger.allows(self.sent.len(), message.len()) {
            self.forget(ledger);
            self.too_large = true;
            return;
        }
        ledger.used += message.len();
        if self.sent.capacity() == 0 {
            self.sent.reserve(message.len().max(USUAL));
        }
        self.sent.extend_from_slice(message);
    }

    /// A text that opens a transaction, and has had no effect before that, is about to be sent.
    pub fn on_begin_sent(&mut self) {
        let is_first = self.stage == Stage::Alone && self.effect != Effect::MayWrite;
        self.begun = match self.begun {
            Begun::No if is_first && !self.too_large => Begun::Sending,
            Begun::Sending => Begun::Sending,
            _ => Begun::Never,
        };
    }

    /// The end of the transaction was sent; from here its fate is not ours to know.
    pub fn on_commit_sent(&mut self) {
        self.stage = Stage::Ending;
    }

    /// ROLLBACK was sent: whatever happens now, nothing of this unit stays.
    pub fn on_rollback_sent(&mut self) {
        self.begun = Begun::Never;
        if self.stage == Stage::Open {
            self.stage = Stage::Leaving;
        }
    }

    /// The server says that a transaction is open.  What was sent and is not answered yet MUST be
    /// told again after this.
    pub fn on_open(&mut self) {
        self.stage = Stage::Open;
    }

    /// A byte of the answer went to the client.
    pub fn on_seen(&mut self) {
        self.seen = true;
    }

    /// The unit is over: what was kept is given back.
    pub fn end(mut self, ledger: &mut Ledger) {
        self.forget(ledger);
    }

    /// What is to be sent once more to a server that has refused it as a whole; `None`: the
    /// client has seen a part of the answer, or it is not all here.
    pub fn refused(&self) -> Option<Vec<Bytes>> {
        let is_whole = self.stage == Stage::Alone && !self.seen && !self.too_large;
        is_whole.then(|| apart(self.sent.clone()))
    }

    /// Whether all that was sent of it is messages with one of these tags.
    pub fn consists_of(&self, tags: &[u8]) -> bool {
        let is_one = |message: &[u8]| message.first().is_some_and(|tag| tags.contains(tag));
        !self.too_large && messages(&self.sent).all(is_one)
    }

    /// It is not to run again, whatever happens.
    pub fn on_enough(&mut self, ledger: &mut Ledger) {
        self.forget(ledger);
        self.too_large = true;
    }

    /// The hook at "server lost".  The unit is over with it.
    ///
    /// A read that was not kept can't run again.  It had no effect, so it is told like one whose
    /// answer was partly seen: safe to retry.
    pub fn on_server_lost(mut self, ledger: &mut Ledger) -> Loss {
        let moment = match (self.stage, self.effect) {
            (Stage::Open, _) => Moment::Transaction,
            (Stage::Leaving, _) | (Stage::Ending, Effect::ReadOnly) => Moment::HarmlessEnd,
            (Stage::Ending, _) => Moment::Commit,
            (Stage::Alone, Effect::MayWrite) if self.begun == Begun::Yes => Moment::Transaction,
            (Stage::Alone, Effect::MayWrite) => Moment::Write,
            (Stage::Alone, _) => Moment::Read {
                seen: self.seen || self.too_large,
            },
        };
        let kept = self.forget(ledger);
        let sent = if self.too_large {
            Err(NotKept::TooLarge)
        } else {
            Ok(apart(kept))
        };
        Loss { moment, sent }
    }

    fn forget(&mut self, ledger: &mut Ledger) -> Vec<u8> {
        ledger.used -= self.sent.len();
        std::mem::take(&mut self.sent)
    }
}

/// Each of the messages that stand one behind the other.
fn messages(mut sent: &[u8]) -> impl Iterator<Item = &[u8]> {
    let rules = Rules::new(Talker::Client, frame::Stage::Session);
    std::iter::from_fn(move || {
        let frame = rules.peek(sent).ok()??;
        let (message, rest) = sent.split_at_checked(frame.len)?;
        sent = rest;
        Some(message)
    })
}

/// The same, each as something of its own.
fn apart(sent: Vec<u8>) -> Vec<Bytes> {
    let sent = Bytes::from(sent);
    messages(&sent).map(|one| sent.slice_ref(one)).collect()
}

impl Default for Unit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flightmode_wire::frame::HEADER;

    fn ledger() -> Ledger {
        Ledger::new(100, 150)
    }

    /// Of so many bytes beside its header.
    fn message(length: u8) -> Vec<u8> {
        // A query has an end at least: what has no body is a Sync.
        let tag = if length == 0 { b'S' } else { b'Q' };
        let mut bytes = vec![tag, 0, 0, 0, length + 4];
        bytes.resize(HEADER + usize::from(length), b'x');
        bytes
    }

    fn unit(effects: &[Effect], ledger: &mut Ledger) -> Unit {
        let mut unit = Unit::new();
        for effect in effects {
            unit.on_sent(&message(4), *effect, ledger);
        }
        unit
    }

    #[test]
    fn one_statement_that_may_write_makes_the_whole_unit_one_that_may() {
        let mut ledger = ledger();
        let unit = unit(
            &[Effect::LooksRead, Effect::MayWrite, Effect::ReadOnly],
            &mut ledger,
        );
        assert_eq!(unit.on_server_lost(&mut ledger).moment, Moment::Write);
    }

    #[test]
    fn what_the_client_sent_is_there_in_its_order_when_the_server_is_lost() {
        let mut ledger = ledger();
        let mut unit = Unit::new();
        for length in [0, 6] {
            unit.on_sent(&message(length), Effect::MayWrite, &mut ledger);
        }
        unit.on_open();
        assert_eq!(ledger.used(), 16);
        let loss = unit.on_server_lost(&mut ledger);
        assert_eq!(loss.moment, Moment::Transaction);
        assert_eq!(loss.sent.unwrap(), [message(0), message(6)]);
        assert_eq!(ledger.used(), 0);
    }

    #[test]
    fn a_commit_in_flight_is_in_doubt_unless_the_server_itself_forbade_writes() {
        let mut ledger = ledger();
        for (effect, moment) in [
            (Effect::MayWrite, Moment::Commit),
            (Effect::LooksRead, Moment::Commit),
            (Effect::ReadOnly, Moment::HarmlessEnd),
        ] {
            let mut unit = unit(&[effect], &mut ledger);
            unit.on_open();
            unit.on_commit_sent();
            assert_eq!(unit.on_server_lost(&mut ledger).moment, moment);
        }
    }

    #[test]
    fn a_commit_that_failed_leaves_an_ordinary_transaction() {
        let mut ledger = ledger();
        let mut unit = unit(&[Effect::MayWrite], &mut ledger);
        unit.on_open();
        unit.on_commit_sent();
        unit.on_open();
        assert_eq!(unit.on_server_lost(&mut ledger).moment, Moment::Transaction);
    }

    #[test]
    fn a_rollback_is_harmless_only_if_nothing_was_sent_behind_it() {
        let mut ledger = ledger();
        let mut last = unit(&[Effect::MayWrite], &mut ledger);
        last.on_open();
        last.on_rollback_sent();
        assert_eq!(last.on_server_lost(&mut ledger).moment, Moment::HarmlessEnd);
        let mut more = unit(&[Effect::MayWrite], &mut ledger);
        more.on_open();
        more.on_rollback_sent();
        more.on_sent(&message(6), Effect::MayWrite, &mut ledger);
        assert_eq!(more.on_server_lost(&mut ledger).moment, Moment::Commit);
    }

    #[test]
    fn a_read_whose_answer_was_seen_does_not_run_again() {
        let mut ledger = ledger();
        let mut unit = unit(&[Effect::LooksRead], &mut ledger);
        unit.on_seen();
        assert_eq!(
            unit.on_server_lost(&mut ledger).moment,
            Moment::Read { seen: true }
        );
    }

    #[test]
    fn pitfall_50_units_keep_no_more_than_their_cap_and_the_shards() {
        let mut ledger = ledger();
        let mut large = Unit::new();
        large.on_sent(&message(85), Effect::LooksRead, &mut ledger);
        let mut other = Unit::new();
        other.on_sent(&message(65), Effect::LooksRead, &mut ledger);
        assert_eq!(ledger.used(), 90, "the shard's cap");
        large.on_sent(&message(6), Effect::LooksRead, &mut ledger);
        assert_eq!(ledger.used(), 0, "the unit's cap");
        let loss = large.on_server_lost(&mut ledger);
        assert_eq!(loss.sent, Err(NotKept::TooLarge));
        assert_eq!(
            loss.moment,
            Moment::Read { seen: true },
            "it can't run again"
        );
        other.end(&mut ledger);
        assert_eq!(ledger.used(), 0);
    }
}
