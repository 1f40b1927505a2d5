//! What a client may not do: keep more than there is, begin a transaction where only statements
//! are pooled, stay when it is sent away.

use flightmode_pooler::statement::{read, Said, Statement};
use flightmode_wire::client::{FromClient, Parse};
use flightmode_wire::report::Report;
use flightmode_wire::server::{FromServer, TxStatus};

use crate::config::PoolMode;
use crate::memory::FREE;
use crate::relay::Relay;

const NO_BLOCKS: &str = "no transaction blocks with pool_mode = statement";

impl Relay {
    /// After each turn: what it keeps is counted, and whether it is time to go.
    pub fn on_worked(&mut self) {
        let of_server = self.held.as_ref().map_or(0, |held| {
            held.server.unsent.len() + held.server.unread.len()
        });
        let of_mail = self.hearing.as_ref().map_or(0, |hearing| hearing.bytes());
        let kept = self.to_client.len() + self.source.unread.len() + of_server + of_mail;
        let before = std::mem::replace(&mut self.kept, kept);
        let hub = &self.hub;
        hub.memory.account(before, kept);
        if self.source.is_inside_long() && !self.ending && hub.memory.is_over(hub) {
            let words = "this message is larger than the memory that is left (memory_mb)";
            self.end_with("53200", words);
        }
        self.leave_if_free();
    }

    /// Above the cap of memory, what is here has to go on its way before more is read; and before a
    /// commit is told, what it has notified of.
    pub fn is_stalled(&self) -> bool {
        let unsent = self
            .held
            .as_ref()
            .map_or(0, |held| held.server.unsent.len());
        let waits = self.to_client.len() + unsent;
        self.hearing.as_ref().is_some_and(|one| one.withholds())
            || (waits > FREE && self.hub.memory.is_over(&self.hub))
    }

    /// A client's group is done.
    pub fn on_client_ready(&mut self, status: TxStatus) {
        let behind = self.session.flow().is_running();
        let now_s = self.hub.now_s();
        self.at
            .pace
            .on_ready(status, behind, now_s, &self.pool.counts);
        if status != TxStatus::Idle && self.pool.mode.get() == PoolMode::Statement {
            // In words that could not be read, or by a function.
            self.end_with("0A000", NO_BLOCKS);
        }
    }

    /// With `pool_mode = "statement"`, whether the message would have begun a transaction block
    /// and was refused.
    pub fn refuse_block(&mut self, message: &FromClient) -> bool {
        let (FromClient::Query(sql) | FromClient::Parse(Parse { sql, .. })) = message else {
            return false;
        };
        let begins = |statement: &Statement| statement.said == Said::Begin;
        if !read(sql, true).is_ok_and(|all| all.iter().any(begins)) {
            return false;
        }
        if !self.session.flow().is_free() {
            // Answers are owed before this one.
            self.end_with("0A000", NO_BLOCKS);
            return true;
        }
        let mut bytes = Vec::new();
        Report::new("ERROR", "0A000", NO_BLOCKS)
            .with(
                b'H',
                "Set pool_mode = \"transaction\" for this database or user.",
            )
            .write_error(&mut bytes);
        if let FromClient::Query(_) = message {
            FromServer::ReadyForQuery(TxStatus::Idle).write(&mut bytes);
        } else {
            self.skipping = true;
        }
        self.to_client.extend_from_slice(&bytes);
        self.at.pace.on_over(TxStatus::Idle, self.hub.now_s());
        true
    }

    /// It is sent away.
    pub fn on_leave(&mut self, sqlstate: &'static str, words: &'static str, at_once: bool) {
        if at_once {
            self.end_with(sqlstate, words);
        } else {
            self.farewell = Some((sqlstate, words));
        }
    }

    fn leave_if_free(&mut self) {
        let is_between = self.session.flow().is_free()
            && self.session.flow().status() == TxStatus::Idle
            && !self.session.is_in_aftermath()
            && self.waiting.is_none()
            && !self.source.has_whole();
        if let (true, false, Some((sqlstate, words))) = (is_between, self.ending, self.farewell) {
            self.end_with(sqlstate, words);
        }
    }

    /// The client is sent away.
    pub fn end_with(&mut self, sqlstate: &str, message: &str) {
        let mut bytes = Vec::new();
        Report::new("FATAL", sqlstate, message).write_error(&mut bytes);
        self.to_client.extend_from_slice(&bytes);
        self.ending = true;
    }
}
