//! A client that listens: by the listener that it shares, or at its own server.

use super::{Mode, Pin, Session};
use crate::listening::{Channel, Listening};

impl Session {
    /// What it listens to by the shared listener; `None`: nothing, and nothing is under way.
    pub fn listening(&self) -> Option<&Listening> {
        self.listening.as_deref()
    }

    /// The channels of each LISTEN that was sent and that nobody has asked for yet.  The server
    /// MUST NOT hear of it before the shared listener has them, or `listens_itself` was said.
    pub fn take_asked(&mut self) -> Vec<Channel> {
        let listening = self.listening.as_mut();
        listening.map_or_else(Vec::new, |listening| listening.take_asked())
    }

    /// What was asked for can't be had from the shared listener: the client listens at its server,
    /// and keeps it.
    pub fn listens_itself(&mut self) {
        self.pins.insert(Pin::Listen);
    }

    /// Whether its server may have been told to listen by what was not read: then it hears from
    /// there too.
    pub fn may_listen_itself(&self) -> bool {
        let listens = |pin: Pin| matches!(pin, Pin::Listen | Pin::Unreadable);
        self.mode == Mode::Session || self.pins.iter().any(listens)
    }

    /// In which encoding it speaks, as its servers say.
    pub fn encoding(&self) -> Option<&[u8]> {
        let found = self.reported.get(&b"client_encoding"[..]);
        found.map(Vec::as_slice)
    }

    /// Whether a COMMIT was sent, since this was last asked, of a transaction that has said LISTEN.
    pub fn take_commits(&mut self) -> bool {
        let listening = self.listening.as_mut();
        listening.is_some_and(|listening| listening.take_commits())
    }

    /// Whether something that notifies was sent since this was last asked.
    pub fn take_notifies(&mut self) -> bool {
        let listening = self.listening.as_mut();
        listening.is_some_and(|listening| listening.take_notifies())
    }

    pub(super) fn on_listening(&mut self, change: impl FnOnce(&mut Listening)) {
        if let Some(listening) = &mut self.listening {
            change(listening);
        }
    }
}
