//! What a client may not do: keep more than there is, stay when it is sent away.

use flightmode_wire::server::TxStatus;

use crate::memory::FREE;
use crate::relay::Relay;

impl Relay {
    /// After each turn: what it keeps is counted, and whether it is time to go.
    pub fn on_worked(&mut self) {
        let of_server = self.held.as_ref().map_or(0, |held| {
            held.server.unsent.len() + held.server.unread.len()
        });
        let kept = self.to_client.len() + self.source.unread.len() + of_server;
        let before = std::mem::replace(&mut self.kept, kept);
        let hub = &self.hub;
        hub.memory.account(before, kept);
        if self.source.is_inside_long() && !self.ending && hub.memory.is_over(hub) {
            let words = "this message is larger than the memory that is left (memory_mb)";
            self.end_with("53200", words);
        }
        self.leave_if_free();
    }

    /// Above the cap of memory: what is here has to go on its way before more is read.
    pub fn is_stalled(&self) -> bool {
        let unsent = self
            .held
            .as_ref()
            .map_or(0, |held| held.server.unsent.len());
        let waits = self.to_client.len() + unsent;
        waits > FREE && self.hub.memory.is_over(&self.hub)
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
}
