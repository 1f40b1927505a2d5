//! What the loss of a server means to its client, and what the client is told.

use bytes::Bytes;
use flightmode_wire::report::Report;
use flightmode_wire::server::{FromServer, TxStatus};

use super::{Lost, Session};
use crate::aftermath::Aftermath;
use crate::flow::{Flow, Instead};
use crate::hold::{on_server_lost, on_write_refused, Failure, Moment, Verdict};
use crate::statement::Pin;
use crate::unit::Ledger;

impl Session {
    /// The server has refused what was sent for a reason that another would not have, and is given
    /// up.  What is to be sent once more; `None`: the client has to hear of the error.
    pub fn on_refused(&mut self, ledger: &mut Ledger) -> Option<Vec<Bytes>> {
        // What was sent behind it may have been carried out.
        if self.flow.ready_owed() > 1 || !self.pins.is_empty() {
            return None;
        }
        let sent = self.unit.refused()?;
        std::mem::take(&mut self.unit).end(ledger);
        self.on_rolled_back();
        self.running.clear();
        self.naming.clear();
        self.portals.clear();
        self.failed = false;
        self.flow = Flow::new();
        Some(sent)
    }

    /// The same for a plan that has gone stale, whose rows may look otherwise now.  A client that
    /// asks in the same group what they look like is told; one that goes by what it was told
    /// before would take them for the old ones, and has to hear of the error.
    pub fn on_stale_plan(&mut self, ledger: &mut Ledger) -> Option<Vec<Bytes>> {
        let sent = self.unit.refused()?;
        let count = |tag: u8| {
            sent.iter()
                .filter(|message| message.first() == Some(&tag))
                .count()
        };
        if count(b'D') < count(b'E') {
            return None;
        }
        self.on_refused(ledger)
    }

    /// What is under way has run again often enough: it may be what kills its servers.
    pub fn on_enough(&mut self, ledger: &mut Ledger) {
        self.unit.on_enough(ledger);
    }

    /// The server is gone: killed, cut off, fenced, or of an old term.
    pub fn on_server_lost(&mut self, ledger: &mut Ledger) -> Lost {
        self.lose(on_server_lost, true, ledger)
    }

    /// The server was to be the primary, and has refused to write as one in recovery does: it is
    /// given up, and nothing that is under way there has an effect.
    pub fn on_write_refused(&mut self, ledger: &mut Ledger) -> Lost {
        match self.on_refused(ledger) {
            Some(sent) => Lost::RunAgain(sent),
            // The client has seen a part of the answer.
            None => self.lose(on_write_refused, false, ledger),
        }
    }

    fn lose(&mut self, table: fn(Moment) -> Verdict, again: bool, ledger: &mut Ledger) -> Lost {
        let was_failed = self.flow.status() == TxStatus::Failed;
        let is_between = self.flow.is_free() || self.has_only_prepared();
        let loss = std::mem::take(&mut self.unit).on_server_lost(ledger);
        self.on_rolled_back();
        self.running.clear();
        self.naming.clear();
        self.portals.clear();
        self.failed = false;
        self.listening = self.listening.take().filter(|one| !one.is_over());
        let moment = if is_between {
            Moment::Between
        } else {
            loss.moment
        };
        if !self.pins.is_empty() {
            return Lost::End(self.farewell(moment));
        }
        match (table(moment), loss.sent) {
            (Verdict::Hold, _) => Lost::Nothing,
            (Verdict::RunAgain, Ok(sent)) if again => {
                self.flow = Flow::new();
                Lost::RunAgain(sent)
            }
            (Verdict::RunAgain, _) => self.tell(&rolled_back(), was_failed),
            (Verdict::Tell(failure), _) => self.tell(&failure, was_failed),
        }
    }

    fn tell(&mut self, failure: &Failure, was_failed: bool) -> Lost {
        let instead = self.flow.abandon();
        let mut out = Vec::new();
        for one in &instead {
            match one {
                Instead::Error => failure.report().write_error(&mut out),
                Instead::Ready => FromServer::ReadyForQuery(failure.after).write(&mut out),
            }
        }
        self.flow.set_status(failure.after);
        let is_quiet = self.flow.is_quiet_in_group();
        if failure.after == TxStatus::Failed || is_quiet {
            let is_told = was_failed || instead.contains(&Instead::Error);
            let untold = (!is_told || is_quiet).then(|| failure.clone());
            let mut aftermath = Aftermath::new(untold, self.flow.is_skipping(), failure.after);
            for (name, text) in self.statements.iter() {
                if let Some(exit) = text.exit {
                    aftermath.knows(name, exit);
                }
            }
            self.aftermath = Some(Box::new(aftermath));
        }
        Lost::Tell(out)
    }

    /// Whether the client is in a group that has only made statements ready and asked what they
    /// look like, and has heard all of it.  Any server goes on from there: some drivers do this
    /// before each new statement, by a Flush.
    pub(super) fn has_only_prepared(&self) -> bool {
        self.flow.is_quiet_in_group()
            && self.flow.status() == TxStatus::Idle
            && self.unit.consists_of(b"PDCH")
    }

    fn farewell(&self, moment: Moment) -> Vec<u8> {
        // SQL that can't be read may have been a COMMIT.
        let in_doubt = matches!(moment, Moment::Write | Moment::Commit)
            || (moment != Moment::Between && self.pins.contains(Pin::Unreadable));
        let (code, message) = if in_doubt {
            (
                "08007",
                "the server of this session was lost: what was under way may have committed",
            )
        } else {
            ("57P01", "the server of this session was lost")
        };
        let pins: Vec<_> = self.pins.iter().map(|pin| format!("{pin:?}")).collect();
        let detail = format!("It had what only that server knew: {}.", pins.join(", "));
        let mut out = Vec::new();
        Report::new("FATAL", code, message)
            .with(b'D', &detail)
            .with(b'H', "Connect again.")
            .write_error(&mut out);
        out
    }
}

fn rolled_back() -> Failure {
    match on_server_lost(Moment::Read { seen: true }) {
        Verdict::Tell(failure) => failure,
        Verdict::Hold | Verdict::RunAgain => unreachable!("the table tells a read that was seen"),
    }
}
